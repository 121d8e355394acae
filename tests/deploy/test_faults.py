"""Members and servers that die, stall, return or are cut off, as real processes.

Every run is seeded, so that its model must be, bit for bit, that of a run in one process in which
the same clients were gone; what the ledgers must hold follows from who was gone when.
"""

import contextlib
import dataclasses
import functools
import os
import signal
import uuid
from collections.abc import Iterator

import pytest

from fl.datasets import FederatedDataset
from tests.deploy.conftest import JOB
from tests.deploy.federation import Federation, Namespace, namespaces_are_allowed
from tests.deploy.organisations import Organisations
from tests.deploy.reference import reference

pytestmark = [pytest.mark.deploy, pytest.mark.slow]
NAMES = ("north", "east", "south", "west")
EVERYBODY = (0, 1, 2, 3)
KILLED_AT = ("advertise_keys", "share_keys", "mask_input", "unmask")
SECONDS = 60.0  # of a stage: a stage takes about twelve on two busy cores


def test_a_member_is_killed_in_each_stage_in_turn_and_comes_back(
    federation: Federation, patients: FederatedDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = dataclasses.replace(JOB, rounds=2 * len(KILLED_AT) + 1)  # it may be out for a round
    run = Organisations(federation, job, patients, NAMES, SECONDS)
    run.start()
    run_id = run.run()
    killed: dict[int, str] = {}
    for stage in KILLED_AT:
        index = run.wait_for_next("east", stage, after=max(killed, default=-1))
        run.kill("east")  # before its SuperNode could fetch the answer, let alone pass it on
        killed[index] = stage
        run.start_client("east")
        run.start_node("east")
    run.wait_for_next("east", "unmask", after=max(killed))
    run.finish(run_id, 1200.0)

    # Where Flower had not let it back in when the round began, it was gone from the start.
    asked = run.asked("east")
    gone = {index: {"advertise_keys": [1]} for index in range(job.rounds) if index not in asked}
    gone |= {index: {stage: [1]} for index, stage in killed.items()}
    expected = reference(job, patients, gone, monkeypatch)
    rounds = [(index, 0) for index in range(job.rounds)]
    assert run.released() == dict(zip(rounds, expected.survivors, strict=True))
    assert run.summary["model_sha256"] == expected.model
    # The server charges whoever might have masked; who was gone before was not asked.
    masking = [
        (i, 0) for i in sorted(asked) if killed.get(i) not in ("advertise_keys", "share_keys")
    ]
    assert run.charged() == {name: masking if name == "east" else rounds for name in NAMES}
    for name in ("north", "south", "west"):
        assert run.charges(name) == rounds
    # Where it died at mask_input its vector never left, charged or not by then.
    unheard = [(i, 0) for i, stage in killed.items() if stage == "mask_input"]
    assert set(masking) - set(unheard) <= set(run.charges("east")) <= set(masking)


def test_an_answer_after_the_barrier_is_discarded(
    federation: Federation, patients: FederatedDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = dataclasses.replace(JOB, rounds=2)
    run = Organisations(federation, job, patients, NAMES, SECONDS)
    run.start()
    run_id = run.run()
    run.wait_for("west", 0, "share_keys")
    run.signal("west", signal.SIGSTOP)
    federation.wait(lambda: run.stage_is_over(0, "mask_input"), "the barrier", 120.0)
    run.signal("west", signal.SIGCONT)
    run.finish(run_id)

    expected = reference(job, patients, {0: {"mask_input": [3]}}, monkeypatch)
    assert run.released() == {(0, 0): (0, 1, 2), (1, 0): EVERYBODY}
    assert run.summary["model_sha256"] == expected.model
    # It masked when it went on, and charged itself for it: what it sent could have been in time.
    assert run.answered("west", 0, "mask_input")
    assert run.charges("west") == [(0, 0), (1, 0)]
    assert run.charged()["west"] == [(0, 0), (1, 0)]


def test_a_member_that_the_network_cuts_off_is_gone_until_it_is_back(
    network: "Namespace", patients: FederatedDataset, federation: Federation,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    job = dataclasses.replace(JOB, rounds=2)
    run = Organisations(federation, job, patients, NAMES, SECONDS)
    run.start(prefixes={"south": network.prefix})
    run_id = run.run()
    run.wait_for("south", 0, "share_keys")
    federation.wait(lambda: run.stage_is_over(0, "share_keys"), "its shares to arrive", 120.0)
    network.cut()
    federation.wait(lambda: run.stage_is_over(0, "mask_input"), "the barrier", 120.0)
    network.mend()
    run.finish(run_id)

    expected = reference(job, patients, {0: {"mask_input": [2]}}, monkeypatch)
    assert run.released() == {(0, 0): (0, 1, 3), (1, 0): EVERYBODY}
    assert run.summary["model_sha256"] == expected.model
    assert run.charged()["south"] == [(0, 0), (1, 0)]
    assert run.charges("south") in ([(0, 0), (1, 0)], [(1, 0)])  # it may have masked unheard


@pytest.fixture
def network(federation: Federation) -> Iterator[Namespace]:
    """A namespace of the network that is joined to the SuperLink by one cable."""
    if not namespaces_are_allowed():
        pytest.skip("this user may not make network namespaces (ip netns add)")
    with Namespace(f"fl{uuid.uuid4().hex[:8]}") as found:
        federation.listen_at(found.host)
        yield found


@pytest.mark.parametrize("killed", ["serverapp", "superlink"])
def test_a_server_that_dies_between_stages_resumes_and_the_round_is_charged_twice(
    federation: Federation, patients: FederatedDataset, killed: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    job = dataclasses.replace(JOB, rounds=2)
    run = Organisations(federation, job, patients, NAMES, SECONDS)
    run.start()
    run.run()
    federation.wait(lambda: run.stage_is_over(0, "mask_input"), "every masked vector", 240.0)
    if killed == "serverapp":
        federation.kill_command("flwr-serverapp")
    else:
        federation.kill("superlink")
        federation.kill_command("flwr-serverapp")
        federation.start_superlink()
    run.finish(run.run())

    expected = reference(job, patients, {}, monkeypatch)
    attempts = [(0, 0), (0, 1), (1, 0)]
    assert run.summary["model_sha256"] == expected.model
    assert run.charged() == {name: attempts for name in NAMES}
    assert {name: run.charges(name) for name in NAMES} == {name: attempts for name in NAMES}
    ended = run.ended()
    assert (0, 0) not in ended
    assert (0, 1) in ended
    assert (1, 0) in ended
    assert "attempt 0 was caught at" in run.server_log()


def test_too_few_survivors_release_nothing_and_real_ledgers_count_the_attempt(
    federation: Federation, patients: FederatedDataset
) -> None:
    job = dataclasses.replace(JOB, rounds=2, seeded_secrets=False)
    run = Organisations(federation, job, patients, NAMES, SECONDS)
    run.start()
    run_id = run.run()
    for name in ("north", "east"):
        run.wait_for(name, 0, "share_keys")
        federation.wait(lambda: run.stage_is_over(0, "share_keys"), "the shares to arrive", 120.0)
        run.kill(name)
    for name in ("north", "east"):
        run.start_client(name)
        run.start_node(name)
    run.finish(run_id)

    assert run.released() == {(1, 0): EVERYBODY}
    assert run.ended()[0, 0][1] == 0
    assert "2 clients, needs 3; nothing is released" in run.server_log()
    rounds = [(0, 0), (1, 0)]
    assert run.charged() == {name: rounds for name in NAMES}
    assert run.charges("south") == run.charges("west") == rounds
    for name in ("north", "east"):  # killed before they masked, or unheard
        assert run.charges(name) in (rounds, rounds[1:])
    server = next(r for r in run.summary["privacy"]["rows"] if r["adversary"] == "server")
    assert server["epsilon"]["worst_case"]["upper"] <= job.epsilon
    assert 0 < server["epsilon"]["realised"]["upper"] < server["epsilon"]["worst_case"]["upper"]


def test_a_node_that_flower_does_not_know_is_not_let_in(federation: Federation) -> None:
    federation.start_superlink()
    federation.make_node_key("nobody")
    federation.start_node("nobody", {"socket": "none"})
    federation.start_node("plain", {"socket": "none"}, plain=True)
    for name in ("nobody", "plain"):
        said = functools.partial(federation.says, f"node-{name}", "Exit Code")
        federation.wait(said, f"{name} to give up", 180.0)
    assert "Activated node_id" not in federation.log("superlink")


def test_nothing_is_left_running(federation: Federation, patients: FederatedDataset) -> None:
    run = Organisations(federation, JOB, patients, NAMES, SECONDS)
    run.start(["north"])
    assert len(federation.pids()) >= 5
    federation.stop()
    assert federation.pids() == []
    with contextlib.suppress(ProcessLookupError):
        os.kill(federation.pid("superlink"), 0)
        raise AssertionError("the SuperLink is still there")
