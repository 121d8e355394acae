"""What `fl` raises, and what each error carries.

    FlError
      PlanError            faults: every fault of a plan or job at once, one line each
      DataError            field, got, takes
        ChecksumError      a data file is not the published one
        MissingFileError   a data file is not there; the message says where to get it
      MissingExtraError    feature, extra: an optional dependency is not installed
      StoreError           field, got, takes: a run directory or its store cannot be used

Every message names the field, what it got and what it takes. The arguments are kept as attributes
and as `args`, so that the errors survive pickling between worker processes.
"""


def fault(field: str, got: object, takes: str) -> str:
    """One line that says what is wrong with one field.

    Args:
        field: the name the caller knows the value by.
        got: what was given; shown by `repr` unless it is a string, which is shown as it is.
        takes: what would be accepted, in words.

    Returns:
        `"field: got ...; takes ..."`, the form of every fault of `PlanError`.
    """
    return f"{field}: got {got if isinstance(got, str) else repr(got)}; takes {takes}"


class FlError(Exception):
    """Base of everything that `fl` raises on purpose."""


class PlanError(FlError):
    """A plan or job that cannot run, with all of its faults.

    Attributes:
        faults: one line each (see `fault`), in the order in which they were found.
    """

    def __init__(self, faults: tuple[str, ...]) -> None:
        super().__init__(faults)
        self.faults = faults

    def __str__(self) -> str:
        return "\n".join(self.faults)


class _FieldError(FlError):
    """One field that cannot be used; attributes as its subclasses say."""

    def __init__(self, field: str, got: object, takes: str) -> None:
        super().__init__(field, got, takes)
        self.field = field
        self.got = got
        self.takes = takes

    def __str__(self) -> str:
        return fault(self.field, self.got, self.takes)


class DataError(_FieldError):
    """Data, or a request for data, that cannot be used.

    Attributes:
        field: the name of the argument, array or file.
        got: what it was, in words.
        takes: what would be accepted, in words.
    """


class ChecksumError(DataError):
    """A data file whose bytes are not the published ones."""


class MissingFileError(DataError):
    """A data file that is not there; `takes` says what to download from where."""


class MissingExtraError(FlError):
    """An optional dependency is needed and not installed.

    Attributes:
        feature: what was asked for.
        extra: the extra of this distribution that provides it.
    """

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(feature, extra)
        self.feature = feature
        self.extra = extra

    def __str__(self) -> str:
        return (
            f"{self.feature} needs the extra {self.extra!r}: "
            f"pip install 'private-aggregation[{self.extra}]'"
        )


class StoreError(_FieldError):
    """A run directory, or the store in it, that cannot be used as asked.

    Attributes:
        field: the name of the argument or of the stored value.
        got: what it was, in words.
        takes: what would be accepted, in words.
    """
