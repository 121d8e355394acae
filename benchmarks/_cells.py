"""The training runs of benchmarks/privacy_utility.py: data sets, mechanisms, a job for each run."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import fl
from fl.privacy import CORRELATED

WRAP = 1e-6
BITS = (12, 14, 16, 18, 20)
COINS = (4, 16, 64)  # of a client in each coordinate; bits follow from them


@dataclass(frozen=True)
class Set:
    """A data set and what is asked of it.

    Attributes:
        epsilons: of the private rows.
        preset: its name, where it is not that of the data set.
        at: changes of the preset's fields at an epsilon, for the private rows of IN_PARALLEL.
        turns: changes of the preset's fields for the rows IN_TURN; None where there are none.
        only_turns: whether there are no others.
        needs_data: files, from --data-dir.
    """

    epsilons: tuple[float, ...]
    preset: str | None = None
    at: Mapping[float, Mapping[str, Any]] = field(default_factory=dict)
    turns: Mapping[str, Any] | None = None
    only_turns: bool = False
    needs_data: bool = True


# 539 writers: 9 rounds from one participation to the next, 6 or 7 of them in a run.
_WRITERS_IN_TURN = {"cohort": "cyclic:54"}
SETS = {
    "digits": Set(
        (1.0, 2.0, 4.0, 8.0), preset="digits-demo", turns={"cohort": "cyclic:20"}, needs_data=False
    ),
    "mnist-writers": Set((2.0, 8.0), at={2.0: {"rounds": 30}}, turns=_WRITERS_IN_TURN),
    "mnist-writers-no-momentum": Set(
        (2.0, 8.0), preset="mnist-writers", only_turns=True,
        turns={**_WRITERS_IN_TURN, "server_momentum": 0.0},
    ),
    "fashion-mnist": Set((2.0, 8.0), turns={}),  # its preset's cohorts are in turn: 100 of 1,000
    "heart-disease": Set((0.5, 2.0, 8.0), turns={}),
    "wisdm": Set((8.0,)),
    "adult": Set((1.0, 4.0)),
    "credit-default": Set((1.0, 4.0)),
    # 1,394 roles, each in one round of 27. Noise grows with the parameters: an LSTM of 8,528, and
    # the rate at which its rows were measured.
    "shakespeare": Set(
        (1.0, 4.0), only_turns=True,
        turns={
            "model": "char-lstm-small", "cohort": "cyclic:50", "rounds": 27, "no_dp": False,
            "unit": "client", "delta": 1e-4, "clip_norm": 4.0, "client_lr": 3.0,
            "server_momentum": 0.0,
        },
    ),
}  # fmt: skip


def shares(name: str, bits: int) -> dict[str, Any]:
    """Noise shares of the clients, sized against the server."""
    return {
        "mechanism": name, "against": "server", "modulus_bits": bits, "wrap_probability": WRAP,
    }  # fmt: skip


_CENTRAL = {"mechanism": "gaussian", "against": "participants"}
# What a mechanism changes in a job; a new mechanism is a new line.
PRIVATE: dict[str, dict[str, Any]] = {
    "gaussian": _CENTRAL,
    **{f"skellam-{bits}": shares("skellam", bits) for bits in BITS},
    **{f"discrete_gaussian-{bits}": shares("discrete_gaussian", bits) for bits in BITS},
    **{
        f"poisson_binomial-{trials}": {
            "mechanism": "poisson_binomial", "against": "server", "trials": trials,
        }
        for trials in COINS
    },
    "gaussian-cyclic": _CENTRAL,
    **{name: {**_CENTRAL, "mechanism": name, "algorithm": "dp_ftrl"} for name in CORRELATED},
}  # fmt: skip
OPEN = ("none", "clipped", "clipped-cyclic")
MECHANISMS = (*OPEN, *PRIVATE)
# Clients take turns, as correlated noise needs it; these are compared with each other.
IN_TURN = ("clipped-cyclic", "gaussian-cyclic", *CORRELATED)
# The strongest adversary that a mechanism promises anything against, or a weaker one for all.
ADVERSARIES = ("strongest", "outsider")
DEFAULT = (
    *("none", "clipped", "gaussian"), *(f"skellam-{bits}" for bits in (16, 18, 20)),
    *(f"discrete_gaussian-{bits}" for bits in (16, 18, 20)), "poisson_binomial-16", *IN_TURN,
)  # fmt: skip


def reference_of(mechanism: str) -> str:
    """The central noise, independent over the rounds, that a mechanism is compared with."""
    return "gaussian-cyclic" if mechanism in IN_TURN else "gaussian"


@dataclass(frozen=True)
class Cell:
    """One training run; epsilon is None in a row without privacy."""

    dataset: str
    mechanism: str
    epsilon: float | None
    seed: int
    adversary: str = ADVERSARIES[0]

    @property
    def key(self) -> str:
        """Its name in the results."""
        asked = "open" if self.epsilon is None else f"epsilon-{self.epsilon:g}"
        if self.adversary != ADVERSARIES[0]:
            asked += f"-{self.adversary}"
        return f"{self.dataset}/{asked}/{self.mechanism}/seed-{self.seed}"

    @property
    def preset(self) -> fl.Job:
        """The data set's."""
        return fl.PRESETS[SETS[self.dataset].preset or self.dataset]

    @property
    def exists(self) -> bool:
        """Whether the data set has such rows.

        Of hospitals that hide records none takes turns; rows that noise of their kind would need
        are there all the same, to say that they are refused.
        """
        chosen = SETS[self.dataset]
        if self.mechanism not in IN_TURN:
            return not chosen.only_turns
        hides_records = self.preset.unit == "record" and self.mechanism not in CORRELATED
        return chosen.turns is not None and not hides_records

    @property
    def may_be_refused(self) -> bool:
        """Whether the plan may have no noise, or not for records: the row then says so."""
        asked = PRIVATE.get(self.mechanism, {})
        hides_records = self.preset.unit == "record"
        return "modulus_bits" in asked or (hides_records and asked.get("mechanism") != "gaussian")

    def job(self, data_dir: str | None) -> fl.Job:
        """The preset, changed to what the cell asks."""
        chosen, in_turn = SETS[self.dataset], self.mechanism in IN_TURN
        job = replace(
            self.preset, aggregation="ideal", server=None, seed=self.seed, data_dir=data_dir,
            report_deltas=(),
        )  # fmt: skip
        if in_turn:
            job = replace(job, aggregation="plain", **(chosen.turns or {}))
        if self.mechanism in PRIVATE:
            changes = {} if in_turn else chosen.at.get(self.epsilon or 0.0, {})
            job = replace(job, epsilon=self.epsilon, **PRIVATE[self.mechanism], **changes)
            if self.adversary != ADVERSARIES[0]:
                job = replace(job, against=self.adversary)
        else:
            # A bound that no update reaches leaves them as they are.
            bound = 1e4 if self.mechanism == "none" else job.clip_norm
            job = replace(job, no_dp=True, max_norm=bound)
        return replace(job, eval_every=job.rounds)


def cells(
    sets: Sequence[str], mechanisms: Sequence[str], epsilons: Sequence[float] | None,
    against: Sequence[str], seeds: Sequence[int],
) -> Iterator[Cell]:  # fmt: skip
    """Those that exist, in the order of running: every row of a seed before the next seed.

    Args:
        sets: names in SETS.
        mechanisms: names in MECHANISMS.
        epsilons: of the private rows, in place of each set's own.
        against: names in ADVERSARIES.
        seeds: of the runs.
    """
    for name in sets:
        for seed in seeds:
            for mechanism in mechanisms:
                asked: list[tuple[float | None, str]] = [(None, ADVERSARIES[0])]
                if mechanism in PRIVATE:
                    wanted = epsilons or SETS[name].epsilons
                    asked = [(epsilon, adversary) for adversary in against for epsilon in wanted]
                for epsilon, adversary in asked:
                    cell = Cell(name, mechanism, epsilon, seed, adversary)
                    if cell.exists:
                        yield cell
