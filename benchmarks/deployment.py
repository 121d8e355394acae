"""Seconds and bytes per stage of runs across organisations, and what larger ones would take.

    python -m benchmarks.deployment [--nodes 2 8 16] [--rounds 2] [--features 21] [--timeout 240]
    python -m benchmarks.deployment --predict     n clients, a million parameters, by predict_cost

The first starts Flower's real processes on this machine, over TLS: a SuperLink, and for every node
a SuperNode and the organisation's own process. Its columns, medians over the rounds:

    wall s       of a stage, from the server's first request to its barrier
    up, down     bytes per node and stage, without TLS and Flower's envelopes
    app s, cpu   how long the process lives that Flower starts for each message; its CPU seconds
    own cpu      CPU seconds of the organisation's long-lived process per stage
    link cpu     of the SuperLink per message; and per node and second while nothing happens
"""

import argparse
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import secureagg
from fl.datasets import FederatedDataset
from fl.job import Job
from tests.deploy.federation import Federation, descendants
from tests.deploy.organisations import Organisations

_TICK = os.sysconf("SC_CLK_TCK")
_IDLE_SECONDS = 20.0
_PREDICTED = ((100, None), (1000, bytes(32)), (10_000, bytes(32)))  # clients, seed of the graph
_PARAMETERS, _BITS = 1_000_000, 22


def cpu_seconds(pid: int) -> float:
    """CPU seconds of a process so far, its ended children left out."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


class AppWatch(threading.Thread):
    """Looks at the processes that Flower starts for single messages, every twentieth of a second.

    Attributes:
        seen: pid -> (first seen, last seen, CPU seconds by then).
    """

    def __init__(self, roots: Sequence[int]) -> None:
        super().__init__(daemon=True)
        self._roots, self._stop_it = roots, threading.Event()
        self.seen: dict[int, tuple[float, float, float]] = {}

    def run(self) -> None:
        """Looks until `stop`."""
        while not self._stop_it.wait(0.05):
            for root in self._roots:
                for pid in descendants(root):
                    self._look(pid)

    def _look(self, pid: int) -> None:
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:2]
            if any(word.endswith(b"flwr-clientapp") for word in words):
                now, spent = time.perf_counter(), cpu_seconds(pid)
                self.seen[pid] = (self.seen.get(pid, (now,))[0], now, spent)
        except OSError:  # it has ended
            return

    def stop(self) -> None:
        """Ends the thread."""
        self._stop_it.set()
        self.join()


def data_of(nodes: int, features: int) -> FederatedDataset:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(8 * nodes, features)).astype(np.float32)
    y = rng.integers(0, 2, len(x)).astype(np.int32)
    owners = np.repeat(np.arange(nodes), 8)
    return FederatedDataset.from_arrays({"x": x, "y": y}, owners, num_classes=2, name="noise")


def job_of(rounds: int) -> Job:
    return Job(
        dataset="noise", rounds=rounds, graph="complete", server="semi_honest", corrupt=0.0,
        dropout=0.0, no_dp=True, max_norm=1.0,
    )  # fmt: skip


def measure(nodes: int, rounds: int, features: int, timeout: float) -> None:
    """Runs one federation and prints its rows."""
    with tempfile.TemporaryDirectory(prefix="fl-bench-") as name, Federation(Path(name)) as link:
        names = [f"n{i}" for i in range(nodes)]
        run = Organisations(link, job_of(rounds), data_of(nodes, features), names, timeout)
        begin = time.perf_counter()
        run.start()
        link.wait(lambda: link.log("superlink").count("Activated") >= nodes, "all nodes", 300.0)
        started = time.perf_counter() - begin
        idle = cpu_seconds(link.pid("superlink"))
        time.sleep(_IDLE_SECONDS)
        idle = (cpu_seconds(link.pid("superlink")) - idle) / _IDLE_SECONDS / nodes
        watch = AppWatch([link.pid(f"node-{n}") for n in names])
        watch.start()
        own = sum(cpu_seconds(link.pid(f"client-{n}")) for n in names)
        at_link, begin = cpu_seconds(link.pid("superlink")), time.perf_counter()
        run.finish(run.run(), 3600.0)
        watch.stop()
        own = sum(cpu_seconds(link.pid(f"client-{n}")) for n in names) - own
        at_link = cpu_seconds(link.pid("superlink")) - at_link
        at_link -= idle * nodes * (time.perf_counter() - begin)
        stages = run.server_rows(
            "select stage, seconds, upload_bytes, download_bytes from stages order by rowid"
        )
        report(nodes, started, stages, list(watch.seen.values()))
        messages = nodes * len(stages)
        print(f"    own cpu {own / messages:.3f} per stage; link cpu {at_link / messages:.3f} per"
              f" message, {1e3 * idle:.2f} ms per node and second of waiting\n")  # fmt: skip


def report(
    nodes: int,
    started: float,
    stages: Sequence[tuple[str, float, int, int]],
    apps: Sequence[tuple[float, float, float]],
) -> None:
    print(f"{nodes} nodes, everything started after {started:.0f} s")
    print(f"    {'stage':18}{'wall s':>8}{'up':>12}{'down':>12}")
    for stage in dict.fromkeys(row[0] for row in stages):
        rows = [row for row in stages if row[0] == stage]
        seconds = statistics.median(float(row[1]) for row in rows)
        up = statistics.median(row[2] for row in rows) / nodes
        down = statistics.median(row[3] for row in rows) / nodes
        print(f"    {stage:18}{seconds:8.1f}{up:12,.0f}{down:12,.0f}")
    lives = statistics.median(last - first for first, last, _ in apps)
    spent = statistics.median(cpu for _, _, cpu in apps)
    print(f"    {len(apps)} app processes: app s {lives:.1f}, cpu {spent:.2f}")


def predict() -> None:
    """Prints what a round of many clients takes, a tenth of them gone before they mask."""
    print(
        f"d = {_PARAMETERS:,} of {_BITS} bits, corrupt 0.05, dropout 0.1, 100 rounds; CPU seconds"
    )
    print(f"{'n':>7} {'server is':12}{'degree':>7}{'client s':>9}{'server s':>9}"
          f"{'up MB':>8}{'down kB':>9}{'all up GB':>10}")  # fmt: skip
    for n, seed in _PREDICTED:
        for server in ("semi_honest", "malicious"):
            params = secureagg.choose_params(
                n, {"update": (_PARAMETERS, _BITS)}, corrupt=0.05, dropout=0.1, server=server,
                rounds=100, session_id=bytes(32), graph_seed=seed,
            )  # fmt: skip
            cost = secureagg.predict_cost(params, {"mask_input": range(n // 10)})
            up, down = (sum(b.values()) for b in (cost.upload_bytes, cost.download_bytes))
            print(
                f"{n:7,} {server:12}{params.degree:7}{sum(cost.client_seconds.values()) / n:9.3f}"
                f"{sum(cost.server_seconds.values()):9.1f}{up / n / 1e6:8.2f}"
                f"{down / n / 1e3:9.1f}{up / 1e9:10.2f}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", type=int, nargs="+", default=[2, 8, 16])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--features", type=int, default=21, help="2 x (features + 1) parameters")
    parser.add_argument("--timeout", type=float, default=240.0, help="seconds per stage")
    parser.add_argument("--predict", action="store_true")
    given = parser.parse_args()
    if given.predict:
        predict()
        return
    for nodes in given.nodes:
        measure(nodes, given.rounds, given.features, given.timeout)


if __name__ == "__main__":
    main()
