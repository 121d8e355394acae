"""Runs over several processes: the same model bit for bit, states at home, faults."""

import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import pytest

import fl
from fl import workers
from fl.__main__ import main
from fl.group import Group
from fl.lanes import LANES, LaneSums
from fl.train import start
from tests.fl import helpers

ROOT = Path(__file__).parents[2]
ENV = {
    **os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": workers.SINGLE_THREAD,
}  # fmt: skip
LEAVING = {"advertise_keys": 0.05, "share_keys": 0.05, "mask_input": 0.1, "unmask": 0.05}


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XLA_FLAGS", workers.SINGLE_THREAD)


class Threads:
    """Groups over queues, so that N processes can be N threads of a test."""

    def __init__(self, size: int) -> None:
        self._up: list[queue.Queue[bytes]] = [queue.Queue() for _ in range(size)]
        self._down: list[queue.Queue[bytes]] = [queue.Queue() for _ in range(size)]
        self.groups = [Group(k, size, partial(self._exchange, k)) for k in range(size)]
        self.failures: list[BaseException] = []

    def _exchange(self, index: int, payload: bytes) -> list[bytes]:
        if index > 0:
            self._up[index].put(payload)
            return [self._down[index].get(timeout=60)]
        parts = [payload, *(box.get(timeout=60) for box in self._up[1:])]
        for box in self._down[1:]:
            box.put(payload)
        return parts

    def run(self, server: Callable[[Group], Any], worker: Callable[[Group], None]) -> Any:
        def guarded(group: Group) -> None:
            try:
                worker(group)
            except fl.FlError as error:
                self.failures.append(error)

        threads = [threading.Thread(target=guarded, args=(group,)) for group in self.groups[1:]]
        for thread in threads:
            thread.start()
        try:
            return server(self.groups[0])
        finally:
            for thread in threads:
                thread.join(timeout=60)


def trained(
    plan: fl.Plan, model: fl.Model, data: fl.FederatedDataset, size: int, **settings: Any
) -> fl.Run:
    """Runs a plan on `size` processes."""
    run: fl.Run = Threads(size).run(
        lambda group: fl.train(plan, model, data, group=group, **settings),
        lambda group: fl.serve(plan, model, data, group=group,
                               execution=settings.get("execution", fl.Execution())),
    )  # fmt: skip
    return run


def uneven_data() -> fl.FederatedDataset:
    rng = np.random.default_rng(5)
    ids = np.repeat(np.arange(12), [1, 9, 9, 0, 1, 9, 1, 1, 0, 1, 4, 9])
    y = rng.integers(0, 3, len(ids)).astype(np.int32)
    fields = {"x": (rng.normal(size=(len(ids), 4)) + y[:, None]).astype(np.float32), "y": y}
    return fl.FederatedDataset.from_arrays(
        fields, ids, test=fields, num_clients=12, num_classes=3, name="uneven"
    )


