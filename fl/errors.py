"""What `fl` raises, and what each error carries.

    FlError
      PlanError            faults: every fault of a plan or job at once, one line each
      DataError            field, got, takes
        ChecksumError      a data file is not the published one
        MissingFileError   a data file is not there; the message says where to get it
      MissingExtraError    feature, extra: an optional dependency is not installed
      StoreError           field, got, takes: a run directory or its store cannot be used
      LocalTrainingError   stage, client, why, inputs: from the runner "debug" alone
      WorkerError          worker, why: a process of the run is gone
      RefusedError         field, got, takes: a request that an organisation does not answer

Every message names the field, what it got and what it takes. The arguments are kept as attributes
and as `args`, so that the errors survive pickling between worker processes.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np


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


class RefusedError(_FieldError):
    """What a server asks an organisation for, and does not get; nothing has changed.

    Attributes:
        field: which part of the request.
        got: what it was, in words.
        takes: what would be answered, in words.
    """


class LocalTrainingError(FlError):
    """A client's training failed, as the runner "debug" found.

    Attributes:
        stage: "client_init", "client_step K" or "client_final".
        client: whose.
        why: what went wrong.
        inputs: what the stage was given, as arrays by name; they may be private data.
    """

    def __init__(self, stage: str, client: int, why: str, inputs: Mapping[str, Any]) -> None:
        super().__init__(stage, client, why, inputs)
        self.stage = stage
        self.client = client
        self.why = why
        self.inputs = inputs

    def __str__(self) -> str:
        lines = [f"{self.stage} of client {self.client}: {self.why}"]
        lines += [f"  {line}" for line in described(self.inputs)]
        return "\n".join(lines)


def described(inputs: Mapping[str, Any]) -> list[str]:
    """Returns a line per array in nested mappings and tuples: kind, shape, range; no values."""
    lines: list[str] = []

    def visit(path: str, value: Any) -> None:
        if isinstance(value, Mapping):
            for name, item in value.items():
                visit(f"{path}[{name!r}]", item)
        elif isinstance(value, (tuple, list)):
            names = getattr(value, "_fields", range(len(value)))
            for name, item in zip(names, value, strict=True):
                visit(f"{path}.{name}", item)
        else:
            array = np.asarray(value)
            bad = array.size - int(np.isfinite(array).sum()) if array.dtype.kind == "f" else 0
            lines.append(
                f"{path}: {array.dtype}{list(array.shape)}"
                + (f", {bad} of {array.size} not finite" if bad else "")
            )

    for name, value in inputs.items():
        visit(name, value)
    return lines


class WorkerError(FlError):
    """A process of the run is gone, or did not do what the others did.

    Attributes:
        worker: its index.
        why: what is known.
    """

    def __init__(self, worker: int, why: str) -> None:
        super().__init__(worker, why)
        self.worker = worker
        self.why = why

    def __str__(self) -> str:
        return f"worker {self.worker}: {self.why}"
