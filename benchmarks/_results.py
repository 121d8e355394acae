"""What a benchmark found: benchmarks/results/NAME.json, one row per finished cell.

A file holds rows by key, and the runs that they come from: machine (CPU, cores, memory) and
versions, no names and no paths. A row is written as soon as it is finished, under a lock, so that
a script can be stopped and started again, or run twice at once, and finds what is done.
"""

import fcntl
import importlib.metadata
import json
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("jax", "jaxlib", "numpy", "optax", "cryptography", "flwr")

Row = dict[str, Any]


def machine() -> dict[str, Any]:
    """CPU model, cores and memory."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text(encoding="utf-8").splitlines()
        named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        model = named[0] if named else model
    ram = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {"cpu": model, "cores": os.cpu_count(), "ram_gib": round(ram)}


def versions() -> dict[str, str]:
    """Of Python and of those packages that decide the figures and are installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def beside(name: str, peers: Sequence[str]) -> str:
    """The key of a row that was measured beside peers: one without them does not replace it."""
    return f"{name}, beside {', '.join(peers)}" if peers else name


class Results:
    """The rows of one benchmark.

    Args:
        name: of the benchmark, and of its file.
        folder: where the file is.
    """

    def __init__(self, name: str, folder: Path = RESULTS) -> None:
        self.name, self.path = name, folder / f"{name}.json"

    def rows(self) -> dict[str, Row]:
        """All finished rows by key."""
        return dict(self._read()["rows"])

    def runs(self) -> list[dict[str, Any]]:
        """Machines and versions that rows come from; a row's "run" is an index into these."""
        return list(self._read()["runs"])

    def add(self, key: str, row: Mapping[str, Any]) -> None:
        """Writes a row, over an older one of that key."""
        run = {"machine": machine(), "versions": versions()}
        with self._locked():
            found = self._read()
            if run not in found["runs"]:
                found["runs"].append(run)
            found["rows"][key] = {**row, "run": found["runs"].index(run)}
            found["rows"] = dict(sorted(found["rows"].items()))
            partial = self.path.with_suffix(".partial")
            partial.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
            partial.replace(self.path)

    def _read(self) -> dict[str, Any]:
        if not self.path.exists():
            return {"benchmark": self.name, "runs": [], "rows": {}}
        found: dict[str, Any] = json.loads(self.path.read_text(encoding="utf-8"))
        return found

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
