"""Accuracy against epsilon: distributed noise at 12 to 20 bits, central noise, no privacy.

    python -m benchmarks.privacy_utility --data-dir DATA [--sets mnist-writers fashion-mnist ...]
        [--mechanisms NAME ...] [--epsilons 2 8] [--against strongest outsider] [--seeds 0 1 2]
        [--again | --show]

A cell is one training run: data set, mechanism and bits, epsilon, adversary, seed. It is written to
results/privacy_utility.json when it is finished and not run again unless `--again` is given;
`--show` prints what is there and trains nothing.

Every row of a data set has the settings of its preset (fl/presets.py): model, learning rates,
rounds, clipping, and clients that leave; SETS says what a smaller epsilon changes. They were tuned
on the test data, for the data set and not for each row. Noise shares are sized for the worst case
against the server: the fewest survivors, c of them colluding. "gaussian" is central noise of a
trusted server whose worst case against the participants is the same epsilon: against the server
itself it promises nothing. These are the strongest adversaries of each; `--against outsider` sizes
all noise for somebody who sees the released models only. "clipped" bounds updates and adds no
noise; "none" does neither. Bits are per coordinate on the wire: the grid is the finest whose sums
fit, except with probability 1e-6 a round. Rows whose bits are so few that no noise meets the target
on any grid say that they are refused.

Sums are taken by Ideal aggregation: modular sums of the very integers that Secure carries, which
gives the same model bit for bit (tests/fl/test_aggregate.py). Intervals are Student's t over the
seeds at 95 %. Rows of one seed share initialisation and dropouts, so the difference to central
noise is taken seed by seed.
"""

import argparse
import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import dp
import fl
from benchmarks._results import Results, Row
from benchmarks._script import options_of
from fl import workers
from fl.privacy import Privacy
from fl.sweep import Figure, interval
from fl.types import Mechanism

WRAP = 1e-6
BITS = (12, 14, 16, 18, 20)
COINS = (4, 16, 64)  # of a client in each coordinate; bits follow from them
REFERENCE = "gaussian"


@dataclass(frozen=True)
class Set:
    """A data set and what is asked of it.

    Attributes:
        epsilons: of the private rows.
        at: changes of the preset's fields at an epsilon, for its private rows.
        needs_data: files, from --data-dir.
    """

    epsilons: tuple[float, ...]
    at: Mapping[float, Mapping[str, Any]] = field(default_factory=dict)
    needs_data: bool = True


SETS = {
    "digits": Set((1.0, 2.0, 4.0, 8.0), needs_data=False),
    "mnist-writers": Set((2.0, 8.0), at={2.0: {"rounds": 30}}),
    "fashion-mnist": Set((2.0, 8.0)),
    "heart-disease": Set((0.5, 2.0, 8.0)),
    "wisdm": Set((8.0,)),
    "adult": Set((1.0, 4.0)),
    "credit-default": Set((1.0, 4.0)),
}
PRESET_OF = {"digits": "digits-demo"}


def shares(name: str, bits: int) -> dict[str, Any]:
    """Noise shares of the clients, sized against the server."""
    return {
        "mechanism": name, "against": "server", "modulus_bits": bits, "wrap_probability": WRAP,
    }  # fmt: skip


