"""Correlated noise: errors of the factorizations against the optimum, and DP-FTRL on real data.

    python -m benchmarks.correlated_noise errors [--rounds 64 256 1024 4096] [--again | --show]
    python -m benchmarks.correlated_noise accuracy --data-dir DATA [--sets NAME ...]
        [--mechanisms NAME ...] [--epsilons E ...] [--seeds 0 1 2] [--again | --show]

*errors*: max and rms error of the prefix sums per unit of noise multiplier and clip norm,
sensitivity included, for one participation and for eight that are rounds / 8 apart. "dense" is the
optimum of one participation (up to 1,024 rounds, certified to 1e-7), and "bound" an rms error that
no factorization is below. "published" is the least error that the optimisers of the papers' authors
find in the same class - all strategies, all with these bands, Toeplitz ones, BLTs with as many
buffers - from tests/dp/vectors/factorizations.json; constant diagonals cost what lies between two
classes, whoever searches. Seconds are CPU seconds of the search, this process alone, without cache.

*accuracy*: clients take turns in public cohorts, so nothing is amplified in any row, and all rows
of a data set and epsilon have the same worst case against the participants. "gaussian" is
DP-FedAvg with independent noise; the others are DP-FTRL. The settings are those of SETS for every
row: on MNIST writers the rates of the preset, with and without momentum; on Shakespeare rates that
were tried with "none" and "gaussian" alone, on the test data. "none" adds no noise and clips. A
cell is one run: it is written to results/correlated_noise.json when it is finished and not run
again unless `--again` is given. Intervals are Student's t over seeds at 95 %.
"""

import argparse
import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import optax

import dp
import fl
from benchmarks._results import Results, Row
from benchmarks._script import options_of
from dp import matrix
from fl import workers
from fl.datasets.text import NUM_SYMBOLS
from fl.sweep import interval

RESULTS = Results("correlated_noise")
PUBLISHED = Path(__file__).parents[1] / "tests" / "dp" / "vectors" / "factorizations.json"
MECHANISMS = ("none", "gaussian", "tree", "banded", "blt")


def strategies(
    told: matrix.Participation, general: int
) -> Mapping[str, Callable[[], matrix.Strategy]]:
    """What is compared for a participation; the numbers are bands and buffers."""
    n, b = told.rounds, told.separation
    bands = sorted({min(size, b) for size in (4, 16, 64, 256, b)})
    found: dict[str, Callable[[], matrix.Strategy]] = {
        "independent": lambda: matrix.banded(told, 1),
        "tree": lambda: matrix.tree(told, "plain"),
        "tree-honaker": lambda: matrix.tree(told),
    }
    for size in bands:
        found[f"banded-{size}"] = partial(matrix.banded, told, size)
    if n <= general:
        for size in sorted({min(16, b), min(64, b), b}):
            found[f"banded-{size}-general"] = partial(matrix.banded, told, size, toeplitz=False)
    for buffers in (1, 2, 4, 8):
        found[f"blt-{buffers}"] = partial(matrix.blt, told, buffers)
    return found


