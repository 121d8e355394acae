"""What an accountant says: the true value lies between two ends."""

import dataclasses
from dataclasses import dataclass

from dp.errors import ParameterError


@dataclass(frozen=True)
class Interval:
    """An interval that contains the true value: lower <= truth <= upper.

    `note` says where an end does not come from the accountant asked for; it is not compared.
    """

    lower: float
    upper: float
    note: str = dataclasses.field(default="", compare=False)

    def __post_init__(self) -> None:
        if not 0.0 <= self.lower <= self.upper:  # also refuses NaN
            raise ParameterError(
                "Interval", (self.lower, self.upper), "0 <= lower <= upper, without NaN"
            )
