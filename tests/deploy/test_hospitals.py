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
    run = Organisations(federation, job, hearts, HOSPITALS, 60.0, holdable=["hungarian"])
    bad = nonsense(run)
    run.start()
    start_stranger(run)
    # Round 0: everybody. While one is waited for, whoever can write to the socket of another, which
    # has shared its keys, sends it what no server should.
    run.hold("hungarian", "share_keys", "before")
    run_id = run.run()
    assert run.wait_until_held("hungarian") == (0, 0)
    run.wait_for("va", 0, "share_keys")
    said = [told(run.socket("va"), request) for request, _ in bad]
    # Round 1: a hospital's process dies and is started again: asked again, it answers the same.
    go_on_and_stop(run, "share_keys", 1)
    federation.kill("client-hungarian")
    run.start_client("hungarian")
    # Round 2: its whole machine dies with its masked vector on the way.
    go_on_and_stop(run, "mask_input", 2)
    run.kill("hungarian")
    run.finish(run_id)

    rounds = [(0, 0), (1, 0), (2, 0)]
    expected = reference(job, hearts, {2: {"mask_input": [1]}}, monkeypatch)
    assert expected.survivors == [(0, 1, 2, 3), (0, 1, 2, 3), (0, 2, 3)]
    assert run.released() == dict(zip(rounds, expected.survivors, strict=True))
    assert run.summary["model_sha256"] == expected.model
    assert run.charged() == {name: rounds for name in HOSPITALS}
    assert {name: run.charges(name) for name in HOSPITALS} == run.charged()
    assert "is refused: it does not hold the key that the roster lists for 0" in run.server_log()
    log = federation.log("client-va")
    for reason, (_, words) in zip(said, bad, strict=True):
        assert words in reason
        assert f": {reason}" in log


def go_on_and_stop(run: Organisations, stage: str, round_index: int) -> None:
    """Has Hungarian go on to where the answer of a later stage is on disk, and has not left."""
    run.let_go("hungarian")
    run.hold("hungarian", stage, "after", round_index)
    assert run.wait_until_held("hungarian") == (round_index, 0)


def start_stranger(run: Organisations) -> None:
    """A SuperNode that Flower lets in, with a process behind it that is nobody in the roster."""
    path = run.federation.socket_path("stranger")
    run.federation.register(["stranger"])
    run.federation.start("stranger", [sys.executable, "-m", "tests.deploy.stranger", path])
    run.federation.start_node("stranger", {"socket": str(path)})


def nonsense(run: Organisations) -> list[tuple[bytes, str]]:
    """What no server should send member 3 once it has shared its keys, and why it is refused."""
    plan = read_deployment(run.folder / "va" / "plan.toml")
    session = plan.session_id(plan.read_roster())
    weak = Step(session, "mask_input", 0, 0, weakened(run), bytes(4))
    return [
        (struct.pack("<IQ", 40, 2**31), "takes at most"),  # two gigabytes are announced
        (struct.pack("<IQ", 2**31, 0), "takes at most"),
        (b"\0", "1 of 12 bytes, then the end"),
        (framed(Step(bytes(32), "advertise_keys", 0, 0, b"")), "session: got 00000000"),
        (framed(Step(session, "advertise_keys", 0, 0, b"")), "a later one than (0, 0)"),
        (framed(Step(session, "share_keys", 0, 1, b"x")), "the attempt that this client began"),
        (framed(weak), "belongs to another context (parameters"),
    ]


def framed(step: Step) -> bytes:
    return wire.frame(*step.parts())


def weakened(run: Organisations) -> bytes:
    """The shares that a server hands member 3 under parameters that need two survivors."""
    plan = read_deployment(run.folder / "server" / "plan.toml")
    built, _, data = plan.job.build(own_data(plan, 4, run.folder / "server"))
    params = resolve(built, data).params
    assert params is not None
    params = dataclasses.replace(
        bind(params, plan.session_id(plan.read_roster())), min_survivors=2, dropout=0.5
    )
    nobody = dict.fromkeys(range(4), b"")
    server = secureagg.ServerSession(params, nobody)
    clients = {
        i: secureagg.ClientSession(params, i, None, nobody, once=secureagg.MemoryOnce())
        for i in range(4)
    }
    for i, client in clients.items():
        server.receive(i, client.start())
    for i, bundles in server.close_stage().items():
        shares = clients[i].receive(bundles)
        assert shares is not None
        server.receive(i, shares)
    return server.close_stage()[3]


def told(path: Path, request: bytes) -> str:
    """Why a member's process refuses a request."""
    reply = wire.read_reply(*wire.parts(exchange(path, request), ANY), ANY)
    assert reply.status == wire.Status.REFUSED
    return reply.reason


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
