"""Seconds and bytes per stage of runs across organisations, and what larger ones would take.

    python -m benchmarks.deployment [--nodes 2 8 16] [--rounds 3] [--features 21] [--timeout 400]
    python -m benchmarks.deployment --show        the rows that are finished
    python -m benchmarks.deployment --predict     rounds of n clients, a million parameters each
    python -m benchmarks.deployment --paper       10,000 clients: what decides, from both of these

The first starts Flower's real processes on this machine, over TLS: a SuperLink, and for every node
a SuperNode and the organisation's own process. Medians over the rounds, of a stage:

    wall      from the server's first request to its barrier
    fetch     of that until the last node's app has started: SuperNodes look for messages
    app       the process that Flower starts for the message, from its start to its end, median node
    collect   from the end of the last one to the barrier: the server looks for answers
    up, down  bytes of a node, without TLS and Flower's envelopes

and, over all of them, CPU seconds: of an app process, of the organisation's own process until it
listens (imports, compiling) and per stage, of the SuperLink per message and per node and second
while nothing happens. Rows are written to
results/deployment.json.
"""

import contextlib
import os
import sqlite3
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import secureagg
from benchmarks._results import Results, Row
from benchmarks._script import integer_from, options_of
from fl.datasets import FederatedDataset
from fl.job import Job
from tests.deploy.federation import Federation, descendants
from tests.deploy.organisations import Organisations

_TICK = os.sysconf("SC_CLK_TCK")
_IDLE_SECONDS = 20.0
_PREDICTED = ((4, None), (16, None), (100, None), (1000, bytes(32)), (10_000, bytes(32)))
_PARAMETERS, _BITS = 1_000_000, 22
_PARTS = ("wall", "fetch", "app", "collect")
_STAGES = "select round, stage, seconds, upload_bytes, download_bytes from stages order by rowid"


class Process(NamedTuple):
    """What the kernel says of a process.

    Attributes:
        name: of its program.
        start: seconds of the clock that also runs while the machine sleeps.
        cpu: seconds so far, its ended children left out.
        ended: whether only its name is left.
    """

    name: str
    start: float
    cpu: float
    ended: bool


def process(pid: int) -> Process:
    """Reads the state of a process from /proc."""
    before, _, after = Path(f"/proc/{pid}/stat").read_text().rpartition(")")
    fields = after.split()
    cpu = (int(fields[11]) + int(fields[12])) / _TICK
    return Process(before.partition("(")[2], int(fields[19]) / _TICK, cpu, fields[0] == "Z")


def clock() -> float:
    """Seconds since the machine started, as /proc counts them."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Watch(threading.Thread):
    """Looks at single messages' processes and at the server's stages, ten times a second.

    Attributes:
        apps: (node, pid) -> [start, last seen, CPU seconds by then].
        begun: (round, stage) -> when it was first seen in the server's store.
    """

    def __init__(self, link: Federation, run: Organisations) -> None:
        super().__init__(daemon=True)
        self._roots = {name: link.pid(f"node-{name}") for name in run.names}
        self._run, self._over = run, threading.Event()
        self.apps: dict[tuple[str, int], list[float]] = {}
        self.begun: dict[tuple[int, str], float] = {}

    def run(self) -> None:
        """Looks until `stop`."""
        while not self._over.wait(0.1):
            for name, root in self._roots.items():
                for pid in descendants(root):
                    with contextlib.suppress(OSError):  # it has ended
                        self._look(name, pid)
                with contextlib.suppress(sqlite3.OperationalError):  # there is no store yet
                    for index, stage, *_ in self._run.server_rows(_STAGES):
                        self.begun.setdefault((index, stage), clock())

    def _look(self, name: str, pid: int) -> None:
        found = process(pid)
        if found.name == "flwr-clientapp":
            seen = self.apps.setdefault((name, pid), [found.start, found.start, 0.0])
            seen[1:] = [seen[1] if found.ended else clock(), max(seen[2], found.cpu)]

    def stop(self) -> None:
        """Ends the thread."""
        self._over.set()
        self.join()


def data_of(nodes: int, features: int) -> FederatedDataset:
    """Eight random examples for each node."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(8 * nodes, features)).astype(np.float32)
    y = rng.integers(0, 2, len(x)).astype(np.int32)
    owners = np.repeat(np.arange(nodes), 8)
    return FederatedDataset.from_arrays({"x": x, "y": y}, owners, num_classes=2, name="noise")


