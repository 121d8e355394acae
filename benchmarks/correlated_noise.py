"""Correlated noise: errors and search times of the factorizations, against the optimum.

    python -m benchmarks.correlated_noise [--rounds 64 256 1024 4096] [--again | --show]

Max and rms error of the prefix sums per unit of noise multiplier and clip norm, sensitivity
included, for one participation and for eight that are rounds / 8 apart. "dense" is the optimum of
one participation (up to 1,024 rounds, certified to 1e-7), and "bound" an rms error that no
factorization is below. "published" is the least error that the optimisers of the papers' authors
find in the same class - all strategies, all with these bands, Toeplitz ones, BLTs with as many
buffers - from tests/dp/vectors/factorizations.json; constant diagonals cost what lies between two
classes, whoever searches. Seconds are CPU seconds of the search, this process alone, without cache.
What the noise costs in accuracy is in privacy_utility.py. Finished rows are written to
results/correlated_noise.json and not measured again unless `--again` is given; `--show` prints
them.
"""

import json
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from benchmarks._results import Results, Row
from benchmarks._script import integer_from, options_of
from dp import matrix
from fl import workers

PUBLISHED = Path(__file__).parents[1] / "tests" / "dp" / "vectors" / "factorizations.json"


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


def measure(results: Results, rounds: int, participations: int, general: int) -> None:
    """Adds the rows of one number of rounds and participations."""
    told = matrix.min_separation(rounds, rounds // participations, participations)
    place = f"errors/{rounds:04}/participations-{participations}"
    results.add(f"{place}/bound", {"rms_error": matrix.lower_bound(told)})
    if participations == 1:
        square_root = {"max_error": matrix.square_root_max_error(rounds)}
        results.add(f"{place}/square-root", square_root)
        if rounds <= 1024:
            begin = time.process_time()
            found = matrix.prefix_optimum(rounds)
            seconds = time.process_time() - begin
            results.add(f"{place}/dense", {"rms_error": found.upper, "lower": found.lower,
                                           "cpu_seconds": seconds})  # fmt: skip
            full = matrix.tree(told).full_errors(told)
            results.add(f"{place}/tree-honaker-full", full._asdict())
    for name, make in strategies(told, general).items():
        begin = time.process_time()
        strategy = make()
        seconds = time.process_time() - begin
        row = {**strategy.errors(told)._asdict(), "cpu_seconds": seconds}
        results.add(f"{place}/{name}", row)
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


def table(rows: Mapping[str, Row]) -> str:
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


def main() -> None:
    """Measures the rounds that are not finished, and prints the table."""
    parser = options_of(__doc__)
    parser.add_argument("--rounds", type=integer_from(8), nargs="+", default=[64, 256, 1024, 4096])
    parser.add_argument("--general", type=int, default=1024, metavar="ROUNDS",
                        help="up to which all entries of the bands are free too")  # fmt: skip
    parser.add_argument("--again", action="store_true", help="measure finished rounds once more")
    given = parser.parse_args()
    results = Results("correlated_noise")
    if not given.show:
        workers.use_one_thread()
        for rounds in given.rounds:
            for participations in (1, 8):
                done = f"errors/{rounds:04}/participations-{participations}/blt-8"
                if given.again or done not in results.rows():
                    measure(results, rounds, participations, given.general)
    print(table(results.rows()))


if __name__ == "__main__":
    main()
