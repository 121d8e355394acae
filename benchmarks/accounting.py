"""Certified privacy accounting: widths and CPU seconds, beside dp-accounting and Opacus.

    python -m benchmarks.accounting [--rows NAME ...] [--limit 120] [--show]
        [--peers dp-accounting opacus [--folder build/peers]]

The rows of many settings draw them from the documented range (q from 1e-6 to 1, sigma from 0.2 to
100, T to 1e6, delta from 1e-12 to 1e-3, all by their logarithms), alone or two to five together,
and count the intervals that are wider than 0.1 % and 1e-5.

Pinned to one core, CPU time, medians of three calls after a first one. `--peers` asks others for
the same right after it, on the same core (peers/*_epsilon.py, in the environments of
peers/environments.py), and then ours once more: ratios are to the mean of the two. A peer that
takes longer than ten seconds is called once, and not waited for after `--limit` seconds or beyond
6 GiB. dp-accounting's figure is the upper end of its privacy loss distributions; Opacus' RDP is an
upper bound, its PRV the upper end of a stated error: each is put beside our interval, which holds
the truth, and one below its lower end would be too small. Finished rows are written to
results/accounting.json, over older ones; `--show` prints those.
"""

import functools
import json
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

import dp
from benchmarks._results import Results, Row, beside
from benchmarks._script import (
    ask_peer,
    beside_us,
    integer_from,
    options_of,
    pin,
    take_peers,
    versions_text,
)
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


class Peers(NamedTuple):
    """Who is asked for the same.

    Attributes:
        names: of them.
        folder: of their environments.
        limit: seconds that one figure may take.
    """

    names: Sequence[str]
    folder: Path
    limit: int

    def ask(self, settings: Sequence[Setting], delta: float, epsilon: float | None = None) -> Row:
        """Their epsilons, or noise multipliers for `epsilon`, and CPU seconds."""
        options: dict[str, object] = {
            "settings": json.dumps(settings), "delta": delta, "repeats": REPEATS,
            "patience": _PATIENCE, "limit": self.limit,
        }  # fmt: skip
        if epsilon is not None:
            options["epsilon"] = epsilon
        found: Row = {}
        for name in self.names:
            found |= ask_peer(self.folder, name, f"{name.replace('-', '_')}_epsilon.py", options)
        return found


def timed(call: Callable[[], object], theirs: Callable[[], Row]) -> Row:
    """Ours, the peers' right after it, and ours once more where there are any."""
    runs, peers = [cpu_seconds(call, repeats=REPEATS)], theirs()
    if peers:
        runs.append(cpu_seconds(call, repeats=REPEATS))
    return {"seconds": statistics.mean(runs), "peers": peers}


def compare(settings: Sequence[Setting], delta: float, peers: Peers) -> Row:
    """Epsilon of a composition, with its certified lower end."""
    event = event_of(settings)
    found = dp.epsilon(event, delta, neighboring=ADD_REMOVE)
    return {
        "lower": found.lower, "upper": found.upper,
        **timed(
            lambda: dp.epsilon(event, delta, neighboring=ADD_REMOVE),
            lambda: peers.ask(settings, delta),
        ),
    }  # fmt: skip


def calibration(count: int, peers: Peers) -> Row:
    """The noise multiplier at which `count` steps cost epsilon 2."""

    def search() -> float:
        return dp.calibrate(
            lambda z: event_of([(0.01, z, count)]), epsilon=2.0, delta=DELTA, neighboring=ADD_REMOVE
        )

    theirs = functools.partial(peers.ask, [(0.01, 1.0, count)], DELTA, 2.0)
    return {"noise_multiplier": search(), **timed(search, theirs)}


def survey(count: int, most: int, peers: Peers) -> Row:
    """Intervals of `count` random compositions of one to `most` settings that stay wide."""
    del peers  # they have no lower end
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


ROWS: dict[str, Callable[[Peers], Row]] = {
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
    """The interval or the noise that was found, and each peer's figure below it."""
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
    lines = [f"{name}: {value}, {row['seconds']:.4f} s"]
    lines += [peer_text(peer, found, row) for peer, found in row.get("peers", {}).items()]
    return "\n".join(lines)


def peer_text(peer: str, found: Row, row: Row) -> str:
    """A peer's figure, where it lies, and how much longer it took."""
    used = versions_text(found)
    if "failed" in found:
        return f"  {peer}: no figure: {found['failed']} ({used})"
    return (
        f"  {peer}: {found['value']:.5f}{place(found['value'], row)}, {found['seconds']:.4f} s,"
        f" {found['seconds'] / row['seconds']:.3g}x ours ({used})"
    )


def place(value: float, row: Row) -> str:
    """Where a peer's epsilon lies; a noise multiplier says so itself."""
    if "upper" not in row:
        return ""
    if value < row["lower"]:
        return ", BELOW our lower end"
    over = value / row["upper"] - 1
    return ", inside our interval" if over <= 0 else f", {over:.2%} above our upper end"


def table(rows: Mapping[str, Row]) -> str:
    """One line per row."""
    return "\n".join(text(name, row) for name, row in rows.items())


def main() -> None:
    """Measures the rows asked for, or prints what is there."""
    parser = options_of(__doc__)
    parser.add_argument("--rows", nargs="+", choices=[*ROWS], default=[*ROWS])
    parser.add_argument(
        "--limit", type=integer_from(1), default=120, help="seconds of one figure of a peer"
    )
    take_peers(parser)
    given = parser.parse_args()
    results = Results("accounting")
    if given.show:
        print(table(results.rows()))
        return
    pin()
    peers = Peers(beside_us(given, ("dp-accounting", "opacus")), given.folder, given.limit)
    for name in given.rows:
        row = ROWS[name](peers)
        key = beside(name, peers.names if row.get("peers") else [])
        results.add(key, row)
        print(text(key, row), flush=True)


if __name__ == "__main__":
    main()