def job_of(rounds: int) -> Job:
    """An open job on the complete graph in which nobody may leave."""
    return Job(
        dataset="noise", rounds=rounds, graph="complete", server="semi_honest", corrupt=0.0,
        dropout=0.0, no_dp=True, max_norm=1.0,
    )  # fmt: skip


def measure(nodes: int, rounds: int, features: int, timeout: float) -> Row:
    """Runs one federation and returns its row."""
    with tempfile.TemporaryDirectory(prefix="fl-bench-") as name, Federation(Path(name)) as link:
        names = [f"n{i}" for i in range(nodes)]
        run = Organisations(link, job_of(rounds), data_of(nodes, features), names, timeout)
        begin = clock()
        run.start()
        link.wait(lambda: link.log("superlink").count("Activated") >= nodes, "all nodes", 600.0)
        started = clock() - begin
        superlink, own = link.pid("superlink"), [link.pid(f"client-{name}") for name in names]
        idle = process(superlink).cpu
        time.sleep(_IDLE_SECONDS)
        idle = (process(superlink).cpu - idle) / _IDLE_SECONDS / nodes
        watch = Watch(link, run)
        watch.start()
        before = [sum(process(pid).cpu for pid in own), process(superlink).cpu, clock()]
        run.finish(run.run(), 3600.0)
        watch.stop()
        after = [sum(process(pid).cpu for pid in own), process(superlink).cpu, clock()]
        spent = [b - a for a, b in zip(before, after, strict=True)]
        stages = run.server_rows(_STAGES)
        messages = nodes * len(stages)
        return {
            "nodes": nodes, "rounds": rounds, "parameters": 2 * (features + 1), "started": started,
            "stages": stage_rows(nodes, stages, watch),
            "app_cpu": statistics.median(cpu for _, _, cpu in watch.apps.values()),
            "own_cpu": spent[0] / messages, "own_start_cpu": before[0] / nodes,
            "link_cpu": (spent[1] - idle * nodes * spent[2]) / messages,
            "link_idle_cpu": idle, "load": os.getloadavg()[1],
        }  # fmt: skip


def stage_rows(
    nodes: int, stages: Sequence[tuple[Any, ...]], watch: Watch
) -> dict[str, dict[str, float]]:
    """Medians over the rounds, by stage."""
    found: dict[str, list[dict[str, float]]] = {}
    for index, stage, seconds, up, down in stages:
        begin = watch.begun[index, stage]
        end = begin + seconds
        apps = [app for app in watch.apps.values() if begin - 0.1 <= app[0] <= end]
        row = {
            "wall": seconds,
            "fetch": max(start for start, _, _ in apps) - begin,
            "app": statistics.median(last - start for start, last, _ in apps),
            "collect": end - max(last for _, last, _ in apps),
            "up": up / nodes, "down": down / nodes,
        }  # fmt: skip
        found.setdefault(stage, []).append(row)
    return {
        stage: {name: statistics.median(row[name] for row in rows) for name in rows[0]}
        for stage, rows in found.items()
    }


