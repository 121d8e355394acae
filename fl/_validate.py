"""Checks that return faults instead of raising, so that all of a plan's are listed at once."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from fl.errors import fault


def number_fault(field: str, got: object, takes: str, ok: Callable[[Any], bool]) -> tuple[str, ...]:
    """Returns a fault where `got` is not a finite number for which `ok` holds."""
    if isinstance(got, int) and not isinstance(got, bool) and abs(got) < 2**63 and ok(got):
        return ()
    if isinstance(got, float) and math.isfinite(got) and ok(got):
        return ()
    infinite = isinstance(got, float) and math.isinf(got)
    return (fault(field, got, f"{takes}, finite" if infinite else takes),)


def integer_fault(field: str, got: object, least: int, most: int = 2**63 - 1) -> tuple[str, ...]:
    """Returns a fault where `got` is not an integer from `least` to `most`."""
    takes = f"an integer, {least} to {most}"
    if most == 2**63 - 1 and not (isinstance(got, int) and got > most):
        takes = f"an integer, at least {least}"
    return number_fault(field, got, takes, lambda v: isinstance(v, int) and least <= v <= most)


def flag_fault(field: str, got: object) -> tuple[str, ...]:
    """Returns a fault where `got` is not True or False."""
    return () if isinstance(got, bool) else (fault(field, got, "True | False"),)


def choice_fault(field: str, got: object, choices: Sequence[str]) -> tuple[str, ...]:
    """Returns a fault where `got` is not one of `choices`."""
    return () if got in choices else (fault(field, got, " | ".join(choices)),)


def kind_fault(field: str, got: object, *kinds: type) -> tuple[str, ...]:
    """Returns a fault where `got` is none of the classes."""
    names = " | ".join(kind.__name__ for kind in kinds)
    return () if isinstance(got, kinds) else (fault(field, got, names),)
