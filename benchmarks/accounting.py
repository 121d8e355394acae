"""CPU seconds and widths of certified privacy accounting, one core, beside dp-accounting.

    python -m benchmarks.accounting [--rows NAME ...] [--peer] [--show]

The rows of many settings draw them from the documented range (q from 1e-6 to 1, sigma from 0.2 to
100, T to 1e6, delta from 1e-12 to 1e-3, all by their logarithms), alone or two to five together,
and count the intervals that are wider than 0.1 % and 1e-5.

CPU time of this process, medians of three runs after a first one (a peer that takes longer than
ten seconds runs once). `--peer` also runs dp-accounting in the same process and keeps its epsilon,
its time and the ratio of the two; the 1,000 noise levels take it minutes. It is no dependency:
peers/environments.py makes the environment "accounting"; run this script there, with the repository
on PYTHONPATH (numpy is all that `dp` needs). Finished rows are written to results/accounting.json,
over older ones; `--show` prints those.
"""

import functools
import importlib
import importlib.util
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

import dp
from benchmarks._results import Results, Row, beside
from benchmarks._script import options_of
from benchmarks._timing import cpu_seconds

ADD_REMOVE = dp.NeighboringRelation.ADD_REMOVE
REPEATS = 3
_PATIENCE = 10.0  # seconds; a peer that needs more runs once
DELTA = 1e-5

Setting = tuple[float, float, int]  # sampling probability, noise multiplier, steps

SAME: tuple[tuple[Setting, float], ...] = (
    ((0.01, 1.0, 1_000), 1e-5),
    ((0.01, 1.0, 10_000), 1e-5),
    ((0.01, 1.0, 100_000), 1e-5),
    ((0.01, 1.0, 1_000_000), 1e-5),
    ((0.001, 0.7, 100_000), 1e-6),
    ((0.001, 0.7, 1_000_000), 1e-6),
    ((0.1, 2.0, 1_000), 1e-8),
)
LEVELS: tuple[Setting, ...] = tuple((0.01, 1.0 + i / 1000, 1) for i in range(1000))


def event_of(settings: Sequence[Setting]) -> dp.Event:
    """Poisson-sampled Gaussians, composed."""
    parts = tuple(
        dp.SelfComposedEvent(dp.PoissonSampledEvent(q, dp.GaussianEvent(sigma)), count)
        for q, sigma, count in settings
    )
    return dp.ComposedEvent(parts)


class Peer:
    """dp-accounting's privacy loss distributions, as its users call them."""

    def __init__(self) -> None:
        if importlib.util.find_spec("dp_accounting") is None:
            raise SystemExit("--peer needs dp-accounting; see this script's docstring")
        self.lib: Any = importlib.import_module("dp_accounting")
        self.pld: Any = importlib.import_module("dp_accounting.pld")

    def event(self, settings: Sequence[Setting]) -> Any:
        """The same releases in its words."""
        return self.lib.ComposedDpEvent(
            [
                self.lib.SelfComposedDpEvent(
                    self.lib.PoissonSampledDpEvent(q, self.lib.GaussianDpEvent(sigma)), count
                )
                for q, sigma, count in settings
            ]
        )

    def epsilon(self, settings: Sequence[Setting], delta: float) -> float:
        """Its upper end; the step of its grid is its own."""
        accountant = self.pld.PLDAccountant()
        accountant.compose(self.event(settings))
        return float(accountant.get_epsilon(delta))

    def noise(self, count: int) -> float:
        """Noise multiplier at which `count` steps cost epsilon 2."""
        return float(
            self.lib.calibrate_dp_mechanism(
                self.pld.PLDAccountant,
                lambda sigma: self.event([(0.01, sigma, count)]),
                target_epsilon=2.0,
                target_delta=DELTA,
                bracket_interval=self.lib.ExplicitBracketInterval(0.3, 30.0),
                tol=1e-4,
            )
        )


def peer_row(peer: Callable[[], float] | None) -> Row:
    """The peer's figure and its CPU seconds."""
    if peer is None:
        return {}
    start = time.process_time()
    found = peer()
    seconds = time.process_time() - start
    if seconds < _PATIENCE:
        seconds = cpu_seconds(peer, repeats=REPEATS)
    return {"peer_value": found, "peer_seconds": seconds}


