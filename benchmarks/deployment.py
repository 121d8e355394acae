"""Seconds and bytes per stage of runs across organisations, and what larger ones would take.

    python -m benchmarks.deployment [--nodes 2 8 16] [--rounds 2] [--features 21] [--timeout 240]
    python -m benchmarks.deployment --predict     n clients, a million parameters, by predict_cost
    python -m benchmarks.deployment --show

Finished rows are written to results/deployment.json, over older ones; `--show` prints those. The
first starts Flower's real processes on this machine, over TLS: a SuperLink, and for every node
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
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

import secureagg
from benchmarks._results import Results, Row
from fl.datasets import FederatedDataset
from fl.job import Job
from tests.deploy.federation import Federation, descendants
from tests.deploy.organisations import Organisations

RESULTS = Results("deployment")
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
    """Noise: eight examples a node."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(8 * nodes, features)).astype(np.float32)
    y = rng.integers(0, 2, len(x)).astype(np.int32)
    owners = np.repeat(np.arange(nodes), 8)
    return FederatedDataset.from_arrays({"x": x, "y": y}, owners, num_classes=2, name="noise")


def job_of(rounds: int) -> Job:
    """Masked and not private: what is timed does not hang on noise."""
    return Job(
        dataset="noise", rounds=rounds, graph="complete", server="semi_honest", corrupt=0.0,
        dropout=0.0, no_dp=True, max_norm=1.0,
    )  # fmt: skip


def measure(nodes: int, rounds: int, features: int, timeout: float) -> Row:
    """Runs one federation."""
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
        messages, apps = nodes * len(stages), list(watch.seen.values())
        return {
            "nodes": nodes, "rounds": rounds, "features": features, "start_seconds": started,
            "stages": by_stage(nodes, stages), "apps": len(apps),
            "app_seconds": statistics.median(last - first for first, last, _ in apps),
            "app_cpu": statistics.median(cpu for _, _, cpu in apps), "own_cpu": own / messages,
            "link_cpu": at_link / messages, "idle_ms": 1e3 * idle,
        }  # fmt: skip


def by_stage(nodes: int, stages: Sequence[tuple[str, float, int, int]]) -> dict[str, Row]:
    """Medians over the rounds: wall-clock seconds, and bytes per node."""
    found: dict[str, Row] = {}
    for stage in dict.fromkeys(row[0] for row in stages):
        rows = [row for row in stages if row[0] == stage]
        found[stage] = {
            "seconds": statistics.median(float(row[1]) for row in rows),
            "up": statistics.median(row[2] for row in rows) / nodes,
            "down": statistics.median(row[3] for row in rows) / nodes,
        }
    return found


def text(row: Row) -> str:
    """A federation's lines."""
    lines = [
        f"{row['nodes']} nodes, everything started after {row['start_seconds']:.0f} s",
        f"    {'stage':18}{'wall s':>8}{'up':>12}{'down':>12}",
    ]
    lines += [
        f"    {stage:18}{one['seconds']:8.1f}{one['up']:12,.0f}{one['down']:12,.0f}"
        for stage, one in row["stages"].items()
    ]
    return "\n".join([
        *lines,
        f"    {row['apps']} app processes: app s {row['app_seconds']:.1f}, cpu"
        f" {row['app_cpu']:.2f}",
        f"    own cpu {row['own_cpu']:.3f} per stage; link cpu {row['link_cpu']:.3f} per message,"
        f" {row['idle_ms']:.2f} ms per node and second of waiting",
    ])  # fmt: skip


def predict() -> Iterator[Row]:
    """What a round of many clients takes, a tenth of them gone before they mask."""
    for n, seed in _PREDICTED:
        for server in ("semi_honest", "malicious"):
            params = secureagg.choose_params(
                n, {"update": (_PARAMETERS, _BITS)}, corrupt=0.05, dropout=0.1, server=server,
                rounds=100, session_id=bytes(32), graph_seed=seed,
            )  # fmt: skip
            cost = secureagg.predict_cost(params, {"mask_input": range(n // 10)})
            up, down = (sum(b.values()) for b in (cost.upload_bytes, cost.download_bytes))
            yield {
                "n": n, "server": server, "degree": params.degree,
                "client_seconds": sum(cost.client_seconds.values()) / n,
                "server_seconds": sum(cost.server_seconds.values()), "up": up, "down": down,
            }  # fmt: skip


def predicted_text(rows: Sequence[Row]) -> str:
    """Header and one line per prediction."""
    lines = [
        f"predicted: d = {_PARAMETERS:,} of {_BITS} bits, corrupt 0.05, dropout 0.1, 100 rounds;"
        " CPU seconds",
        f"{'n':>7} {'server is':12}{'degree':>7}{'client s':>9}{'server s':>9}"
        f"{'up MB':>8}{'down kB':>9}{'all up GB':>10}",
    ]
    return "\n".join(lines + [
        f"{row['n']:7,} {row['server']:12}{row['degree']:7}{row['client_seconds']:9.3f}"
        f"{row['server_seconds']:9.1f}{row['up'] / row['n'] / 1e6:8.2f}"
        f"{row['down'] / row['n'] / 1e3:9.1f}{row['up'] / 1e9:10.2f}"
        for row in rows
    ])  # fmt: skip


def table(rows: Mapping[str, Row]) -> str:
    """Federations by size, then predictions."""
    measured = sorted((row for row in rows.values() if "stages" in row), key=lambda r: r["nodes"])
    predicted = [row for row in rows.values() if "degree" in row]
    found = [text(row) for row in measured]
    return "\n\n".join([*found, predicted_text(predicted)] if predicted else found)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", type=int, nargs="+", default=[2, 8, 16])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--features", type=int, default=21, help="2 x (features + 1) parameters")
    parser.add_argument("--timeout", type=float, default=240.0, help="seconds per stage")
    parser.add_argument("--predict", action="store_true")
    parser.add_argument("--show", action="store_true", help="print what is there, run nothing")
    given = parser.parse_args()
    if given.predict:
        for row in predict():
            RESULTS.add(f"predicted/{row['n']:05}-{row['server']}", row)
    for nodes in () if given.show or given.predict else given.nodes:
        row = measure(nodes, given.rounds, given.features, given.timeout)
        RESULTS.add(f"nodes-{nodes:02}", row)
    print(table(RESULTS.rows()))


if __name__ == "__main__":
    main()