def text(row: Row) -> str:
    """A federation's lines."""
    lines = [
        f"{row['nodes']} nodes, {row['parameters']:,} parameters; everything started after"
        f" {row['started']:.0f} s; load of the machine {row['load']:.0f}",
        f"    {'stage':16}" + "".join(f"{name + ' s':>10}" for name in _PARTS)
        + f"{'up':>12}{'down':>12}",
    ]  # fmt: skip
    lines += [
        f"    {stage:16}" + "".join(f"{cell[name]:10.1f}" for name in _PARTS)
        + f"{cell['up']:12,.0f}{cell['down']:12,.0f}"
        for stage, cell in row["stages"].items()
    ]  # fmt: skip
    walls = sum(cell["wall"] for cell in row["stages"].values())
    return "\n".join([
        *lines,
        f"    a round {walls:.0f} s; CPU s: an app process {row['app_cpu']:.2f}; the"
        f" organisation's own {row['own_start_cpu']:.1f} to start, {row['own_cpu']:.3f} a stage;"
        f" the SuperLink {row['link_cpu']:.2f} a message, {row['link_idle_cpu']:.4f} a node and"
        " idle second\n",
    ])  # fmt: skip


def table(rows: Mapping[str, Row]) -> str:
    """All federations, by parameters and nodes."""
    found = sorted(rows.values(), key=lambda row: (row["parameters"], row["nodes"]))
    return "\n".join(map(text, found))


class Predicted(NamedTuple):
    """A round of n clients, a tenth of them (of fewer than ten: one) gone before they mask."""

    n: int
    server: str
    degree: int
    cost: secureagg.RoundCost
    senders: int

    @property
    def client(self) -> float:
        """CPU seconds of one client."""
        return sum(self.cost.client_seconds.values()) / self.n

    @property
    def at_server(self) -> float:
        """CPU seconds of the server."""
        return sum(self.cost.server_seconds.values())

    @property
    def up(self) -> float:
        """Bytes of a client that sends its masked vector."""
        vectors = self.cost.upload_bytes["mask_input"]
        return vectors / self.senders + (self.all_up - vectors) / self.n

    @property
    def all_up(self) -> float:
        """Bytes that arrive at the server."""
        return sum(self.cost.upload_bytes.values())

    @property
    def down(self) -> float:
        """Bytes to one client, the model left out."""
        return sum(self.cost.download_bytes.values()) / self.n


