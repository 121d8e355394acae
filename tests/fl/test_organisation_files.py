"""What an organisation's process keeps on disk, whom it lets near, and what it says of it."""

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from fl.engines.client import open_organisation
from fl.engines.journal import Journal
from fl.engines.wire import Status, Step
from fl.errors import StoreError
from fl.secure import ClientSession, ServerSession
from secureagg._packing import unpack_bits
from tests.fl import helpers
from tests.fl.leading import (
    MODEL,
    PLAN,
    TERMS,
    ask,
    finish,
    lead,
    refused,
    reopened,
)
from tests.fl.organisations import FIVE, SESSION, World, key_of


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    found = World(PLAN, FIVE, tmp_path)
    yield found
    found.close()


def test_keys_of_a_finished_attempt_are_in_no_file(world: World) -> None:
    master = lead(world, "mask_input")
    kept = world.journals[master.member].open_attempt()
    assert kept is not None
    secret = kept.state[2 + 32 + 4 + 1 :][:32]  # behind frame, client and kind of state
    files = world.folder / f"member{master.member}"
    assert any(secret in path.read_bytes() for path in files.iterdir())
    finish(master, "mask_input")
    assert not any(secret in path.read_bytes() for path in files.iterdir())


def test_a_journal_is_of_one_member(world: World) -> None:
    world.journals[0].close()
    with pytest.raises(StoreError, match="got that of member 0; takes that of member 1"):
        open_organisation(
            PLAN, helpers.MODEL, FIVE, session=SESSION, roster=world.roster, member=1,
            identity=world.keys[1], state=world.folder / "member0",
        )  # fmt: skip
    reopened(world.folder)


@pytest.mark.parametrize("mode", [0o770, 0o1777])
def test_whoever_else_may_write_beside_a_journal_could_put_back_an_older_one(
    world: World, mode: int
) -> None:
    world.journals[0].close()
    (world.folder / "member0").chmod(mode)
    with pytest.raises(StoreError, match="a directory that its owner alone may write to"):
        reopened(world.folder)


def test_a_lost_journal_is_not_begun_again(tmp_path: Path) -> None:
    path, trace = tmp_path / "journal.sqlite", tmp_path / "key.trace"
    first = Journal(path, SESSION, 0, trace)
    assert first.is_new
    with pytest.raises(StoreError, match="a new one in a session that has begun"):
        Journal(tmp_path / "elsewhere.sqlite", SESSION, 0, trace)  # beside the one in use
    first.close()
    again = Journal(path, SESSION, 0, trace)
    assert not again.is_new
    again.close()
    for lost in (path.unlink, lambda: path.write_bytes(b"")):
        lost()
        for _ in range(2):  # a refusal leaves nothing that the next start would take for it
            with pytest.raises(
                StoreError, match=r"takes the journal .* \(.*key.trace is its trace"
            ):
                Journal(path, SESSION, 0, trace)


def test_a_journal_that_leaves_no_trace_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="where a trace of the journal can be left"):
        Journal(tmp_path / "journal.sqlite", SESSION, 0, tmp_path / "nowhere" / "trace")


def test_what_is_logged_as_charged_is_on_disk(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    master = lead(world, "mask_input")
    member, message = master.member, master.outbound[master.member]
    with caplog.at_level(logging.INFO, "fl.organisation"):
        refused(world, member, master.step("mask_input", message[:-1], MODEL))
        assert "charged" not in caplog.text
        finish(master, "mask_input")
    assert "charged: 1 of the 4 releases that this client grants" in caplog.text


def test_what_is_refused_trains_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a program could time training on models of its choice, for no charge."""

    def train(*args: object) -> None:
        raise AssertionError("trained")

    early = lead(world, "share_keys")
    keys = early.step("share_keys", early.outbound[early.member])
    assert ask(world, early.member, keys).status == Status.ANSWER
    with monkeypatch.context() as patch:
        patch.setattr("fl.site.Site.train", train)
        again = early.step("mask_input", keys.message, MODEL)
        assert "one of an earlier stage" in refused(world, early.member, again)

    master = lead(world, "mask_input", (0, 1))
    member, message = master.member, master.outbound[master.member]
    nobody = bytearray(message)
    nobody[38] = 0  # the set that shared
    with monkeypatch.context() as patch:
        patch.setattr("fl.site.Site.train", train)
        for bad in (b"junk", message[:-1], bytes(nobody)):
            assert refused(world, member, master.step("mask_input", bad, MODEL)) != "failed"
        assert refused(world, member, master.step("mask_input", message, MODEL)) == "failed"
    finish(master, "mask_input")


SECRETS = ("secret", "enc_private_key", "mask_private_key", "self_mask_seed")


def secrets_of(world: World, member: int) -> set[bytes]:
    """What a member's open session keeps to itself."""
    kept = world.journals[member].open_attempt()
    assert kept is not None
    session = ClientSession.from_bytes(
        kept.state, TERMS.params_of(0, 0), member, None, TERMS.roster_of(TERMS.members(0)),
        once=lambda key: True,
    )  # fmt: skip
    me = getattr(session._state, "me", session._state)
    found = {getattr(me, name) for name in SECRETS if hasattr(me, name)}
    return found | set(getattr(session._state, "opening_keys", {}).values())


def test_nothing_secret_passes_over_the_socket(world: World) -> None:
    members, plain = TERMS.members(0), dict[int, NDArray[np.uint64]]()

    def tap(index: int, client: int, segments: Mapping[str, NDArray[np.uint64]]) -> None:
        (plain[client],) = segments.values()

    secrets = {rows.tobytes() for i in members for rows in FIVE.client(i).values()}
    secrets |= {bytes([i + 1]) * 32 for i in members}
    assert all(key_of(i).public_key == world.roster[i] for i in members)  # made of these seeds
    said, session = b"", ServerSession(TERMS.params_of(0, 0), TERMS.roster_of(members))
    outbound = dict.fromkeys(members, b"")
    for stage in TERMS.params.stages:
        for member, message in outbound.items():
            world.members[member]._site._tap = tap
            broadcast = MODEL if stage == "mask_input" else b""
            reply = ask(world, member, Step(SESSION, stage, 0, 0, message, broadcast))
            session.receive(member, reply.message)
            secrets |= secrets_of(world, member)
            said += reply.to_bytes()
            if stage == "mask_input":
                ((length, bits),) = TERMS.encoding.segments.values()
                packed = reply.bulk[-((length * bits + 7) // 8) :]
                assert np.mean(unpack_bits(packed, length, bits) == plain[member]) < 0.1
        outbound = session.close_stage()
    assert session.result.survivors == tuple(members)
    assert len(secrets) >= len(members) * (3 + len(SECRETS) + len(members) - 1)
    assert not [secret for secret in secrets if secret in said]
