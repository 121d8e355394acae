"""Seconds and widths of certified privacy accounting, one core; figures are printed.

Run: python -m benchmarks.bench_dp
"""

import time
from collections.abc import Callable

import dp

ADD_REMOVE = dp.NeighboringRelation.ADD_REMOVE


def sampled(q: float, sigma: float, count: int) -> dp.Event:
    return dp.SelfComposedEvent(dp.PoissonSampledEvent(q, dp.GaussianEvent(sigma)), count)


def best_of(run: Callable[[], object], repeats: int = 3) -> float:
    """Smallest wall time of `repeats` runs, in seconds."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> None:
    for q, sigma, count, delta in (
        (0.01, 1.0, 1000, 1e-5),
        (0.01, 1.0, 10_000, 1e-5),
        (0.01, 1.0, 100_000, 1e-5),
        (0.001, 0.7, 100_000, 1e-6),
        (0.001, 0.7, 1_000_000, 1e-6),
        (0.1, 2.0, 1000, 1e-8),
    ):
        event = sampled(q, sigma, count)
        found = dp.epsilon(event, delta, neighboring=ADD_REMOVE)

        def query(event: dp.Event = event, delta: float = delta) -> object:
            return dp.epsilon(event, delta, neighboring=ADD_REMOVE)

        width = (found.upper - found.lower) / found.upper
        print(
            f"q={q} sigma={sigma} T={count} delta={delta}: [{found.lower:.5f}, {found.upper:.5f}] "
            f"width {width:.1e}, {best_of(query):.4f} s"
        )
    levels = dp.ComposedEvent(tuple(sampled(0.01, 1.0 + i / 1000, 1) for i in range(1000)))
    seconds = best_of(lambda: dp.epsilon(levels, 1e-5, neighboring=ADD_REMOVE), 1)
    print(f"1,000 noise levels: {seconds:.2f} s")
    for count in (1000, 10_000):

        def search(count: int = count) -> float:
            return dp.calibrate(
                lambda z: sampled(0.01, z, count), epsilon=2.0, delta=1e-5, neighboring=ADD_REMOVE
            )

        print(f"calibrate to 2, T={count}: {search():.4f}, {best_of(search):.3f} s")


if __name__ == "__main__":
    main()
