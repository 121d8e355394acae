"""Accuracy against epsilon: noise shares of 12 to 20 bits, central noise, DP-FTRL, no privacy.

    python -m benchmarks.privacy_utility --data-dir DATA [--sets mnist-writers fashion-mnist ...]
        [--mechanisms NAME ...] [--epsilons 2 8] [--against strongest outsider] [--seeds 0 1 2]
        [--again | --show]

A cell is one training run: data set, mechanism and bits, epsilon, adversary, seed. It is written to
results/privacy_utility.json when it is finished and not run again unless `--again` is given;
`--show` prints what is there and trains nothing.

Every row of a data set has the settings of its preset (fl/presets.py): model, learning rates,
rounds, clipping, and clients that leave; SETS of _cells.py says what a smaller epsilon changes.
They were tuned on the test data, for the data set and not for each row. Noise shares are sized for
the worst case against the server: the fewest survivors, c of them colluding. "gaussian" is central
noise of a trusted server whose worst case against the participants is the same epsilon: against the
server itself it promises nothing. These are the strongest adversaries of each; `--against outsider`
sizes all noise for somebody who sees the released models only. "clipped" bounds updates and adds no
noise; "none" does neither. Bits are per coordinate on the wire: the grid is the finest whose sums
fit, except with probability 1e-6 a round. Rows that no plan can be made for say that they are
refused, and why: bits so few that no noise meets the target on any grid; noise that hides clients,
not records.

DP-FTRL, "tree", "banded" and "blt", has noise that is correlated over the rounds, added by a
trusted server. It needs clients that take turns in public cohorts: "gaussian-cyclic" is DP-FedAvg
with independent noise on the very same cohorts, "clipped-cyclic" has no noise, and all of them have
the same worst case against the participants. Nobody leaves in these rows. "gaussian" and the noise
shares above have the preset's cohorts: on MNIST writers all writers in every round.

"noise" is its standard deviation over what one client moves a sum by; where it is correlated, over
what one client moves the sums of all its rounds by: the two kinds do not compare by it.

The last table says what the same runs promise against each adversary, at worst.

Sums are taken by Ideal aggregation: modular sums of the very integers that Secure carries, which
give the same model bit for bit (tests/fl/test_aggregate.py); where clients take turns, in the clear
(Plain). Intervals are Student's t over the seeds at 95 %. Rows of one seed share initialisation and
dropouts, so the difference to central noise on the same cohorts is taken seed by seed.
"""

import dataclasses
import time
from collections.abc import Mapping, Sequence

import dp
import fl
from benchmarks._cells import (
    ADVERSARIES,
    DEFAULT,
    IN_TURN,
    MECHANISMS,
    SETS,
    Cell,
    cells,
    reference_of,
)
from benchmarks._results import Results, Row
from benchmarks._script import options_of
from fl import workers
from fl.figures import upper_text
from fl.privacy import ADVERSARIES as WATCHING
from fl.privacy import Privacy
from fl.sweep import Figure, interval
from fl.types import Mechanism


def run(cell: Cell, data_dir: str | None) -> Row:
    """Trains; returns the row."""
    row: Row = dataclasses.asdict(cell)
    try:
        plan, model, data = cell.job(data_dir).build()
        resolved = fl.resolve(plan, data, model=model)
    except fl.PlanError as error:
        if not cell.may_be_refused:
            raise
        return {**row, "refused": str(error)}
    begin = time.process_time()
    trained = fl.train(plan, model, data)
    row |= {
        "clients": data.num_clients, "rounds": plan.rounds, "parameters": resolved.messages.dim,
        "accuracy": trained.metrics["accuracy"], "loss": trained.metrics["loss"],
        "cpu_seconds": round(time.process_time() - begin, 1),
    }  # fmt: skip
    privacy, mechanism = plan.privacy, resolved.exposure.mechanism
    if not isinstance(privacy, Privacy) or mechanism is None:
        return row
    stated = next(r for r in resolved.privacy.rows if r.adversary == privacy.against)
    if stated.worst_case is None:
        raise SystemExit(f"{cell.key}: no worst case is stated")
    if resolved.encoding is not None and cell.mechanism not in IN_TURN:
        row["bits"] = resolved.encoding.segments["update"][1]
    return {
        **row, **grid(mechanism), "unit": privacy.unit, "against": privacy.against,
        "delta": privacy.delta, "worst_case": stated.worst_case.upper, "colluders": stated.c,
        "min_survivors": stated.min_survivors, "participations": resolved.exposure.scheduled,
        "noise_multiplier": resolved.noise_multiplier, "promises": promises(resolved),
    }  # fmt: skip