def compare(settings: Sequence[Setting], delta: float, peer: Peer | None) -> Row:
    """Epsilon of a composition, with its certified lower end."""
    event = event_of(settings)
    found = dp.epsilon(event, delta, neighboring=ADD_REMOVE)
    seconds = cpu_seconds(lambda: dp.epsilon(event, delta, neighboring=ADD_REMOVE), repeats=REPEATS)
    other = None if peer is None else lambda: peer.epsilon(settings, delta)
    return {"lower": found.lower, "upper": found.upper, "seconds": seconds, **peer_row(other)}


def calibration(count: int, peer: Peer | None) -> Row:
    """The noise multiplier at which `count` steps cost epsilon 2."""

    def search() -> float:
        return dp.calibrate(
            lambda z: event_of([(0.01, z, count)]), epsilon=2.0, delta=DELTA, neighboring=ADD_REMOVE
        )

    other = None if peer is None else lambda: peer.noise(count)
    return {
        "noise_multiplier": search(), "seconds": cpu_seconds(search, repeats=REPEATS),
        **peer_row(other),
    }  # fmt: skip


def survey(count: int, most: int, peer: Peer | None) -> Row:
    """Intervals of `count` random compositions of one to `most` settings that stay wide."""
    del peer  # it has no lower end
    rng, wide, begin = np.random.default_rng(0), 0, time.process_time()
    for _ in range(count):
        settings = [
            (10 ** rng.uniform(-6, 0), 10 ** rng.uniform(math.log10(0.2), 2),
             int(10 ** rng.uniform(0, 6)))
            for _ in range(int(rng.integers(min(2, most), most + 1)))
        ]  # fmt: skip
        found = dp.epsilon(event_of(settings), 10 ** rng.uniform(-12, -3), neighboring=ADD_REMOVE)
        width = found.upper - found.lower
        wide += width > max(1e-5, 1e-3 * found.upper)
    return {"count": count, "wide": int(wide), "seconds": time.process_time() - begin}


ROWS: dict[str, Callable[[Peer | None], Row]] = {
    **{
        f"q={q} sigma={sigma} T={count} delta={delta}": functools.partial(
            compare, [(q, sigma, count)], delta
        )
        for (q, sigma, count), delta in SAME
    },
    **{
        f"calibrate to 2, T={count}": functools.partial(calibration, count)
        for count in (1_000, 10_000)
    },
    "1,000 noise levels": functools.partial(compare, LEVELS, DELTA),
    "500 random settings": functools.partial(survey, 500, 1),
    "200 random compositions": functools.partial(survey, 200, 5),
}


def text(name: str, row: Row) -> str:
    """One line."""
    if "wide" in row:
        return (
            f"{name}: {row['wide']} of {row['count']} intervals wider than 0.1 % and 1e-5,"
            f" {row['seconds']:.0f} s"
        )
    if "upper" in row:
        width = (row["upper"] - row["lower"]) / row["upper"]
        value = f"[{row['lower']:.5f}, {row['upper']:.5f}] width {width:.1e}"
    else:
        value = f"{row['noise_multiplier']:.5f}"
    line = f"{name}: {value}, {row['seconds']:.4f} s"
    if "peer_value" not in row:
        return line
    ratio = row["peer_seconds"] / row["seconds"]
    return (
        f"{line}; dp-accounting {row['peer_value']:.5f}, {row['peer_seconds']:.4f} s, ratio"
        f" {ratio:.2f}"
    )


def table(rows: Mapping[str, Row]) -> str:
    """One line per row."""
    return "\n".join(text(name, row) for name, row in rows.items())


def main() -> None:
    parser = options_of(__doc__)
    parser.add_argument("--rows", nargs="+", choices=[*ROWS], default=[*ROWS])
    parser.add_argument("--peer", action="store_true", help="run dp-accounting as well")
    given = parser.parse_args()
    results = Results("accounting")
    if given.show:
        print(table(results.rows()))
        return
    peer = Peer() if given.peer else None
    for name in given.rows:
        row, key = ROWS[name](peer), beside(name, ["dp-accounting"] if given.peer else [])
        results.add(key, row)
        print(text(key, row), flush=True)


if __name__ == "__main__":
    main()
