"""Exceptions of `dp`.

Tree:

    DpError
      ParameterError          the caller's argument: field, got, takes
        ModulusError          a modulus that cannot hold what will be summed
      NonFiniteError          a vector with NaN or an infinity
      RoundingError           a vector that no rounding brings under its bound
      UnsupportedEventError   an event outside what an accountant can prove
      CalibrationError        no parameter in the searched range meets the target
      FailureBudgetError      delta cannot pay for failures and sampler distance
      LedgerError
        ReleaseLimitError     a client would exceed its release limit
        RepeatedChargeError   a second charge of one attempt for one client
        RepeatedReleaseError  a second release of one attempt
        SurvivorsError        too few survivors, or survivors that were never charged
        LedgerMismatchError   ledgers, events or text that do not belong together
        BudgetError           an event that a privacy filter does not admit

and DeltaWarning, a UserWarning.

No exception carries data of a client: fields hold parameters and public identifiers only.
"""

from collections.abc import Sequence

_SHOWN = 5  # identifiers named in a message; the attribute holds all of them


def _some(ids: Sequence[int]) -> str:
    shown = ", ".join(str(i) for i in ids[:_SHOWN])
    return shown if len(ids) <= _SHOWN else f"{shown} and {len(ids) - _SHOWN} more"


class DpError(Exception):
    """Base of every exception raised by `dp` on purpose."""


class DeltaWarning(UserWarning):
    """Delta is at least 1 / num_clients: a release of one client's data in full would meet it."""


class ParameterError(DpError, ValueError):
    """An argument outside its range.

    Attributes:
        field: name of the argument.
        got: the value passed.
        takes: what is accepted, in words.
    """

    def __init__(self, field: str, got: object, takes: str) -> None:
        self.field = field
        self.got = got
        self.takes = takes
        super().__init__(f"{field}={got!r}: takes {takes}")


class ModulusError(ParameterError):
    """A modulus 2**b that cannot hold the worst-case sum.

    Attributes:
        needed: smallest number of bits that holds the sum; may exceed the largest supported.
    """

    def __init__(self, got: object, takes: str, needed: int) -> None:
        self.needed = needed
        super().__init__("modulus_bits", got, takes)


class NonFiniteError(DpError, ValueError):
    """A vector holds NaN or an infinity; its caller sends the zero vector instead."""

    def __init__(self, field: str) -> None:
        self.field = field
        super().__init__(f"{field}: takes finite numbers, got NaN or an infinity")


class RoundingError(DpError):
    """Rounding toward zero exceeded the bound; unreachable by the proof, never ignored."""


class UnsupportedEventError(DpError):
    """An accountant has no proof for this event.

    Attributes:
        event: the event, or its part, that cannot be analysed.
        reason: what is missing.
    """

    def __init__(self, event: object, reason: str) -> None:
        self.event = event
        self.reason = reason
        super().__init__(f"{type(event).__name__}: {reason}")


class CalibrationError(DpError):
    """No parameter in the searched range meets the target.

    Attributes:
        target: the epsilon asked for.
        bracket: (smallest, largest) parameter tried.
    """

    def __init__(self, target: float, bracket: tuple[float, float], reason: str) -> None:
        self.target = target
        self.bracket = bracket
        super().__init__(
            f"epsilon={target!r}: not met between {bracket[0]:g} and {bracket[1]:g}: {reason}"
        )


class FailureBudgetError(DpError):
    """Delta is too small to pay for protocol failures and sampler distance.

    Attributes:
        delta: the delta asked for.
        needed: what failures and sampler distance cost at the epsilon reached.
    """

    def __init__(self, delta: float, needed: float) -> None:
        self.delta = delta
        self.needed = needed
        super().__init__(
            f"delta={delta!r}: failures and sampler distance alone cost at least {needed:.3g}"
        )


class LedgerError(DpError):
    """A ledger refuses; its state is unchanged."""


class ReleaseLimitError(LedgerError):
    """Charging would exceed the release limit of some clients.

    Attributes:
        client_ids: the clients that have no release left.
        max_releases: the limit.
    """

    def __init__(self, client_ids: Sequence[int], max_releases: int) -> None:
        self.client_ids = tuple(client_ids)
        self.max_releases = max_releases
        super().__init__(
            f"client {_some(self.client_ids)}: all {max_releases} releases are already charged"
        )


class RepeatedChargeError(LedgerError):
    """An attempt at a round was already charged to some clients.

    Attributes:
        round_index, attempt: the attempt.
        client_ids: the clients concerned.
    """

    def __init__(self, round_index: int, attempt: int, client_ids: Sequence[int]) -> None:
        self.round_index = round_index
        self.attempt = attempt
        self.client_ids = tuple(client_ids)
        super().__init__(
            f"round {round_index} attempt {attempt}: already charged to client "
            f"{_some(self.client_ids)}"
        )


class RepeatedReleaseError(LedgerError):
    """An attempt at a round was already released.

    Attributes:
        round_index, attempt: the attempt.
    """

    def __init__(self, round_index: int, attempt: int) -> None:
        self.round_index = round_index
        self.attempt = attempt
        super().__init__(f"round {round_index} attempt {attempt}: already released")


class SurvivorsError(LedgerError):
    """The survivors of a release are too few, or some were never charged.

    Attributes:
        round_index, attempt: the attempt.
        client_ids: the survivors that were never charged; empty when they are too few.
    """

    def __init__(
        self, round_index: int, attempt: int, reason: str, client_ids: Sequence[int] = ()
    ) -> None:
        self.round_index = round_index
        self.attempt = attempt
        self.client_ids = tuple(client_ids)
        named = f": client {_some(self.client_ids)}" if client_ids else ""
        super().__init__(f"round {round_index} attempt {attempt}: {reason}{named}")


class LedgerMismatchError(LedgerError):
    """Text, event or relation that does not belong to this ledger."""


class BudgetError(LedgerError):
    """An event does not fit into what is left of a filter's budget.

    Attributes:
        needed: what would be spent with it.
        budget: what may be spent.
    """

    def __init__(self, needed: float, budget: float) -> None:
        self.needed = needed
        self.budget = budget
        super().__init__(f"divergence {needed:.6g} with this event, the budget is {budget:.6g}")