def promises(resolved: fl.plan.Resolved) -> Row:
    """The worst case of each row of the statement, or why it has none, by adversary."""
    return {
        row.adversary: {"reason": row.reason}
        if row.worst_case is None
        else {"lower": row.worst_case.lower, "upper": row.worst_case.upper}
        for row in resolved.privacy.rows
    }


def grid(mechanism: Mechanism) -> Row:
    """What becomes of a vector before it is noised, or before coins are tossed."""
    if isinstance(mechanism, dp.PoissonBinomialMechanism):
        return {"coins": mechanism.trials, "largest_bias": mechanism.largest_bias}
    size = mechanism.discretizer
    told: Row = {}
    if isinstance(mechanism, dp.matrix.CorrelatedMechanism):
        pattern = mechanism.strategy.participation
        told = {"separation": pattern.separation, **mechanism.strategy.errors(pattern)._asdict()}
    return {
        **told,
        "steps_per_clip_norm": size.clip_norm / size.granularity,
        "norm_widened": size.l2_sq**0.5 * size.granularity / size.clip_norm,
    }


Group = tuple[str, float | None, str, str]  # data set, epsilon, adversary, mechanism
Groups = dict[Group, dict[int, Row]]


def grouped(rows: Mapping[str, Row]) -> Groups:
    """Trained rows by data set, epsilon and mechanism, then by seed, in the tables' order."""
    found: Groups = {}
    for row in rows.values():
        if "refused" not in row:
            found.setdefault(group_of(row), {})[row["seed"]] = row
    return {group: found[group] for group in sorted(found, key=place_of)}


def place_of(group: Group) -> tuple[int, int, float, int]:
    """Where a line of the table is."""
    name, epsilon, adversary, mechanism = group
    places = list(SETS).index(name), ADVERSARIES.index(adversary), MECHANISMS.index(mechanism)
    return (places[0], places[1], epsilon or 0.0, places[2])


def group_of(row: Row) -> Group:
    """The line of the table that a row belongs to."""
    return (row["dataset"], row["epsilon"], row["adversary"], row["mechanism"])


def percent(values: Sequence[float]) -> Figure | None:
    """Mean and interval of fractions, in per cent; None for one value."""
    return interval([100 * value for value in values]) if len(values) > 1 else None


def beside_reference(groups: Groups, group: Group) -> Figure | None:
    """Accuracy minus that of central noise at the same epsilon, seed by seed, in points."""
    name, epsilon, adversary, mechanism = group
    reference = reference_of(mechanism)
    central = groups.get((name, epsilon, adversary, reference), {})
    rows = groups[group]
    both = sorted(rows.keys() & central.keys())
    if mechanism == reference or len(both) < 2:
        return None
    return percent([rows[seed]["accuracy"] - central[seed]["accuracy"] for seed in both])


def table(rows: Mapping[str, Row], sets: Sequence[str] = tuple(SETS)) -> str:
    """One line for each data set, epsilon and mechanism; then what the runs promise."""
    chosen = {key: row for key, row in rows.items() if row["dataset"] in sets}
    groups = grouped(chosen)
    lines = [
        f"{'data set':26}{'epsilon':>8} {'against':13}{'mechanism':21}{'seeds':>5}"
        f"{'accuracy, % [95 %]':>24}{'minus central, points':>26}{'bits':>6}{'noise':>8}"
    ]
    for group, by_seed in groups.items():
        name, epsilon, _, mechanism = group
        one = next(iter(by_seed.values()))
        difference = beside_reference(groups, group)
        beside = "" if difference is None else text(difference, sign=True)
        bits, noise = one.get("bits", ""), one.get("noise_multiplier")
        lines.append(
            f"{name:26}{asked(epsilon):>8} {one.get('against', ''):13}{mechanism:21}"
            f"{len(by_seed):5}{accuracy(by_seed):>24}{beside:>26}{bits:>6}"
            f"{'' if noise is None else f'{noise:.3f}':>8}"
        )
    refused = {group_of(row): row["refused"] for row in chosen.values() if "refused" in row}
    lines += [
        f"{name:26}{asked(epsilon):>8} {adversary:13}{mechanism:21}refused: {refused[group]}"
        for group in sorted(refused, key=place_of)
        for name, epsilon, adversary, mechanism in [group]
    ]
    return "\n".join([*lines, *promised_lines(groups)])


