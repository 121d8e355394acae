"""A whole run across organisations on this machine: plans, roster, processes, what is left."""

import contextlib
import json
import re
import shutil
import signal
import sqlite3
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from fl import datasets
from fl.datasets import FederatedDataset
from fl.engines.appdir import write_app
from fl.engines.deployment import Deployment
from fl.engines.roster import make_identity
from fl.job import Job
from fl.secure import STAGES
from tests.deploy.federation import Federation
from tests.fl.command_line import output

_LOOK_SECONDS = 30.0  # between questions to Flower, each of which is a process that takes seconds


class Organisations:
    """Members with their own folders, a server, and Flower between them.

    Args:
        federation: not started.
        job: what is trained.
        data: what the members have; each gets its own rows alone, the server the test set.
        names: of the members.
        timeouts: stage -> seconds, or one number for all.
        holdable: whose own processes `hold` can stop: `tests.deploy.held`.
    """

    def __init__(
        self,
        federation: Federation,
        job: Job,
        data: FederatedDataset,
        names: Sequence[str],
        timeouts: Mapping[str, float] | float,
        holdable: Sequence[str] = (),
    ) -> None:
        self.federation, self.names, self.holdable = federation, tuple(names), tuple(holdable)
        self._sparse = job.graph == "sparse"
        self.folder = federation.folder
        per_stage = dict.fromkeys(STAGES, timeouts) if isinstance(timeouts, float) else timeouts
        plan = Deployment(
            session=f"test-{federation.mark}", job=job, roster=Path("roster.json"),
            state=Path("state"), timeouts=per_stage, records=tuple(data.sizes.tolist()),
            classes=data.num_classes,
        )  # fmt: skip
        self.app = self.folder / "app"
        write_app(plan, self.app, timeout=60.0)
        self._write_plans(per_stage)
        self._write_data(data)
        self.sign()

    def _write_plans(self, timeouts: Mapping[str, float]) -> None:
        text = (self.app / "plan.toml").read_text()
        head, _, job = text.partition("[job]")
        self._keys: dict[str, str] = {}
        rows = "".join(f"{stage} = {seconds}\n" for stage, seconds in timeouts.items())
        for party in (*self.names, "server"):
            own = self.folder / party
            own.mkdir()
            mine = ""
            if party != "server":
                mine = f'member = {self.names.index(party)}\nidentity = "identity.key"\n'
                self._keys[party] = make_identity(own / "identity.key").hex()
            (own / "plan.toml").write_text(f"{mine}{head}[timeouts]\n{rows}\n[job]{job}")

    def _write_data(self, data: FederatedDataset) -> None:
        for i, name in enumerate(self.names):
            fields = data.client(i)
            ids = np.zeros(int(data.sizes[i]), np.int64)
            own = FederatedDataset.from_arrays(fields, ids, num_clients=1)
            datasets.to_npz(own, self.folder / name / "own.npz")
        nothing = {key: rows[:0] for key, rows in data.fields.items()}
        ids = np.zeros(0, np.int64)
        test = FederatedDataset.from_arrays(nothing, ids, num_clients=1, test=data.test)
        datasets.to_npz(test, self.folder / "server" / "own.npz")

    def sign(self) -> None:
        """Every member signs, and reveals where the graph is sparse; everybody gets the roster."""
        keys = self._keys
        if self._sparse:
            keys = {name: self._roster("commit", name).strip() for name in self.names}
        roster = self.folder / "roster.json"
        output("roster", "collect", str(roster), *(f"{name}={keys[name]}" for name in self.names))
        for action in ("sign", "reveal") if self._sparse else ("sign",):
            self._hand_out(roster)
            for name in self.names:
                self._roster(action, name)
            copies = [str(self.folder / name / "roster.json") for name in self.names]
            output("roster", "merge", str(roster), *copies)
        self._hand_out(roster)

    def _roster(self, action: str, name: str) -> str:
        return output("roster", action, "--plan", str(self.folder / name / "plan.toml"))

    def _hand_out(self, roster: Path) -> None:
        for party in (*self.names, "server"):
            shutil.copy(roster, self.folder / party / "roster.json")

    def start(
        self,
        nodes: Sequence[str] | None = None,
        *,
        prefixes: Mapping[str, Sequence[str]] = MappingProxyType({}),
    ) -> None:
        """Starts SuperLink, SuperNodes and the members' processes, of all or some members.

        Args:
            nodes: the members; None for all.
            prefixes: words before the command of a member's SuperNode.
        """
        started = self.names if nodes is None else nodes
        for name in started:
            self.start_client(name)  # compiles while Flower starts
        self.federation.start_superlink()
        self.federation.register(started)
        for name in started:
            self.start_node(name, prefix=prefixes.get(name, ()))
        for name in started:
            self.federation.wait(self.socket(name).exists, f"{name} to listen")

    def start_client(self, name: str) -> None:
        """Starts a member's own process."""
        own = self.folder / name
        command = ["tests.deploy.held"] if name in self.holdable else ["fl", "client"]
        self.federation.start(
            f"client-{name}",
            [
                sys.executable, "-m", *command, "--plan", own / "plan.toml",
                "--data-dir", own, "--socket", self.socket(name),
            ],
        )  # fmt: skip

    def start_node(self, name: str, *, prefix: Sequence[str] = ()) -> None:
        """Starts a member's SuperNode."""
        self.federation.start_node(name, {"socket": str(self.socket(name))}, prefix=prefix)

    def socket(self, name: str) -> Path:
        """Where a member's process listens."""
        return self.federation.socket_path(name)

    def kill(self, name: str) -> None:
        """kill -9 of a member's process and of its SuperNode with all that it started."""
        self.federation.kill(f"client-{name}")
        self.federation.kill(f"node-{name}")

    def signal(self, name: str, number: signal.Signals) -> None:
        """Sends a signal to a member's own process."""
        self.federation.signal(f"client-{name}", number)

    def run(self) -> str:
        """Starts the run, or starts it again; returns Flower's id of it."""
        server = self.folder / "server"
        config = {"plan": str(server / "plan.toml"), "data-dir": str(server)}
        return self.federation.run(self.app, config)

    def hold(self, name: str, stage: str, moment: str, round_index: int | None = None) -> None:
        """Has a member's own process stop at its next request of a stage, or at that of one round.

        Args:
            name: of the member, which is holdable.
            stage: of the protocol.
            moment: "before" it looks at the request, or "after" all is on disk and before a byte
                of the answer leaves.
            round_index: None for any.
        """
        path, new = self.folder / name / "hold", self.folder / name / "hold.new"
        new.write_text(f"{stage} {moment} {'' if round_index is None else round_index}")
        new.rename(path)

    def wait_until_held(self, name: str, seconds: float = 600.0) -> tuple[int, int]:
        """Waits until a member's process has stopped; returns round and attempt."""
        held = self.folder / name / "held"
        self.federation.wait(held.exists, f"{name} to stop where it was told to", seconds)
        index, attempt = held.read_text().split()
        return int(index), int(attempt)

    def let_go(self, name: str) -> None:
        """Ends `hold`: the process goes on, or it will when it is started again."""
        (self.folder / name / "held").unlink()

    def wait_for(self, name: str, round_index: int, stage: str, seconds: float = 240.0) -> None:
        """Waits until a member's process says that it has answered a stage."""
        said = f"answered: round {round_index}, attempt 0, {stage}"
        what = f"{name} to answer {stage} of round {round_index}"
        self.federation.wait(lambda: self.federation.says(f"client-{name}", said), what, seconds)

    def answered_rounds(self, name: str, stage: str) -> set[int]:
        """The rounds in which a member's process has answered a stage."""
        said = rf"answered: round (\d+), attempt 0, {stage}$"
        found = re.findall(said, self.federation.log(f"client-{name}"), re.MULTILINE)
        return {int(number) for number in found}

    def asked(self, name: str) -> set[int]:
        """The rounds that a member took part in, were it only by its keys."""
        return self.answered_rounds(name, "advertise_keys")

    def stage_is_over(self, round_index: int, stage: str, attempt: int = 0) -> bool:
        """Whether the server's store says that a stage's barrier is behind it."""
        query = "select round, attempt, stage from stages where seconds is not null"
        with contextlib.suppress(sqlite3.OperationalError):  # there is no store yet
            return (round_index, attempt, stage) in self.server_rows(query)
        return False

    def finish(self, run_id: str, seconds: float = 600.0) -> None:
        """Waits until the run has ended well."""
        summary = self.folder / "server" / "state" / "run" / "summary.json"
        looked = time.monotonic()

        def over() -> bool:
            nonlocal looked
            if summary.exists():
                return True
            if time.monotonic() < looked + _LOOK_SECONDS:
                return False
            looked = time.monotonic()
            return self.federation.status(run_id).startswith("finished")

        self.federation.wait(over, "the run to end", seconds)
        assert summary.exists(), self.federation.tails(40)

    @property
    def summary(self) -> dict[str, Any]:
        """The run's summary.json."""
        path = self.folder / "server" / "state" / "run" / "summary.json"
        found: dict[str, Any] = json.loads(path.read_text())
        return found

    def server_rows(self, query: str) -> list[tuple[Any, ...]]:
        """Rows of the server's store."""
        return rows(self.folder / "server" / "state" / "run" / "run.sqlite", query)

    def server_log(self) -> str:
        """What the ServerApp has said."""
        path = self.folder / "server" / "state" / "server.log"
        return path.read_text() if path.exists() else ""

    def released(self) -> dict[tuple[int, int], tuple[int, ...]]:
        """(round, attempt) -> whose updates may have been read, by the server's ledger."""
        found = self.server_rows("select round, attempt, survivors from releases order by 1, 2")
        return {(row[0], row[1]): tuple(json.loads(row[2])) for row in found}

    def ended(self) -> dict[tuple[int, int], tuple[str, int]]:
        """(round, attempt) -> status and number of survivors of every attempt that ended."""
        found = self.server_rows("select round, attempt, status, survivors from rounds")
        return {(row[0], row[1]): (row[2], row[3]) for row in found}

    def charged(self) -> dict[str, list[tuple[int, int]]]:
        """The server's ledger: (round, attempt) by member."""
        query = "select client, round, attempt from client_charges order by 1, 2, 3"
        found: dict[str, list[tuple[int, int]]] = {name: [] for name in self.names}
        for client, round_index, attempt in self.server_rows(query):
            found[self.names[client]].append((round_index, attempt))
        return found

    def charges(self, name: str) -> list[tuple[int, int]]:
        """A member's own ledger: (round, attempt) of every masked vector that may have left."""
        return self._journal(name, "select round, attempt from charges order by 1, 2")

    def kept(self, name: str) -> list[tuple[int, int]]:
        """(round, attempt) of what a member keeps between rounds, and of what it put aside."""
        return self._journal(name, "select round, attempt from kept order by pending")

    def _journal(self, name: str, query: str) -> list[tuple[int, int]]:
        self.federation.kill_if_running(f"client-{name}")  # it holds its journal
        return rows(self.folder / name / "state" / "journal.sqlite", query)


def rows(path: Path, query: str) -> list[tuple[Any, ...]]:
    """Rows of a SQLite file; what a killed process had not committed is undone first."""
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True)) as database:
        return database.execute(query).fetchall()