def predicted(n: int, seed: bytes | None, server: str, length: int = _PARAMETERS) -> Predicted:
    """What one round of n clients takes, a tenth of them gone before they mask."""
    gone = max(1, n // 10)
    rates = {4: (0.0, 0.25), 16: (0.07, 0.07)}.get(n, (0.05, 0.1))
    params = secureagg.choose_params(
        n, {"update": (length, _BITS)}, corrupt=rates[0], dropout=rates[1], server=server,
        rounds=100, session_id=bytes(32), graph_seed=seed,
    )  # fmt: skip
    cost = secureagg.predict_cost(params, {"mask_input": range(gone)})
    return Predicted(n, server, params.degree, cost, n - gone)


def predict() -> None:
    """Prints what rounds of n clients take."""
    print(f"d = {_PARAMETERS:,} of {_BITS} bits, 100 rounds; CPU seconds of one core")
    print(f"{'n':>7} {'server is':12}{'degree':>7}{'client s':>10}{'server s':>10}"
          f"{'up MB':>8}{'down kB':>9}{'all up GB':>11}")  # fmt: skip
    for n, seed in _PREDICTED:
        for server in ("semi_honest", "malicious"):
            try:
                found = predicted(n, seed, server)
            except secureagg.ParamsError as error:
                print(f"{n:7,} {server:12}{error}")
                continue
            print(
                f"{n:7,} {server:12}{found.degree:7}{found.client:10.3f}{found.at_server:10.2f}"
                f"{found.up / 1e6:8.2f}{found.down / 1e3:9.1f}{found.all_up / 1e9:11.2f}"
            )


def paper(rows: Mapping[str, Row], n: int = 10_000, slices: int = 8, invited: int = 1000) -> None:
    """Prints what decides a round of n clients: bandwidth, memory, slices, cohorts, Flower."""
    for server in ("semi_honest", "malicious"):
        for line in paper_lines(rows, server, n, slices, invited):
            print(line)
        print()


def paper_lines(
    rows: Mapping[str, Row], server: str, n: int, slices: int, invited: int
) -> Iterator[str]:
    """The lines of `paper` for one kind of server."""
    whole = predicted(n, bytes(32), server)
    boxes = whole.cost.upload_bytes["share_keys"]
    yield f"{n:,} clients, {_PARAMETERS:,} parameters of {_BITS} bits, server {server}"
    yield (f"  client {whole.client:.2f} CPU s, {whole.up / 1e6:.2f} MB up, {whole.down / 1e3:.0f}"
           f" kB down beside a model of {4 * _PARAMETERS / 1e6:.0f} MB")  # fmt: skip
    yield (f"  server {whole.at_server:.0f} CPU s; memory {8 * _PARAMETERS / 1e6:.0f} MB of sum,"
           f" {boxes / 1e6:.0f} MB of boxed shares, {boxes / n / 1e3:.0f} kB a client")  # fmt: skip
    yield (f"  {whole.all_up / 1e9:.1f} GB arrive: {seconds(whole.all_up, 1):.0f} s at 1 Gb/s,"
           f" {seconds(whole.all_up, 10):.0f} s at 10 Gb/s; models {4 * _PARAMETERS * n / 1e9:.0f}"
           " GB leave")  # fmt: skip
    part = predicted(n, bytes(32), server, _PARAMETERS // slices)
    keys = predicted(n, bytes(32), server, 1)
    vectors = part.cost.upload_bytes["mask_input"]
    yield (f"  a slice of {slices}: {vectors / 1e9:.1f} GB arrive, {seconds(vectors, 1):.0f} s at"
           f" 1 Gb/s; {part.at_server - keys.at_server:.0f} CPU s of masks and sums,"
           f" {_PARAMETERS // slices * 8 / 1e6:.0f} MB of sum; keys and shares, once:"
           f" {keys.at_server:.0f} CPU s")  # fmt: skip
    cohort = predicted(invited, bytes(32), server)
    yield (f"  cohorts of {invited:,}: {cohort.all_up / 1e9:.1f} GB and {cohort.at_server:.1f} CPU"
           f" s of the server a round, every client in one round of {n // invited}")  # fmt: skip
    if rows:
        row = max(rows.values(), key=lambda row: row["nodes"])
        stages = len(whole.cost.upload_bytes)
        yield (f"  Flower, as with {row['nodes']} nodes: {row['link_cpu'] * stages * n / 3600:.1f}"
               f" core hours a round for {stages * n:,} messages (100 nodes:"
               f" {row['link_cpu'] * stages * 100:.0f} s); {row['link_idle_cpu'] * n:.0f} cores"
               " for nodes that wait")  # fmt: skip


def seconds(size: float, gigabits: float) -> float:
    """Seconds that bytes take on a line."""
    return 8 * size / (gigabits * 1e9)


def main() -> None:
    """Measures or predicts what is asked for, or prints what is there."""
    parser = options_of(__doc__)
    parser.add_argument("--nodes", type=integer_from(2), nargs="+", default=[2, 8, 16])
    parser.add_argument("--rounds", type=integer_from(1), default=3)
    parser.add_argument(
        "--features", type=integer_from(1), default=21, help="2 x (features + 1) parameters"
    )
    parser.add_argument("--timeout", type=float, default=400.0, help="seconds per stage")
    parser.add_argument("--predict", action="store_true", help="predict larger runs, run nothing")
    parser.add_argument("--paper", action="store_true", help="of 10,000 clients: what decides")
    given, results = parser.parse_args(), Results("deployment")
    if given.predict:
        predict()
        return
    if given.paper:
        paper(results.rows())
        return
    if given.show:
        print(table(results.rows()))
        return
    for nodes in given.nodes:
        row = measure(nodes, given.rounds, given.features, given.timeout)
        results.add(f"{nodes} nodes, {row['parameters']} parameters", row)
        print(text(row))


if __name__ == "__main__":
    main()
