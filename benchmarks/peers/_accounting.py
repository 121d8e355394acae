"""What the peers' accountants share: their options, a clock with patience, the JSON at the end."""

import argparse
import importlib.metadata
import json
import resource
import signal
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Settings = list[tuple[float, float, int]]  # sampling probability, noise multiplier, steps
_MEMORY = 6 << 30  # bytes that an accountant may take


def options(doc: str | None) -> argparse.Namespace:
    """Of a script that finds an epsilon, or with `--epsilon` the noise multiplier for it."""
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument("--settings", type=json.loads, required=True)
    parser.add_argument("--delta", type=float, required=True)
    parser.add_argument("--epsilon", type=float)
    parser.add_argument("--repeats", type=int, required=True)
    parser.add_argument("--patience", type=float, required=True)
    parser.add_argument("--limit", type=int, required=True)
    return parser.parse_args()


def timed(call: Callable[[], float], given: argparse.Namespace) -> dict[str, Any]:
    """A value and its median CPU seconds after a first call; of that one where it takes long.

    Args:
        call: what is timed.
        given: repeats; patience, the seconds from which on one call is enough; limit, the seconds
            after which none is waited for.
    """

    def late(*_: object) -> None:
        raise TimeoutError(f"not done after {given.limit} s")

    signal.signal(signal.SIGALRM, late)
    signal.alarm(given.limit)
    try:
        begin = time.process_time()
        value = float(call())
        seconds = time.process_time() - begin
    except MemoryError as error:
        return {"failed": f"more than {_MEMORY >> 30} GiB: {error}"}
    except TimeoutError as error:
        return {"failed": str(error)}
    finally:
        signal.alarm(0)
    if seconds < given.patience:
        found = []
        for _ in range(given.repeats):
            begin = time.process_time()
            call()
            found.append(time.process_time() - begin)
        seconds = statistics.median(found)
    return {"value": value, "seconds": seconds}


def answer(
    calls: Mapping[str, Callable[[], float]], given: argparse.Namespace, packages: Sequence[str]
) -> None:
    """Prints the JSON of all accountants, by name."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    used = {name: importlib.metadata.version(name) for name in packages}
    print(
        json.dumps({name: {**timed(call, given), "versions": used} for name, call in calls.items()})
    )
