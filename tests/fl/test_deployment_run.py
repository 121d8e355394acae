"""From plan files to a model: organisations' processes and the ServerApp, over sockets."""

import contextlib
import json
import logging
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import fl
from fl import datasets
from fl.__main__ import main
from fl.engines.client import serve_client
from fl.engines.deployment import read_deployment
from fl.engines.journal import Journal, Open
from fl.engines.roster import collect, make_identity, read_identity
from fl.engines.server import run_server
from fl.engines.signings import record_signing
from fl.errors import PlanError
from fl.tree import sha256

flower: Any = pytest.importorskip("fl.engines.flower")
client_app: Any = pytest.importorskip("fl.engines.client_app")

SIZES = (9, 6, 5)
PLAN = """
session = "three of us"
roster = "roster.json"
state = "state{who}"
timeout = 60
records = {sizes}
classes = 2
{own}
[job]
dataset = "ours"
rounds = 2
algorithm = "fedsgd"
server = "{server}"
graph = "{graph}"
corrupt = 0.0
dropout = 0.0
mechanism = "skellam"
unit = "record"
record_sampling = 0.5
against = "server"
epsilon = 8.0
delta = 1e-5
clip_norm = 1.0
seeded_secrets = true
"""


def ours(sizes: Sequence[int] = SIZES) -> fl.FederatedDataset:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(sum(sizes), 4)).astype(np.float32)
    fields = {"x": x, "y": (x[:, 0] > 0).astype(np.int32)}
    ids = np.repeat(np.arange(len(sizes)), sizes)
    return fl.FederatedDataset.from_arrays(fields, ids, test=fields, num_classes=2, name="ours")


def write_plans(folder: Path, sizes: Sequence[int], **words: str) -> None:
    """Keys, plans and data of the members, and the server's; no roster."""
    data, shared = ours(sizes), {"sizes": list(sizes), **words}
    (folder / "server.toml").write_text(PLAN.format(who="server", own="", **shared))
    put(folder / "dataserver", {k: v[:0] for k, v in data.fields.items()}, data.test)
    for i in range(len(sizes)):
        make_identity(folder / f"{i}.key")
        own = f'member = {i}\nidentity = "{i}.key"\n'
        (folder / f"{i}.toml").write_text(PLAN.format(who=i, own=own, **shared))
        put(folder / f"data{i}", data.client(i), None)


def write(folder: Path) -> None:
    """Three plans with keys and a roster that all signed, the server's, and data apart."""
    write_plans(folder, SIZES, server="malicious", graph="complete")
    keys = [read_identity(folder / f"{i}.key").public_key.hex() for i in range(3)]
    collect([(f"org{i}", key) for i, key in enumerate(keys)]).write(folder / "roster.json")
    for i in range(3):
        plan = read_deployment(folder / f"{i}.toml")
        roster = plan.read_unsigned()
        session = plan.session_id(roster)
        record_signing(plan.key_file, plan.run_name, roster.digest(session))
        roster.signed(plan.read_identity(roster), session).write(plan.roster)


def put(folder: Path, rows: Any, test: Any) -> None:
    folder.mkdir()
    count = len(rows["y"])
    own = fl.FederatedDataset.from_arrays(rows, np.zeros(count, np.int64), num_clients=1, test=test)
    datasets.to_npz(own, folder / "own.npz")


class SocketGrid:
    """Flower's Grid, whose nodes hand every message to the process at their socket."""

    def __init__(self, folder: Path, count: int = 3) -> None:
        self.folder, self.count = folder, count
        self.types: list[str] = []
        self.replies: dict[str, Any] = {}

    def get_node_ids(self) -> list[int]:
        return [10 + i for i in range(self.count)]

    def push_messages(self, messages: Any) -> list[str]:
        for number, message in enumerate(messages):
            message.metadata.__dict__["_message_id"] = f"{message.metadata.message_type}{number}"
            self.types.append(message.metadata.message_type)
            path = self.folder / f"{message.metadata.dst_node_id - 10}.sock"
            context: Any = SimpleNamespace(node_config={"socket": str(path)})
            self.replies[message.metadata.message_id] = client_app.app(message, context)
        return [message.metadata.message_id for message in messages]

    def pull_messages(self, message_ids: list[str]) -> list[Any]:
        return [self.replies.pop(one) for one in message_ids]