def measure_errors(rounds: int, participations: int, general: int) -> None:
    """Adds the rows of one number of rounds and participations."""
    told = matrix.min_separation(rounds, rounds // participations, participations)
    place = f"errors/{rounds:04}/participations-{participations}"
    RESULTS.add(f"{place}/bound", {"rms_error": matrix.lower_bound(told)})
    if participations == 1:
        square_root = {"max_error": matrix.square_root_max_error(rounds)}
        RESULTS.add(f"{place}/square-root", square_root)
        if rounds <= 1024:
            begin = time.process_time()
            found = matrix.prefix_optimum(rounds)
            seconds = time.process_time() - begin
            RESULTS.add(f"{place}/dense", {"rms_error": found.upper, "lower": found.lower,
                                           "cpu_seconds": seconds})  # fmt: skip
            full = matrix.tree(told).full_errors(told)
            RESULTS.add(f"{place}/tree-honaker-full", full._asdict())
    for name, make in strategies(told, general).items():
        begin = time.process_time()
        strategy = make()
        seconds = time.process_time() - begin
        row = {**strategy.errors(told)._asdict(), "cpu_seconds": seconds}
        RESULTS.add(f"{place}/{name}", row)
        print(place, name, row, flush=True)


def published(place: str) -> dict[str, float]:
    """Returns the published optimum of each row's class, by the row's name."""
    _, rounds, participations = place.split("/")
    told = {"rounds": int(rounds), "most": int(participations.rpartition("-")[2])}
    names = {"toeplitz": "banded-{}", "banded": "banded-{}-general", "blt": "blt-{}",
             "dense": "dense"}  # fmt: skip
    return {
        names[row["kind"]].format(row["size"]): row["rms_error"]
        for row in json.loads(PUBLISHED.read_text("utf-8"))["rows"]
        if told.items() <= row.items()
    }


def errors_table(rows: Mapping[str, Row]) -> str:
    """Errors by rounds and participations, the largest first."""
    lines = []

    def number(value: float | None, width: int, digits: int) -> str:
        return " " * width if value is None else f"{value:{width}.{digits}f}"

    for place in sorted({key.rpartition("/")[0] for key in rows if key.startswith("errors/")}):
        found = {key.rpartition("/")[2]: row for key, row in rows.items()
                 if key.rpartition("/")[0] == place}  # fmt: skip
        best, optima = found.get("dense", found["bound"])["rms_error"], published(place)
        lines += [
            f"\n{place}",
            f"{'':24}{'max':>10}{'rms':>10}{'rms / best':>12}{'/ published':>13}{'CPU s':>9}",
        ]
        for name, row in sorted(found.items(), key=lambda item: -item[1].get("rms_error", 0.0)):
            rms, optimum = row.get("rms_error"), optima.get(name)
            lines.append(
                f"{name:24}{number(row.get('max_error'), 10, 3)}{number(rms, 10, 3)}"
                f"{number(rms and rms / best, 12, 4)}"
                f"{number(rms / optimum if rms and optimum else None, 13, 4)}"
                f"{number(row.get('cpu_seconds'), 9, 2)}"
            )
    return "\n".join(lines)


@dataclass(frozen=True)
class Set:
    """A data set and its settings, the same in every row.

    Attributes:
        data: its name.
        epsilons: of the private rows.
        delta: below one over the clients, but for the writers', which is that of other tables.
        model: data -> the model.
        cohort: clients a round, in turn.
        rounds: of a run.
        client_lr: of the clients.
        batch_size: of the clients.
        local_epochs: of the clients.
        server_lr: of the server.
        momentum: of the server.
        clip_norm: of a client's update.
    """

    data: str
    epsilons: tuple[float, ...]
    delta: float
    model: Callable[[fl.FederatedDataset], fl.Model]
    cohort: int
    rounds: int
    client_lr: float
    batch_size: int | None
    local_epochs: int
    server_lr: float
    momentum: float
    clip_norm: float


# 539 writers: 9 rounds from one participation to the next, 6 or 7 of them in a run.
WRITERS = Set(
    data="mnist-writers", epsilons=(2.0, 8.0), delta=1e-3,
    model=lambda data: fl.models.named("logistic", data), cohort=54, rounds=60, client_lr=0.3,
    batch_size=None, local_epochs=10, server_lr=1.0, momentum=0.9, clip_norm=0.35,
)  # fmt: skip
SETS = {
    "mnist-writers": WRITERS,
    "mnist-writers-no-momentum": replace(WRITERS, momentum=0.0),
    # 1,394 roles, each in one round of 27. An LSTM of 8,528 parameters: noise grows with them.
    "shakespeare": Set(
        data="shakespeare", epsilons=(1.0, 4.0), delta=1e-4,
        model=lambda data: fl.models.char_lstm(NUM_SYMBOLS, hidden=32, layers=1), cohort=50,
        rounds=27, client_lr=3.0, batch_size=4, local_epochs=1, server_lr=1.0, momentum=0.0,
        clip_norm=4.0,
    ),
}  # fmt: skip


def train(name: str, mechanism: str, epsilon: float, seed: int, data_dir: str) -> Row:
    """One run."""
    begin, chosen = time.process_time(), SETS[name]
    data = fl.datasets.load(chosen.data, data_dir=data_dir, clients=None, partition=None, seed=seed)
    model = chosen.model(data)
    common: dict[str, Any] = {
        "client_optimizer": optax.sgd(chosen.client_lr), "batch_size": chosen.batch_size,
        "local_epochs": chosen.local_epochs,
    }  # fmt: skip
    server = optax.sgd(chosen.server_lr, momentum=chosen.momentum or None)
    algorithm = (
        fl.fedavg(model.loss, server_optimizer=server, **common)
        if mechanism in ("none", "gaussian")
        else fl.dp_ftrl(
            model.loss, learning_rate=chosen.server_lr, momentum=chosen.momentum, **common
        )
    )
    privacy: fl.Privacy | fl.NotPrivate = fl.NotPrivate(max_norm=chosen.clip_norm)
    if mechanism != "none":
        privacy = fl.Privacy(
            unit="client", against="participants", epsilon=epsilon, delta=chosen.delta,
            clip_norm=chosen.clip_norm, mechanism=mechanism,
        )  # fmt: skip
    plan = fl.Plan(
        rounds=chosen.rounds, cohort=fl.cohort.cyclic(chosen.cohort), algorithm=algorithm,
        privacy=privacy, aggregation=fl.Plain(), seed=seed, eval_every=chosen.rounds,
    )  # fmt: skip
    resolved, run = fl.resolve(plan, data), fl.train(plan, model, data)
    row: Row = {
        "data": name, "mechanism": mechanism, "seed": seed, "accuracy": run.metrics["accuracy"],
        "clients": data.num_clients, "parameters": resolved.messages.dim,
        "cpu_seconds": round(time.process_time() - begin, 1),
    }  # fmt: skip
    if mechanism != "none":
        worst = next(r for r in resolved.privacy.rows if r.adversary == "participants").worst_case
        row |= {
            "epsilon": epsilon,
            "worst_case": worst and worst.upper,
            **_told(resolved),
            "delta": chosen.delta,
        }
    return row


def _told(resolved: fl.plan.Resolved) -> Row:
    """What a client's participations are, and how much they cost."""
    mechanism = resolved.exposure.mechanism
    row: Row = {"participations": resolved.exposure.scheduled}
    if isinstance(mechanism, matrix.CorrelatedMechanism):
        told = mechanism.strategy.participation
        row |= {"separation": told.separation, **mechanism.strategy.errors(told)._asdict()}
    return {**row, "noise_multiplier": resolved.noise_multiplier,
            "relation": dp.NeighboringRelation.ZERO_OUT.value}  # fmt: skip


def accuracy_table(rows: Mapping[str, Row]) -> str:
    """Means over the seeds and half their intervals."""
    groups: dict[str, list[float]] = {}
    for key, row in sorted(rows.items()):
        if key.startswith("accuracy/"):
            groups.setdefault(key.rpartition("/")[0], []).append(row["accuracy"])
    lines = [f"{'accuracy, mean of seeds':44}{'mean':>8}{'+-':>8}{'seeds':>7}"]
    for key, values in groups.items():
        name, half = key.removeprefix("accuracy/"), ""
        if len(values) > 1:
            found = interval(values)
            half = f"{(found.high - found.low) / 2:.4f}"
        lines.append(f"{name:44}{math.fsum(values) / len(values):8.4f}{half:>8}{len(values):7}")
    return "\n".join(lines)


def table(rows: Mapping[str, Row]) -> str:
    """All that is there."""
    return f"{accuracy_table(rows)}\n{errors_table(rows)}"


def measure_accuracy(given: argparse.Namespace) -> None:
    """Trains the cells that are not finished."""
    for name in given.sets:
        for seed in given.seeds:
            for mechanism in given.mechanisms:
                for epsilon in (
                    (0.0,) if mechanism == "none" else given.epsilons or SETS[name].epsilons
                ):
                    asked = "open" if mechanism == "none" else f"epsilon-{epsilon:g}"
                    key = f"accuracy/{name}/{asked}/{mechanism}/seed-{seed}"
                    if key not in RESULTS.rows() or given.again:
                        row = train(name, mechanism, epsilon, seed, given.data_dir)
                        RESULTS.add(key, row)
                        print(key, row["accuracy"], row["cpu_seconds"], flush=True)


def main() -> None:
    parser = options_of(__doc__)
    parser.add_argument("what", choices=("errors", "accuracy"))
    parser.add_argument("--rounds", type=int, nargs="+", default=[64, 256, 1024, 4096])
    parser.add_argument("--general", type=int, default=1024, metavar="ROUNDS",
                        help="up to which all entries of the bands are free too")  # fmt: skip
    parser.add_argument("--data-dir")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--mechanisms", nargs="+", choices=MECHANISMS, default=MECHANISMS)
    parser.add_argument("--epsilons", type=float, nargs="+", default=None)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--again", action="store_true")
    given = parser.parse_args()
    workers.use_one_thread()
    if given.what == "accuracy":
        if not given.show:
            measure_accuracy(given)
        print(accuracy_table(RESULTS.rows()))
        return
    for rounds in () if given.show else given.rounds:
        for participations in (1, 8):
            done = f"errors/{rounds:04}/participations-{participations}/blt-8" in RESULTS.rows()
            if given.again or not done:
                measure_errors(rounds, participations, given.general)
    print(errors_table(RESULTS.rows()))


if __name__ == "__main__":
    main()