# What a mechanism changes in a job; a new mechanism is a new line.
PRIVATE: dict[str, dict[str, Any]] = {
    REFERENCE: {"mechanism": "gaussian", "against": "participants"},
    **{f"skellam-{bits}": shares("skellam", bits) for bits in BITS},
    **{f"discrete_gaussian-{bits}": shares("discrete_gaussian", bits) for bits in BITS},
    **{
        f"poisson_binomial-{trials}": {
            "mechanism": "poisson_binomial", "against": "server", "trials": trials,
        }
        for trials in COINS
    },
}  # fmt: skip
OPEN = ("none", "clipped")
MECHANISMS = (*OPEN, *PRIVATE)
# The strongest adversary that a mechanism promises anything against, or a weaker one for all.
ADVERSARIES = ("strongest", "outsider")
DEFAULT = (
    *(*OPEN, REFERENCE), *(f"skellam-{bits}" for bits in (16, 18, 20)),
    *(f"discrete_gaussian-{bits}" for bits in (16, 18, 20)), "poisson_binomial-16",
)  # fmt: skip


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
        return fl.PRESETS[PRESET_OF.get(self.dataset, self.dataset)]

    @property
    def exists(self) -> bool:
        """Whether the mechanism protects what the preset does: coins are tossed per client."""
        return self.preset.unit == "client" or not self.mechanism.startswith("poisson_binomial")

    def job(self, data_dir: str | None) -> fl.Job:
        """The preset, changed to what the cell asks."""
        preset = self.preset
        job = replace(
            preset, aggregation="ideal", server=None, seed=self.seed, eval_every=preset.rounds,
            data_dir=data_dir, report_deltas=(),
        )  # fmt: skip
        if self.mechanism in PRIVATE:
            asked = {"epsilon": self.epsilon, **PRIVATE[self.mechanism]}
            changes = SETS[self.dataset].at.get(self.epsilon or 0.0, {})
            job = replace(job, **asked, **changes)
            if self.adversary != ADVERSARIES[0]:
                job = replace(job, against=self.adversary)
            return replace(job, eval_every=job.rounds)
        # A bound that no update reaches leaves them as they are.
        bound = job.clip_norm if self.mechanism == "clipped" else 1e4
        return replace(job, no_dp=True, max_norm=bound)


def cells_of(given: argparse.Namespace) -> list[Cell]:
    """In the order of running: every row of a seed before the next seed."""
    found = []
    for name in given.sets:
        for seed in given.seeds:
            for mechanism in given.mechanisms:
                wanted = given.epsilons or SETS[name].epsilons
                if mechanism in PRIVATE:
                    found += [
                        Cell(name, mechanism, epsilon, seed, adversary)
                        for adversary in given.against
                        for epsilon in wanted
                    ]
                else:
                    found.append(Cell(name, mechanism, None, seed))
    return [cell for cell in found if cell.exists]


def run(cell: Cell, data_dir: str | None) -> Row:
    """Trains; returns the row."""
    plan, model, data = cell.job(data_dir).build()
    row: Row = {**dataclasses.asdict(cell), "clients": data.num_clients, "rounds": plan.rounds}
    privacy = plan.privacy
    try:
        resolved = fl.resolve(plan, data, model=model)
    except fl.PlanError as error:
        if not isinstance(privacy, Privacy) or privacy.modulus_bits is None:
            raise
        return {**row, "bits": privacy.modulus_bits, "refused": str(error)}
    begin = time.process_time()
    trained = fl.train(plan, model, data)
    row |= {
        "accuracy": trained.metrics["accuracy"], "loss": trained.metrics["loss"],
        "parameters": resolved.messages.dim, "cpu_seconds": round(time.process_time() - begin, 1),
    }  # fmt: skip
    if not isinstance(privacy, Privacy):
        return row
    stated = next(r for r in resolved.privacy.rows if r.adversary == privacy.against)
    mechanism = resolved.exposure.mechanism
    if mechanism is None or stated.worst_case is None or resolved.encoding is None:
        raise SystemExit(f"{cell.key}: no worst case is stated")
    return {
        **row, **grid(mechanism),
        "unit": privacy.unit, "against": privacy.against, "delta": privacy.delta,
        "worst_case": stated.worst_case.upper, "colluders": stated.c,
        "min_survivors": stated.min_survivors, "noise_multiplier": resolved.noise_multiplier,
        "bits": resolved.encoding.segments["update"][1],
    }  # fmt: skip


def grid(mechanism: Mechanism) -> Row:
    """What becomes of a vector before it is noised, or before coins are tossed."""
    if isinstance(mechanism, dp.PoissonBinomialMechanism):
        return {"coins": mechanism.trials, "largest_bias": mechanism.largest_bias}
    size = mechanism.discretizer
    return {
        "steps_per_clip_norm": size.clip_norm / size.granularity,
        "norm_widened": size.l2_sq**0.5 * size.granularity / size.clip_norm,
    }


Group = tuple[str, float | None, str, str]  # data set, epsilon, adversary, mechanism
Groups = dict[Group, dict[int, Row]]


