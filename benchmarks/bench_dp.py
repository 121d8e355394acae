"""CPU seconds and widths of certified privacy accounting, one core; figures are printed.

    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python -m benchmarks.bench_dp [--peer]

CPU time of this process, medians of three runs after a first one (a peer that takes longer than
ten seconds runs once). `--peer` also runs dp-accounting in the same process and prints its epsilon,
its time and the ratio of the two; the 1,000 noise levels take it minutes. It is
no dependency: `pip install dp-accounting opendp` in an environment of its own, and run this
script there with the repository on PYTHONPATH (numpy is all that `dp` needs).
"""

import argparse
import importlib
import importlib.util
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import dp

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


def cpu_seconds(run: Callable[[], object]) -> float:
    """Median CPU seconds of `REPEATS` runs."""
    times = []
    for _ in range(REPEATS):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return statistics.median(times)


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


def beside(ours: float, peer: Callable[[], float] | None) -> str:
    """The peer's figure, its CPU seconds, and how many of ours they are."""
    if peer is None:
        return ""
    start = time.process_time()
    found = peer()
    seconds = time.process_time() - start
    if seconds < _PATIENCE:
        seconds = cpu_seconds(peer)
    return f"; dp-accounting {found:.5f}, {seconds:.4f} s, ratio {seconds / ours:.2f}"


def compare(name: str, settings: Sequence[Setting], delta: float, peer: Peer | None) -> None:
    event = event_of(settings)
    found = dp.epsilon(event, delta, neighboring=ADD_REMOVE)
    seconds = cpu_seconds(lambda: dp.epsilon(event, delta, neighboring=ADD_REMOVE))
    width = (found.upper - found.lower) / found.upper
    other = None if peer is None else lambda: peer.epsilon(settings, delta)
    print(
        f"{name}: [{found.lower:.5f}, {found.upper:.5f}] width {width:.1e}, {seconds:.4f} s"
        f"{beside(seconds, other)}"
    )


def calibration(count: int, peer: Peer | None) -> None:
    def search() -> float:
        return dp.calibrate(
            lambda z: event_of([(0.01, z, count)]), epsilon=2.0, delta=DELTA, neighboring=ADD_REMOVE
        )

    found, seconds = search(), cpu_seconds(search)
    other = None if peer is None else lambda: peer.noise(count)
    print(f"calibrate to 2, T={count}: {found:.5f}, {seconds:.4f} s{beside(seconds, other)}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peer", action="store_true", help="run dp-accounting as well")
    peer = Peer() if parser.parse_args().peer else None
    for (q, sigma, count), delta in SAME:
        compare(f"q={q} sigma={sigma} T={count} delta={delta}", [(q, sigma, count)], delta, peer)
    compare("1,000 noise levels", LEVELS, DELTA, peer)
    for count in (1_000, 10_000):
        calibration(count, peer)


if __name__ == "__main__":
    main()
