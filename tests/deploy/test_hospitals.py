"""Four hospitals over TLS: the model of one process, through strangers, nonsense and a kill -9."""

import dataclasses
import socket
import struct
import sys
from pathlib import Path

import pytest

import secureagg
from fl.datasets import HOSPITALS, FederatedDataset
from fl.engines import wire
from fl.engines.deployment import read_deployment
from fl.engines.owndata import own_data
from fl.engines.wire import Step
from fl.plan import resolve
from fl.secure import bind
from tests.deploy.conftest import JOB
from tests.deploy.federation import Federation
from tests.deploy.organisations import Organisations
from tests.deploy.reference import reference

pytestmark = pytest.mark.deploy
ANY = wire.Limits(2**20, 2**20)


def test_hospitals_train_the_model_of_one_process(
    federation: Federation, hearts: FederatedDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = dataclasses.replace(JOB, rounds=3)
    run = Organisations(federation, job, hearts, HOSPITALS, 60.0)
    run.start()
    start_stranger(run)
    run_id = run.run()
    # Round 0: everybody. While it goes on, whoever can write to a member's socket sends nonsense.
    run.wait_for("va", 0, "share_keys")
    said = nonsense(run, "va")
    # Round 1: a hospital's process dies and is started again: asked again, it answers the same.
    run.wait_for("hungarian", 1, "share_keys")
    federation.kill("client-hungarian")
    run.start_client("hungarian")
    # Round 2: its whole machine dies with its masked vector on the way.
    run.wait_for("hungarian", 2, "mask_input")
    run.kill("hungarian")
    run.finish(run_id)

    rounds = [(0, 0), (1, 0), (2, 0)]
    expected = reference(job, hearts, {2: {"mask_input": [1]}}, monkeypatch)
    assert expected.survivors == [(0, 1, 2, 3), (0, 1, 2, 3), (0, 2, 3)]
    assert run.released() == dict(zip(rounds, expected.survivors, strict=True))
    assert run.summary["model_sha256"] == expected.model
    assert run.charged() == {name: rounds for name in HOSPITALS}
    for name in ("cleveland", "switzerland", "va"):
        assert run.charges(name) == rounds
    # Its vector of round 2 never left, whether or not the charge was on disk by then.
    assert run.charges("hungarian") in (rounds, rounds[:2])
    assert "is refused: it does not hold the key that the roster lists for 0" in run.server_log()
    for words in said:
        assert words in federation.log("client-va")


def start_stranger(run: Organisations) -> None:
    """A SuperNode that Flower lets in, with a process behind it that is nobody in the roster."""
    path = run.federation.socket_path("stranger")
    run.federation.register(["stranger"])
    run.federation.start("stranger", [sys.executable, "-m", "tests.deploy.stranger", path])
    run.federation.start_node("stranger", {"socket": str(path)})


def nonsense(run: Organisations, name: str) -> list[str]:
    """Sends a member what no server should; returns what its log must say of it."""
    path = run.socket(name)
    plan = read_deployment(run.folder / name / "plan.toml")
    session = plan.session_id(plan.read_roster())
    requests = [
        struct.pack("<IQ", 40, 2**31),  # two gigabytes are announced
        struct.pack("<IQ", 2**31, 0),
        wire.frame(*Step(bytes(32), "advertise_keys", 0, 0, b"").parts()),  # another session
        wire.frame(*Step(session, "advertise_keys", 0, 0, b"").parts()),  # played again
        wire.frame(*Step(session, "share_keys", 0, 1, b"x").parts()),  # of another attempt
        wire.frame(
            *Step(session, "share_keys", 0, 0, weakened(run)).parts()
        ),  # of weaker parameters
        b"\0",
    ]
    answers = [
        wire.read_reply(*wire.parts(exchange(path, request), ANY), ANY) for request in requests
    ]
    assert [answer.status for answer in answers] == [wire.Status.REFUSED] * len(requests)
    return [answer.reason for answer in answers]


def weakened(run: Organisations) -> bytes:
    """What the server would send member 3 in round 0 under parameters that need two survivors."""
    plan = read_deployment(run.folder / "server" / "plan.toml")
    built, _, data = plan.job.build(own_data(plan, 4, run.folder / "server"))
    params = resolve(built, data).params
    assert params is not None
    params = dataclasses.replace(
        bind(params, plan.session_id(plan.read_roster())), min_survivors=2, dropout=0.5
    )
    nobody = dict.fromkeys(range(4), b"")
    server = secureagg.ServerSession(params, nobody)
    for i in range(4):
        client = secureagg.ClientSession(params, i, None, nobody, once=secureagg.MemoryOnce())
        server.receive(i, client.start())
    return server.close_stage()[3]


def exchange(path: Path, request: bytes) -> bytes:
    """Sends bytes to a member's process, says that no more come, and returns the answer."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(60)
        connection.connect(str(path))
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        found = b""
        while piece := connection.recv(2**16):
            found += piece
        return found