def promised_lines(groups: Groups) -> list[str]:
    """The table of epsilons against each adversary, beside the accuracy of the same runs."""
    reasons, lines = dict[str, None](), []
    for (name, epsilon, _, mechanism), by_seed in groups.items():
        one = next(iter(by_seed.values()))
        if "promises" not in one:
            continue
        told = [one["promises"][adversary] for adversary in WATCHING]
        reasons |= dict.fromkeys(found["reason"] for found in told if "reason" in found)
        figures = "".join(
            f"{'-' if 'reason' in found else upper_text(found['upper']):>14}" for found in told
        )
        lines.append(
            f"{name:26}{asked(epsilon):>8} {one['against']:14}{mechanism:21}"
            f"{accuracy(by_seed):>24}{figures}"
        )
    if not lines:
        return []
    watching = "".join(f"{adversary:>14}" for adversary in WATCHING)
    return [
        "", "What the same runs promise: epsilon at worst, against each adversary",
        f"{'data set':26}{'epsilon':>8} {'sized against':14}{'mechanism':21}"
        f"{'accuracy, % [95 %]':>24}{watching}",
        *lines, *(f"-: {reason}" for reason in reasons),
    ]  # fmt: skip


def asked(epsilon: float | None) -> str:
    """An epsilon, or nothing."""
    return "" if epsilon is None else f"{epsilon:g}"


def accuracy(by_seed: Mapping[int, Row]) -> str:
    """Of the seeds: mean and interval, or the one."""
    values = [row["accuracy"] for row in by_seed.values()]
    figure = percent(values)
    return f"{100 * values[0]:.2f}" if figure is None else text(figure)


def text(figure: Figure, *, sign: bool = False) -> str:
    """Mean and interval."""
    kind = "+.2f" if sign else ".2f"
    return f"{figure.mean:{kind}} [{figure.low:{kind}}, {figure.high:{kind}}]"


def finish(cell: Cell, results: Results, data_dir: str | None, *, again: bool) -> None:
    """Trains a cell that is not finished."""
    if cell.key in results.rows() and not again:
        return
    row = run(cell, data_dir)
    results.add(cell.key, row)
    said = f"{row['accuracy']:.2%}" if "accuracy" in row else row["refused"]
    print(f"{cell.key}: {said}", flush=True)


def main() -> None:
    """Runs the cells asked for, and prints the table."""
    parser = options_of(__doc__)
    parser.add_argument("--sets", nargs="+", choices=[*SETS], help="default: digits, to show all")
    parser.add_argument("--mechanisms", nargs="+", choices=MECHANISMS, default=DEFAULT)
    parser.add_argument("--epsilons", nargs="+", type=float)
    parser.add_argument("--against", nargs="+", choices=ADVERSARIES, default=["strongest"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--data-dir")
    parser.add_argument("--again", action="store_true", help="run finished cells once more")
    given = parser.parse_args()
    results, sets = Results("privacy_utility"), given.sets or ["digits"]
    if not given.show:
        missing = [name for name in sets if SETS[name].needs_data]
        if missing and given.data_dir is None:
            parser.error(f"{', '.join(missing)}: --data-dir with the files")
        workers.use_one_thread()
        for cell in cells(sets, given.mechanisms, given.epsilons, given.against, given.seeds):
            finish(cell, results, given.data_dir, again=given.again)
    print(table(results.rows(), given.sets or ([*SETS] if given.show else sets)))


if __name__ == "__main__":
    main()