SCAFFOLD = fl.scaffold(
    helpers.MODEL.loss, client_lr=0.3, server_optimizer=optax.sgd(1.0), batch_size=3,
    local_epochs=2, participation=0.5,
)  # fmt: skip
CASES: dict[str, dict[str, Any]] = {
    "plain": {"aggregation": fl.Plain(), "privacy": fl.NotPrivate(weights="examples")},
    "ideal": {"aggregation": helpers.ideal(simulate_dropout=LEAVING)},
    "secure": {"aggregation": helpers.secure(simulate_dropout=LEAVING)},
    "malicious": {"aggregation": helpers.secure(server="malicious", simulate_dropout=LEAVING)},
    "states": {
        "aggregation": helpers.ideal(), "algorithm": SCAFFOLD, "cohort": fl.cohort.cyclic(6),
    },
    "states plain": {
        "aggregation": fl.Plain(), "algorithm": SCAFFOLD, "cohort": fl.cohort.cyclic(6),
        "privacy": fl.NotPrivate(),
    },
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_one_two_and_four_processes_give_the_same_bits(case: str) -> None:
    data = uneven_data()
    plan = helpers.plan(rounds=4, seeded_secrets=True, **CASES[case])
    way = fl.Execution("scan", 3)
    one, *others = (trained(plan, helpers.MODEL, data, n, execution=way) for n in (1, 2, 4))
    assert any(np.asarray(leaf).any() for leaf in jax.tree.leaves(one.params))
    for other in others:
        assert helpers.params_bytes(other.params) == helpers.params_bytes(one.params)
        assert other.metrics == one.metrics
        assert [cost.upload_bytes for cost in other.cost] == [c.upload_bytes for c in one.cost]


@pytest.mark.parametrize("sizes", [(2, 1), (1, 4)])
def test_a_run_resumes_on_another_number_of_processes(
    tmp_path: Path, sizes: tuple[int, int]
) -> None:
    data = uneven_data()
    plan = helpers.plan(rounds=5, seeded_secrets=True, **CASES["states"])
    whole = fl.train(plan, helpers.MODEL, data)

    def begin(group: Group) -> None:
        training = start(plan, helpers.MODEL, data, out=tmp_path, group=group)
        for _ in range(3):
            training.step()
        training.close()

    def go_on(group: Group) -> fl.Round:
        *_, last = fl.rounds(plan, helpers.MODEL, data, out=tmp_path, resume=True, group=group)
        return last

    def worker(group: Group) -> None:
        fl.serve(plan, helpers.MODEL, data, group=group)

    Threads(sizes[0]).run(begin, worker)
    last = Threads(sizes[1]).run(go_on, worker)
    assert helpers.params_bytes(last.params) == helpers.params_bytes(whole.params)


def test_a_run_resumes_only_with_the_strategy_and_chunk_that_began_it(tmp_path: Path) -> None:
    data, plan = helpers.small_data(), helpers.plan(seeded_secrets=True)
    training = start(plan, helpers.MODEL, data, out=tmp_path, execution=fl.Execution("scan", 4))
    training.step()
    training.close()
    for other in (fl.Execution("scan", 5), fl.Execution("vmap", 4)):
        with pytest.raises(fl.StoreError, match="execution"):
            fl.rounds(plan, helpers.MODEL, data, out=tmp_path, resume=True, execution=other)


def test_an_aborted_round_aborts_everywhere_and_the_run_goes_on() -> None:
    data = uneven_data()
    plan = helpers.plan(
        rounds=4, seeded_secrets=True,
        aggregation=helpers.secure(simulate_dropout={"mask_input": 0.3}, beyond=True),
    )  # fmt: skip
    threads = Threads(2)
    rounds = threads.run(
        lambda group: list(fl.rounds(plan, helpers.MODEL, data, group=group)),
        lambda group: fl.serve(plan, helpers.MODEL, data, group=group),
    )
    assert {r.reason is None for r in rounds} == {True, False}
    alone = list(fl.rounds(plan, helpers.MODEL, data))
    assert [r.survivors for r in rounds] == [r.survivors for r in alone]
    assert helpers.params_bytes(rounds[-1].params) == helpers.params_bytes(alone[-1].params)


def test_a_process_that_runs_something_else_is_named() -> None:
    data = helpers.small_data()
    threads = Threads(3)

    def worker(group: Group) -> None:
        plan = helpers.plan(rounds=3 if group.index == 1 else 4)
        fl.serve(plan, helpers.MODEL, data, group=group)

    with pytest.raises(fl.WorkerError, match="worker 2: runs another plan"):
        threads.run(
            lambda group: fl.train(helpers.plan(), helpers.MODEL, data, group=group), worker
        )
    assert [type(error) for error in threads.failures] == [fl.WorkerError] * 2


def test_float_means_take_a_number_of_processes_that_divides_the_lanes() -> None:
    data = helpers.small_data()
    plan = helpers.plan(aggregation=fl.Plain(), privacy=fl.NotPrivate())
    with pytest.raises(fl.PlanError, match=f"a divisor of {LANES}"):
        fl.train(plan, helpers.MODEL, data, group=Group(0, 3, lambda payload: [payload]))


def test_processes_must_be_single_threaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2})
    plan = helpers.plan(aggregation=fl.Plain(), privacy=fl.NotPrivate())
    with pytest.raises(fl.PlanError, match="3 threads"):
        fl.train(
            plan, helpers.MODEL, helpers.small_data(), group=Group(0, 2, lambda payload: [payload])
        )


def test_lane_sums_do_not_depend_on_how_lanes_are_shared() -> None:
    rng = np.random.default_rng(0)
    vectors = {i: (rng.normal(size=50) * 10.0 ** rng.integers(-6, 6)).astype(np.float32)
               for i in range(40)}  # fmt: skip
    means = []
    for size in (1, 2, 4, 8):
        parts = [LaneSums() for _ in range(size)]
        for client, vector in vectors.items():
            parts[client % size].add(client, vector, 1 + client % 3)
        for part in parts[1:]:
            parts[0].merge(part.to_bytes())
        mean = parts[0].mean()
        assert mean is not None
        means.append(mean.tobytes())
    assert len(set(means)) == 1
    exact = sum((1 + i % 3) * v.astype(np.float64) for i, v in vectors.items())
    weight = sum(1 + i % 3 for i in vectors)
    np.testing.assert_allclose(np.frombuffer(means[0]), exact / weight, rtol=1e-9)


