"""Bounds in decimal digits, rounded outwards, so that what is printed still holds."""

import decimal
import math


def upper_text(value: float) -> str:
    """An upper bound: two decimals, three significant digits below one, rounded up."""
    return "inf" if math.isinf(value) else _rounded(value, decimal.ROUND_CEILING)


def lower_text(value: float) -> str:
    """A lower bound, rounded down likewise."""
    return _rounded(value, decimal.ROUND_FLOOR)


def _rounded(value: float, direction: str) -> str:
    digits = 2 if value >= 1 or value <= 0 else 2 - math.floor(math.log10(value))
    step = decimal.Decimal(1).scaleb(-digits)
    with decimal.localcontext(prec=400):  # holds every double
        # From the digits that summary.json shows: the binary value of 3.66 would print as 3.67.
        return format(decimal.Decimal(repr(value)).quantize(step, rounding=direction), "f")
