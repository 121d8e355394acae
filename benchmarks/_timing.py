"""The one way in which the benchmarks time a call."""

import statistics
import time
from collections.abc import Callable


def cpu_seconds(call: Callable[[], object], *, repeats: int = 5, times: int = 1) -> float:
    """Median CPU seconds of one call of this process, after a first one that is not counted.

    Args:
        call: what is timed.
        repeats: how many timings the median is of.
        times: calls within one timing, for calls too short for the clock.
    """
    call()
    found = []
    for _ in range(repeats):
        begin = time.process_time()
        for _ in range(times):
            call()
        found.append((time.process_time() - begin) / times)
    return statistics.median(found)