def grouped(rows: Mapping[str, Row]) -> Groups:
    """Trained rows by data set, epsilon and mechanism, then by seed, in the tables' order."""
    found: Groups = {}
    for row in rows.values():
        if "refused" in row:
            continue
        found.setdefault(group_of(row), {})[row["seed"]] = row

    def order(group: Group) -> tuple[int, int, float, int]:
        name, epsilon, adversary, mechanism = group
        places = list(SETS).index(name), ADVERSARIES.index(adversary), MECHANISMS.index(mechanism)
        return (places[0], places[1], epsilon or 0.0, places[2])

    return {group: found[group] for group in sorted(found, key=order)}


def group_of(row: Row) -> Group:
    """The line of the table that a row belongs to."""
    return (row["dataset"], row["epsilon"], row["adversary"], row["mechanism"])


def percent(values: Sequence[float]) -> Figure | None:
    """Mean and interval of fractions, in per cent; None for one value."""
    return interval([100 * value for value in values]) if len(values) > 1 else None


def beside_reference(groups: Groups, group: Group) -> Figure | None:
    """Accuracy minus that of central noise at the same epsilon, seed by seed, in points."""
    name, epsilon, adversary, mechanism = group
    central = groups.get((name, epsilon, adversary, REFERENCE), {})
    rows = groups[group]
    both = sorted(rows.keys() & central.keys())
    if mechanism == REFERENCE or len(both) < 2:
        return None
    return percent([rows[seed]["accuracy"] - central[seed]["accuracy"] for seed in both])


def table(rows: Mapping[str, Row], sets: Sequence[str] = tuple(SETS)) -> str:
    """One line for each data set, epsilon and mechanism."""
    groups = grouped(rows)
    lines = [
        f"{'data set':14}{'epsilon':>8} {'against':13}{'mechanism':21}{'seeds':>5}"
        f"{'accuracy, % [95 %]':>24}{'minus central, points':>26}{'bits':>6}{'noise':>8}"
    ]
    for group, by_seed in groups.items():
        name, epsilon, _, mechanism = group
        if name not in sets:
            continue
        one = next(iter(by_seed.values()))
        figure = percent([row["accuracy"] for row in by_seed.values()])
        mean = f"{100 * one['accuracy']:.2f}" if figure is None else text(figure)
        difference = beside_reference(groups, group)
        beside = "" if difference is None else text(difference, sign=True)
        bits, noise = one.get("bits", ""), one.get("noise_multiplier")
        lines.append(
            f"{name:14}{'' if epsilon is None else f'{epsilon:g}':>8}"
            f" {one.get('against', ''):13}{mechanism:21}"
            f"{len(by_seed):5}{mean:>24}{beside:>26}{bits:>6}"
            f"{'' if noise is None else f'{noise:.3f}':>8}"
        )
    refused = {group_of(row) for row in rows.values() if "refused" in row}
    return "\n".join([
        *lines,
        *(f"{name:14}{epsilon:>8g} {adversary:13}{mechanism:21}refused: no noise meets it"
          for name, epsilon, adversary, mechanism in sorted(refused) if name in sets),
    ])  # fmt: skip


def text(figure: Figure, *, sign: bool = False) -> str:
    """Mean and interval."""
    kind = "+.2f" if sign else ".2f"
    return f"{figure.mean:{kind}} [{figure.low:{kind}}, {figure.high:{kind}}]"


def main() -> None:
    parser = options_of(__doc__)
    parser.add_argument("--sets", nargs="+", choices=[*SETS], default=["digits"])
    parser.add_argument("--mechanisms", nargs="+", choices=MECHANISMS, default=DEFAULT)
    parser.add_argument("--epsilons", nargs="+", type=float)
    parser.add_argument("--against", nargs="+", choices=ADVERSARIES, default=["strongest"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--data-dir")
    parser.add_argument("--again", action="store_true", help="run finished cells once more")
    given = parser.parse_args()
    results = Results("privacy_utility")
    if not given.show:
        missing = [name for name in given.sets if SETS[name].needs_data]
        if missing and given.data_dir is None:
            parser.error(f"{', '.join(missing)}: --data-dir with the files")
        workers.use_one_thread()
        for cell in cells_of(given):
            if cell.key in results.rows() and not given.again:
                continue
            row = run(cell, given.data_dir)
            results.add(cell.key, row)
            said = f"{row['accuracy']:.2%}" if "accuracy" in row else row["refused"]
            print(f"{cell.key}: {said}", flush=True)
    print(table(results.rows(), given.sets))


if __name__ == "__main__":
    main()
