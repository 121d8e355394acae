"""Members and servers that die, stall, return or are cut off, as real processes.

Every run is seeded, so that its model must be, bit for bit, that of a run in one process in which
the same clients were gone; what the ledgers must hold follows from who was gone when.
"""

import contextlib
import dataclasses
import functools
import os
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
# Where a member is killed: all but its masked vector, which test_hospitals.py has, is on disk.
KILLED_AT = {
    "advertise_keys": "after", "share_keys": "after", "mask_input": "before", "unmask": "after",
}  # fmt: skip
SECONDS = 60.0  # of a stage: a stage takes about twelve on two busy cores


def test_a_member_is_killed_in_each_stage_in_turn_and_comes_back(
    federation: Federation, patients: FederatedDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = dataclasses.replace(JOB, rounds=2 * len(KILLED_AT) + 1)  # it may be out for a round
    run = Organisations(federation, job, patients, NAMES, SECONDS, holdable=["east"])
    run.start()
    run_id = run.run()
    killed: dict[str, int] = {}
    for stage, moment in KILLED_AT.items():
        run.hold("east", stage, moment)
        killed[stage], _ = run.wait_until_held("east")
        run.kill("east")
        run.let_go("east")
        run.start_client("east")
        run.start_node("east")
    run.finish(run_id, 1200.0)

    # Where Flower had not let it back in when the round began, it was gone from the start.
    asked = run.asked("east")
    assert max(asked) > max(killed.values())  # it came back after the last time too
    gone = {index: {"advertise_keys": [1]} for index in range(job.rounds) if index not in asked}
    gone |= {index: {stage: [1]} for stage, index in killed.items()}
    expected = reference(job, patients, gone, monkeypatch)
    rounds = [(index, 0) for index in range(job.rounds)]
    assert run.released() == dict(zip(rounds, expected.survivors, strict=True))
    assert run.summary["model_sha256"] == expected.model
    # The server charges whoever might have masked; who was gone before was not asked.
    early = {killed["advertise_keys"], killed["share_keys"]}
    may_mask = [(index, 0) for index in sorted(asked - early)]
    assert run.charged() == {name: may_mask if name == "east" else rounds for name in NAMES}
    for name in ("north", "south", "west"):
        assert run.charges(name) == rounds
    # It knows that it died before it masked.
    unmasked = (killed["mask_input"], 0)
    assert run.charges("east") == [place for place in may_mask if place != unmasked]


def test_the_smallest_sparse_graph_survives_a_kill(
    federation: Federation, patients: FederatedDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of three members each masks with both others; of four, with two of three."""
    job = dataclasses.replace(JOB, graph="sparse", server="semi_honest", corrupt=0.0, rounds=2)
    run = Organisations(federation, job, patients, NAMES, SECONDS, holdable=["east"])
    run.start()
    run.hold("east", "mask_input", "before", 1)
    run_id = run.run()
    assert run.wait_until_held("east") == (1, 0)
    run.kill("east")
    run.finish(run_id)

    rounds = [(0, 0), (1, 0)]
    expected = reference(job, patients, {1: {"mask_input": [1]}}, monkeypatch)
    assert expected.survivors == [(0, 1, 2, 3), (0, 2, 3)]
    assert run.released() == dict(zip(rounds, expected.survivors, strict=True))
    assert run.summary["model_sha256"] == expected.model
    assert run.summary["details"]["graph"]["degree"] == 2
    assert "sparse graph: at most R times" in federation.log("client-north")
    assert run.charged() == {name: rounds for name in NAMES}
    assert run.charges("east") == [(0, 0)]  # it died before it masked
    for name in ("north", "south", "west"):
        assert run.charges(name) == rounds


def test_what_clients_keep_survives_a_kill_and_moves_on_with_releases_alone(
    federation: Federation, patients: FederatedDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = dataclasses.replace(
        JOB, algorithm="scaffold", unit="client", record_sampling=None, local_epochs=2,
        control_scale=0.2, rounds=4,
    )  # fmt: skip
    run = Organisations(federation, job, patients, NAMES, SECONDS, holdable=["east"])
    run.start()
    run.hold("east", "mask_input", "after", 1)
    run_id = run.run()
    # Round 1: its process dies with vector and state on disk, and started again sends the vector.
    assert run.wait_until_held("east") == (1, 0)
    federation.kill("client-east")
    run.let_go("east")
    run.hold("east", "mask_input", "after", 2)
    run.start_client("east")
    # Round 2: it dies there again, and is back too late: that state was of no released sum.
    assert run.wait_until_held("east") == (2, 0)
    federation.kill("client-east")
    run.let_go("east")
    federation.wait(lambda: run.stage_is_over(2, "mask_input"), "the barrier", 120.0)
    run.start_client("east")
    run.finish(run_id)

    expected = reference(job, patients, {2: {"mask_input": [1]}}, monkeypatch)
    rounds = [(index, 0) for index in range(4)]
    assert expected.survivors == [EVERYBODY, EVERYBODY, (0, 2, 3), EVERYBODY]
    assert run.released() == dict(zip(rounds, expected.survivors, strict=True))
    assert run.summary["model_sha256"] == expected.model
    assert run.charged() == {name: rounds for name in NAMES}
    assert {name: run.charges(name) for name in NAMES} == run.charged()
    # Nobody has been told of the last release; before it, east's was that of round 1.
    kept = {name: run.kept(name) for name in NAMES}
    assert kept == {name: [(1 if name == "east" else 2, 0), (3, 0)] for name in NAMES}


def test_an_answer_after_the_barrier_is_discarded(
    federation: Federation, patients: FederatedDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = dataclasses.replace(JOB, rounds=2)
    run = Organisations(federation, job, patients, NAMES, SECONDS, holdable=["west"])
    run.start()
    run.hold("west", "mask_input", "before")
    run_id = run.run()
    assert run.wait_until_held("west") == (0, 0)
    federation.wait(lambda: run.stage_is_over(0, "mask_input"), "the barrier", 120.0)
    run.let_go("west")
    run.wait_for("west", 0, "mask_input")
    run.finish(run_id)

    expected = reference(job, patients, {0: {"mask_input": [3]}}, monkeypatch)
    assert run.released() == {(0, 0): (0, 1, 2), (1, 0): EVERYBODY}
    assert run.summary["model_sha256"] == expected.model
    # It masked when it went on, and charged itself for it: what it sent could have been in time.
    rounds = [(0, 0), (1, 0)]
    assert run.charged() == {name: rounds for name in NAMES}
    assert {name: run.charges(name) for name in NAMES} == run.charged()


def test_a_member_that_the_network_cuts_off_is_gone_until_it_is_back(
    network: "Namespace", patients: FederatedDataset, federation: Federation,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    job = dataclasses.replace(JOB, rounds=2)
    run = Organisations(federation, job, patients, NAMES, SECONDS, holdable=["north", "south"])
    run.start(prefixes={"south": network.prefix})
    run.hold("south", "mask_input", "before")
    run.hold("north", "unmask", "before")  # so that south is back before the next round begins
    run_id = run.run()
    assert run.wait_until_held("south") == (0, 0)
    network.cut()
    run.let_go("south")  # it masks, and nobody hears of it
    federation.wait(lambda: run.stage_is_over(0, "mask_input"), "the barrier", 120.0)
    assert run.wait_until_held("north") == (0, 0)
    network.mend()
    federation.wait(lambda: federation.nodes_online() == len(NAMES), "south to be back", SECONDS)
    run.let_go("north")
    run.finish(run_id)

    expected = reference(job, patients, {0: {"mask_input": [2]}}, monkeypatch)
    assert run.released() == {(0, 0): (0, 1, 3), (1, 0): EVERYBODY}
    assert run.summary["model_sha256"] == expected.model
    rounds = [(0, 0), (1, 0)]
    assert run.charged() == {name: rounds for name in NAMES}
    assert {name: run.charges(name) for name in NAMES} == run.charged()


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
    run = Organisations(federation, job, patients, NAMES, SECONDS, holdable=["north"])
    run.start()
    run.hold("north", "unmask", "before")
    run.run()
    assert run.wait_until_held("north") == (0, 0)
    if killed == "serverapp":
        federation.kill_command("flwr-serverapp")
    else:
        federation.kill("superlink")
        federation.kill_command("flwr-serverapp")
        federation.start_superlink()
    run.let_go("north")
    run.finish(run.run())

    expected = reference(job, patients, {}, monkeypatch)
    attempts = [(0, 0), (0, 1), (1, 0)]
    assert run.summary["model_sha256"] == expected.model
    assert run.charged() == {name: attempts for name in NAMES}
    assert {name: run.charges(name) for name in NAMES} == {name: attempts for name in NAMES}
    # The sum of the first attempt could have been read: on record as a release, though no round.
    assert run.released() == dict.fromkeys(attempts, EVERYBODY)
    assert set(run.ended()) == {(0, 1), (1, 0)}
    assert "round 0, attempt 0 was caught at unmask" in run.server_log()


def test_too_few_survivors_release_nothing_and_real_ledgers_count_the_attempt(
    federation: Federation, patients: FederatedDataset
) -> None:
    job = dataclasses.replace(JOB, rounds=2, seeded_secrets=False)
    lost = ("north", "east")
    run = Organisations(federation, job, patients, NAMES, SECONDS, holdable=lost)
    run.start()
    for name in lost:
        run.hold(name, "mask_input", "before")
    run_id = run.run()
    asking: set[int] = set()
    for name in lost:
        assert run.wait_until_held(name) == (0, 0)
        asking |= federation.apps(name)
        federation.kill(f"client-{name}")
        run.let_go(name)
    assert len(asking) >= len(lost)
    federation.wait(lambda: run.stage_is_over(0, "mask_input"), "the barrier", 120.0)
    # An app asks until its own time is up, which began a little later than the server's, and would
    # have an answer from a process that is back.
    federation.wait(lambda: not asking & set(federation.pids()), "the apps' end", 120.0)
    for name in lost:
        run.start_client(name)
    run.finish(run_id)

    assert run.released() == {(1, 0): EVERYBODY}
    assert run.ended()[0, 0][1] == 0
    assert "2 clients, needs 3; nothing is released" in run.server_log()
    rounds = [(0, 0), (1, 0)]
    assert run.charged() == {name: rounds for name in NAMES}
    charges = {name: run.charges(name) for name in NAMES}
    assert charges == {name: rounds[1:] if name in lost else rounds for name in NAMES}
    server = next(r for r in run.summary["privacy"]["rows"] if r["adversary"] == "server")
    assert server["epsilon"]["worst_case"]["upper"] <= job.epsilon
    assert 0 < server["epsilon"]["realised"]["upper"] < server["epsilon"]["worst_case"]["upper"]


def test_a_node_that_flower_does_not_know_is_not_let_in(federation: Federation) -> None:
    federation.start_superlink()
    federation.register(["known"])
    federation.make_node_key("nobody")
    federation.start_node("nobody", {"socket": "none"})
    federation.start_node("plain", {"socket": "none"}, plain=True)
    # One is told why; the other speaks no TLS, is never heard, and tries again for ever.
    for name, words in (("nobody", "Failed to activate SuperNode"), ("plain", "attempt failed")):
        said = functools.partial(federation.says, f"node-{name}", words)
        federation.wait(said, f"{name} to be turned away", 180.0)
    federation.start_node("known", {"socket": "none"})
    activated = functools.partial(federation.says, "superlink", "Activated node_id")
    federation.wait(activated, "a node that is registered to be let in", 180.0)
    assert federation.log("superlink").count("Activated node_id") == 1


def test_nothing_is_left_running(federation: Federation, patients: FederatedDataset) -> None:
    run = Organisations(federation, JOB, patients, NAMES, SECONDS)
    run.start(["north"])
    run.run()
    federation.wait(lambda: bool(run.server_log()), "the ServerApp to look for the others", 240.0)
    assert len(federation.pids()) >= 6  # SuperLink, SuperNode, what starts apps of each, ServerApp
    federation.stop()
    assert federation.pids() == []
    with contextlib.suppress(ProcessLookupError):
        os.kill(federation.pid("superlink"), 0)
        raise AssertionError("the SuperLink is still there")