@contextlib.contextmanager
def served(folder: Path, count: int = 3) -> Iterator[None]:
    """All organisations answer."""
    stop, threads = threading.Event(), []
    for i in range(count):
        plan = read_deployment(folder / f"{i}.toml")
        keywords = {"data_dir": str(folder / f"data{i}"), "stop": stop}
        threads.append(
            threading.Thread(
                target=serve_client, args=(plan, folder / f"{i}.sock"), kwargs=keywords
            )
        )
        threads[-1].start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("_task_id", "_run_id", "_node_id"):  # set by Flower's own processes
        monkeypatch.setattr(f"flwr.supercore.task_identity.TaskIdentity.{name}", 1)
    return tmp_path


@pytest.fixture
def folder(bare: Path) -> Path:
    write(bare)
    return bare


def test_plan_files_give_the_model_of_the_run_in_one_process(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "stateserver").mkdir(mode=0o755)
    config = {"plan": str(folder / "server.toml"), "data-dir": str(folder / "dataserver")}
    grid = SocketGrid(folder)
    with served(folder):
        flower.main(grid, SimpleNamespace(run_config=config))
        asked = len(grid.types)
        flower.main(grid, SimpleNamespace(run_config=config))  # over already: nothing is asked
    assert len(grid.types) == asked == 3 * (1 + 2 * 5)
    log = (folder / "stateserver" / "server.log").read_text()
    assert log.count(": round 1: released") == 1
    assert "was caught" not in log
    assert (folder / "stateserver" / "run").stat().st_mode & 0o777 == 0o700
    assert f"new journal: {folder / 'state1' / 'journal.sqlite'}" in caplog.text
    assert "no protection against the server: not private: secrets derive from" in caplog.text
    assert len(list(folder.glob("1.key.*"))) == 2  # its signature, the trace of its journal
    summary = json.loads((folder / "stateserver" / "run" / "summary.json").read_text())
    plan, model, data = read_deployment(folder / "server.toml").job.build(ours())
    alone = fl.train(plan, model, data)
    assert summary["model_sha256"] == sha256(alone.params)
    assert summary["accuracy"] == alone.metrics["accuracy"]
    assert summary["cost_by_stage"]["mask_input"]["client_seconds"] is None
    with contextlib.closing(sqlite3.connect(folder / "state1" / "journal.sqlite")) as db:
        assert db.execute("select round, attempt from charges").fetchall() == [(0, 0), (1, 0)]


@pytest.mark.parametrize("error", [None, OSError("the SuperLink is gone")])
def test_the_servers_log_is_its_owners_alone_and_ends_with_the_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch, error: Exception | None
) -> None:
    ours, said = logging.getLogger("fl"), logging.getLogger("fl.server")
    before, opened = list(ours.handlers), list[logging.Handler]()

    def run(*_: object, **__: object) -> None:
        opened.extend(handler for handler in ours.handlers if handler not in before)
        said.info("in the run")
        if error is not None:
            raise error

    monkeypatch.setattr(flower, "run_server", run)
    config = {"plan": str(folder / "server.toml")}
    with pytest.raises(OSError, match="is gone") if error else contextlib.nullcontext():
        flower.main(SocketGrid(folder), SimpleNamespace(run_config=config))
    said.warning("after it")
    left = [handler for handler in ours.handlers if handler not in before]
    closed = [h.stream is None for h in opened if isinstance(h, logging.FileHandler)]
    for handler in opened:
        ours.removeHandler(handler)
        handler.close()
    assert left == []
    assert closed == [True]
    state = folder / "stateserver"
    assert state.stat().st_mode & 0o777 == 0o700
    (line,) = (state / "server.log").read_text().splitlines()
    assert line.endswith("INFO fl.server: in the run")


def test_the_server_takes_no_roster_that_somebody_has_not_signed(folder: Path) -> None:
    path = folder / "roster.json"
    rows = json.loads(path.read_text())
    del rows["members"][1]["signature"]
    path.write_text(json.dumps(rows))
    with pytest.raises(PlanError, match="no signature by org1"):
        run_server(read_deployment(folder / "server.toml"), SocketGrid(folder))  # type: ignore[arg-type]