def test_lane_sums_begin_every_round_afresh() -> None:
    lanes = LaneSums()
    for client in (0, 1, 8):
        lanes.add(client, np.full(3, 5.0, np.float32), 2)
    first = lanes.mean()
    lanes.clear()
    assert lanes.mean() is None
    lanes.add(8, np.array([1.0, 2.0, 3.0], np.float32), 1)
    lanes.add(16, np.array([2.0, 3.0, 4.0], np.float32), 3)
    second = lanes.mean()
    assert first is not None
    assert second is not None
    assert first.tolist() == [5.0, 5.0, 5.0]  # the first round's mean is its own
    assert second.tolist() == [1.75, 2.75, 3.75]


def failing(group: Group) -> None:
    """What a process does that dies at once; at module level, since processes are spawned."""
    raise SystemExit(7 * group.index)


def test_a_dead_process_ends_the_run_with_its_name() -> None:
    with (
        workers.local(2, failing) as group,
        pytest.raises(fl.WorkerError, match="worker 1: ended with exit code 7"),
    ):
        group.exchange(b"anything")


def echo(group: Group) -> None:
    """Answers with what it got, its place and its cores."""
    told = group.tell(b"")
    cores = len(os.sched_getaffinity(0))
    group.exchange(json.dumps([told.decode(), group.index, group.size, cores]).encode())


def test_spawned_processes_are_pinned_and_exchange_bytes() -> None:
    before = os.sched_getaffinity(0)
    with workers.local(2, echo) as group:
        assert len(os.sched_getaffinity(0)) == 1
        group.tell(b"hello")
        _, answer = group.exchange(b"")
    assert os.sched_getaffinity(0) == before
    assert json.loads(answer) == ["hello", 1, 2, 1]


def flags(out: Path, *more: str) -> list[str]:
    return [
        "--preset", "digits-demo", "--clients", "30", "--rounds", "8", "--eval-every", "8",
        "--seeded-secrets", "--out", str(out), *more,
    ]  # fmt: skip


def command(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "fl", *words], cwd=ROOT, env=ENV, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def finished(process: subprocess.Popen[str]) -> str:
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    return stdout


def model_hash(out: Path) -> str:
    found: str = json.loads((out / "summary.json").read_text())["model_sha256"]
    return found


@pytest.mark.slow
def test_the_command_line_on_processes_and_hosts_gives_one_model(tmp_path: Path) -> None:
    hashes = set()
    for processes in ("1", "2", "4"):
        out = tmp_path / processes
        finished(command("train", *flags(out, "--processes", processes)))
        hashes.add(model_hash(out))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    joined = ("--coordinator", address, "--hosts", "2", "--host")
    out = tmp_path / "hosts"
    other = command("train", *flags(out, *joined, "1"))
    finished(command("train", *flags(out, *joined, "0")))
    finished(other)
    hashes.add(model_hash(out))
    assert len(hashes) == 1


@pytest.mark.slow
def test_killed_on_two_processes_and_resumed_on_one_is_the_uninterrupted_model(
    tmp_path: Path,
) -> None:
    rounds = ("--rounds", "60")
    finished(command("train", *flags(tmp_path / "whole", *rounds)))
    out = tmp_path / "killed"
    process = command("train", *flags(out, "--processes", "2", *rounds))
    for _ in range(600):
        time.sleep(0.1)
        wal = out / "run.sqlite-wal"
        if wal.exists() and wal.stat().st_size > 2**18:
            break
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (out / "summary.json").exists()
    finished(command("resume", str(out), "--processes", "1"))
    assert model_hash(out) == model_hash(tmp_path / "whole")


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["--hosts", "2"], "hosts"), (["--coordinator", "127.0.0.1:1"], "hosts"),
        (["--coordinator", "127.0.0.1:1", "--hosts", "2", "--host", "2"], "hosts"),
        (["--coordinator", "a:1", "--hosts", "2", "--host", "0", "--processes", "2"], "processes"),
        (["--processes", "0"], "processes"), (["--processes", "2", "--seeds", "2"], "processes"),
        (["--strategy", "quick"], "strategy"), (["--chunk", "0"], "chunk"),
    ],
)  # fmt: skip
def test_what_processes_and_hosts_cannot_be_is_refused(
    words: list[str], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "--preset", "digits-demo", *words]) == 2
    assert f"error: {name}: got" in capsys.readouterr().err
