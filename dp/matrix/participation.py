"""Which rounds one client may take part in; docs/privacy.md, "Correlated noise"."""

from __future__ import annotations

from dataclasses import dataclass

from dp import _validate
from dp.errors import ParameterError

MAX_ROUNDS = 4096


@dataclass(frozen=True)
class Participation:
    """The patterns of rounds that one client may be part of; made by the functions below.

    Attributes:
        rounds: n; rounds are 0 .. n - 1.
        separation: b, rounds from one participation to the next at least.
        most: k, participations of one client at most; ceil(n / b) or fewer.
        fixed: all participations of one client are a multiple of `separation` rounds apart.
    """

    rounds: int
    separation: int
    most: int
    fixed: bool = False

    def __post_init__(self) -> None:
        rounds = _validate.integer("rounds", self.rounds, 1, MAX_ROUNDS)
        separation = _validate.integer("separation", self.separation, 1, rounds)
        possible = -(-rounds // separation)
        most = _validate.integer("most", self.most, 1, possible)
        if not isinstance(self.fixed, bool):
            raise ParameterError("fixed", self.fixed, "True or False")
        for name, value in {"rounds": rounds, "separation": separation, "most": most}.items():
            object.__setattr__(self, name, value)

    def at_most(self, count: int) -> Participation:
        """The same with at most `count` participations."""
        count = _validate.integer("count", count, 1)
        return Participation(self.rounds, self.separation, min(self.most, count), self.fixed)


def single(rounds: int) -> Participation:
    """Every client takes part in one round at most."""
    return Participation(rounds, rounds, 1)


def cyclic(rounds: int, separation: int) -> Participation:
    """Every client takes part in rounds o, o + b, o + 2b, ... or some of them, o < b its own."""
    return Participation(rounds, separation, -(-rounds // separation), fixed=True)


def min_separation(rounds: int, separation: int, most: int | None = None) -> Participation:
    """Participations of one client are at least `separation` rounds apart, at most `most` of them.

    `most` is cut to ceil(rounds / separation), which is also its default.
    """
    rounds = _validate.integer("rounds", rounds, 1, MAX_ROUNDS)
    separation = _validate.integer("separation", separation, 1, rounds)
    possible = -(-rounds // separation)
    most = possible if most is None else min(_validate.integer("most", most, 1), possible)
    return Participation(rounds, separation, most)