def test_the_server_keeps_no_example_of_public_data(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handed: list[fl.FederatedDataset] = []

    def begun(plan: object, model: object, data: fl.FederatedDataset, **_: object) -> "Ending":
        handed.append(data)
        return Ending(None)

    monkeypatch.setattr("fl.engines.server.own_data", lambda *_: ours())
    monkeypatch.setattr("fl.engines.server.start_server", begun)
    monkeypatch.setattr("fl.engines.server.conclude", lambda *_: {})
    run_server(read_deployment(folder / "server.toml"), SocketGrid(folder))  # type: ignore[arg-type]
    (kept,) = handed
    assert kept.sizes.tolist() == list(SIZES)
    assert not any(field.any() for field in kept.fields.values())
    assert kept.test is not None
    assert kept.test["x"].any()


class Ending:
    """A run that ends in a certain way."""

    def __init__(self, error: Exception | None) -> None:
        self.error, self.closed = error, False
        self.store, self.stopped_early = self, "all releases are spent"
        self.rounds = [
            SimpleNamespace(index=0, reason="round 0: 1 clients, needs 3; nothing is released"),
            SimpleNamespace(index=1, reason=None),
        ]

    def step(self) -> Any:
        if self.error is not None:
            raise self.error
        return self.rounds.pop(0) if self.rounds else None

    def close(self) -> None:
        self.closed = True


def test_how_a_run_ends_is_logged_and_its_store_let_go(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    plan, data = read_deployment(folder / "server.toml"), str(folder / "dataserver")
    monkeypatch.setattr("fl.engines.server.conclude", lambda training, out: {"out": out})
    for error in (OSError("the SuperLink is gone"), None):
        ending = Ending(error)
        monkeypatch.setattr("fl.engines.server.start_server", lambda *_, to=ending, **__: to)
        if error is not None:
            with pytest.raises(OSError, match="the SuperLink is gone"):
                run_server(plan, SocketGrid(folder), data_dir=data)  # type: ignore[arg-type]
            assert ending.closed  # another process may go on with the run
    with caplog.at_level("INFO", "fl.server"):
        summary = run_server(plan, SocketGrid(folder), data_dir=data)  # type: ignore[arg-type]
    assert summary == {"out": folder / "stateserver" / "run"}
    assert [record.getMessage() for record in caplog.records] == [
        "round 0: 1 clients, needs 3; nothing is released",
        "round 1: released",
        "stopped early: all releases are spent",
    ]


@pytest.mark.slow
def test_openings_of_all_give_a_sparse_graph_and_the_model_of_the_run_in_one_process(
    bare: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = (9, 6, 5, 7)
    write_plans(bare, sizes, server="semi_honest", graph="sparse")
    monkeypatch.chdir(bare)

    def run(*words: str) -> str:
        assert main(words) == 0
        return capsys.readouterr().out

    committed = [run("roster", "commit", "--plan", f"{i}.toml").strip() for i in range(4)]
    run("roster", "collect", "roster.json", *(f"org{i}={text}" for i, text in enumerate(committed)))
    for action in ("sign", "reveal"):
        for i in range(4):
            run("roster", action, "--plan", f"{i}.toml")
    config = {"plan": str(bare / "server.toml"), "data-dir": str(bare / "dataserver")}
    with served(bare, 4):
        flower.main(SocketGrid(bare, 4), SimpleNamespace(run_config=config))
    summary = json.loads((bare / "stateserver" / "run" / "summary.json").read_text())
    assert summary["details"]["graph"]["degree"] == 2  # of the 3 others
    plan, model, data = read_deployment("server.toml").job.build(ours(sizes))
    assert summary["model_sha256"] == sha256(fl.train(plan, model, data).params)


KILLED = """
import os, sys
from pathlib import Path
from fl.engines.journal import Journal, Open
journal = Journal(Path(sys.argv[1]), bytes(32), 0)
with journal.transaction():
    journal.charge(0, 0)
    journal.keep(Open(0, 0, b"state", b"asked", b"answer"))
    assert journal.once(b"mask 0")
with journal.transaction():
    journal.charge(1, 0)
    journal.keep(Open(1, 0, b"later", b"asked", b"answer"))
    assert journal.once(b"mask 1")
    os._exit(9)
"""


def test_a_journal_holds_all_of_a_request_or_nothing_when_its_process_is_killed(
    tmp_path: Path,
) -> None:
    path = tmp_path / "journal.sqlite"
    ended = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    assert ended.returncode == 9
    journal = Journal(path, bytes(32), 0)
    with journal.transaction():
        assert journal.charges() == [(0, 0)]
        assert journal.open_attempt() == Open(0, 0, b"state", b"asked", b"answer")
        assert not journal.once(b"mask 0")
        assert journal.once(b"mask 1")
    pragmas = [journal._db.execute(f"pragma {name}").fetchone()[0]
               for name in ("synchronous", "secure_delete", "journal_mode")]  # fmt: skip
    journal.close()
    assert pragmas == [3, 1, "delete"]  # on disk before the answer leaves, and no key left behind
