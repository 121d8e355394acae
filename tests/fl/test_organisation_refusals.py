"""What an organisation's process answers to a program that asks for anything.

The program here is what the server may ship in place of the byte pipe. Every refusal leaves the
journal as it was, byte for byte, and the round goes on for those who follow the protocol.
"""

import dataclasses
import logging
import random
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fl
from fl.engines import wire
from fl.engines.organisation import limits_of
from fl.engines.terms import faults
from fl.engines.wire import Hello, Status, Step
from fl.errors import PlanError, StoreError
from fl.secure import STAGES, ClientSession, ServerSession
from tests.fl import helpers, organisations
from tests.fl.leading import (
    MODEL,
    PLAN,
    TERMS,
    ask,
    finish,
    lead,
    refused,
    reopened,
    terms,
)
from tests.fl.organisations import ANY, FIVE, SESSION, World, contents


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    found = World(PLAN, FIVE, tmp_path)
    yield found
    found.close()


def test_unmasking_happens_once(world: World) -> None:
    master = lead(world, "unmask")
    member, message = master.member, master.outbound[master.member]
    first = ask(world, member, master.step("unmask", message))
    assert first.status == Status.ANSWER
    other = message[:-1] + bytes([message[-1] ^ 1])
    said = refused(world, member, master.step("unmask", other))
    assert "stage: got unmask; takes none, the next of this attempt" in said
    assert ask(world, member, master.step("unmask", message)) == first  # the same bytes, no more


def test_a_message_goes_by_the_name_of_its_stage(world: World) -> None:
    master = lead(world, "share_keys")
    member, keys = master.member, master.outbound[master.member]
    for stage in ("mask_input", "unmask"):
        broadcast = MODEL if stage == "mask_input" else b""
        said = refused(world, member, master.step(stage, keys, broadcast))
        assert f"stage: got {stage}; takes share_keys" in said
    first = ask(world, member, master.step("share_keys", keys))
    assert first.status == Status.ANSWER
    said = refused(world, member, master.step("mask_input", keys, MODEL))
    assert "message: got one of an earlier stage" in said
    assert organisations.charges(world, member) == []
    assert ask(world, member, master.step("share_keys", keys)) == first


def test_a_witness_signs_one_view_and_unmasks_by_a_quorum_alone(tmp_path: Path) -> None:
    aggregation = helpers.secure(graph="complete", server="malicious", corrupt=0.25, dropout=0.0)
    malicious = dataclasses.replace(PLAN, aggregation=aggregation)
    world = World(malicious, FIVE, tmp_path)
    master = lead(world, "check_consistency", of=terms(malicious))
    member, statuses = master.member, master.outbound[master.member]
    for i, message in master.outbound.items():
        reply = ask(world, i, master.step("check_consistency", message))
        master.session.receive(i, reply.message)
    other = statuses[:-1] + bytes([statuses[-1] ^ 1])
    said = refused(world, member, master.step("check_consistency", other))
    assert "stage: got check_consistency; takes unmask" in said
    said = refused(world, member, master.step("unmask", other))
    assert "second, different message" in said
    said = refused(world, member, master.step("unmask", statuses))
    assert "message: got one of an earlier stage" in said
    quorum = master.session.close_stage()[member]
    forged = bytearray(quorum)
    forged[-1] ^= 1
    said = refused(world, member, master.step("unmask", bytes(forged)))
    assert "witnesses signed the sets this client holds" in said
    assert ask(world, member, master.step("unmask", quorum)).status == Status.ANSWER
    world.close()


def test_both_kinds_of_share_are_never_given(world: World) -> None:
    master = lead(world, "unmask")
    both = bytearray(master.outbound[master.member])
    both[38] |= 0b11
    said = refused(world, master.member, master.step("unmask", bytes(both)))
    assert "both kinds of share" in said
    finish(master, "unmask")


def test_a_survivor_declared_dropped_is_not_unmasked(world: World) -> None:
    master = lead(world, "unmask")
    lied = bytearray(master.outbound[master.member])
    lied[38] &= 0b11111100
    said = refused(world, master.member, master.step("unmask", bytes(lied)))
    assert "no survivor" in said
    finish(master, "unmask")


def test_a_second_masked_vector_of_an_attempt_is_never_given(world: World) -> None:
    master = lead(world, "mask_input")
    member, message = master.member, master.outbound[master.member]
    assert ask(world, member, master.step("mask_input", message, MODEL)).status == Status.ANSWER
    other = np.frombuffer(MODEL, "<f4") + np.float32(1)
    said = refused(world, member, master.step("mask_input", message, other.tobytes()))
    assert said  # another model under the same keys would show the difference of two updates
    assert organisations.charges(world, member) == [(0, 0)]


def test_masked_vector_r_plus_1_is_never_given(world: World) -> None:
    limit = TERMS.resolved.exposure.max_releases
    assert limit == 4  # 4 rounds of 4 of 5
    member = TERMS.members(0)[0]
    for attempt in range(limit):
        lead(world, "unmask", (0, attempt))
    begin = Step(SESSION, "advertise_keys", 0, limit, b"")
    assert f"all {limit} releases" in refused(world, member, begin)
    assert len(organisations.charges(world, member)) == limit
    world.restart(member)
    assert f"all {limit} releases" in refused(world, member, begin)


def test_the_ledger_is_asked_again_before_the_vector(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    master = lead(world, "mask_input")
    member, message = master.member, master.outbound[master.member]
    for attempt in range(4):  # charged meanwhile, by whatever means
        world.journals[member].charge(3, attempt)
    said = refused(world, member, master.step("mask_input", message, MODEL))
    assert "all 4 releases" in said


def test_rounds_of_others_and_rounds_beyond_the_plan_are_not_begun(world: World) -> None:
    absent = next(i for i in range(5) if i not in TERMS.members(1))
    begin = Step(SESSION, "advertise_keys", 1, 0, b"")
    assert "a round that the plan invites this member to" in refused(world, absent, begin)
    beyond = Step(SESSION, "advertise_keys", 4, 0, b"")
    assert "a round of the plan, below 4" in refused(world, 0, beyond)


def test_attempts_go_forward_alone(world: World) -> None:
    early, late = lead(world, "mask_input", (0, 1)), lead(world, "mask_input", (1, 0))
    member = min(set(early.outbound) & set(late.outbound))
    for place in ((0, 0), (0, 1), (0, 2)):
        begin = Step(SESSION, "advertise_keys", *place, b"")
        assert "a later one than (1, 0)" in refused(world, member, begin)
    over = early.step("mask_input", early.outbound[member], MODEL)
    assert "the attempt that this client began last" in refused(world, member, over)
    later = next(r for r in (2, 3) if member in TERMS.members(r))
    not_yet = Step(SESSION, "share_keys", later, 0, late.outbound[member])
    assert "the attempt that this client began last" in refused(world, member, not_yet)
    finish(late, "mask_input")


def test_messages_of_another_attempt_are_refused(world: World) -> None:
    old = lead(world, "mask_input", (0, 0))
    new = lead(world, "mask_input", (0, 1))
    said = refused(world, new.member, new.step("mask_input", old.outbound[new.member], MODEL))
    assert "belongs to another context" in said
    finish(new, "mask_input")


def test_another_session_is_refused(world: World) -> None:
    other = bytes(32)
    for asked in (Hello(other, bytes(32)), Step(other, "advertise_keys", 0, 0, b"")):
        said = refused(world, 0, asked)
        assert "session: got" in said
        assert SESSION.hex() in said


def test_downgraded_parameters_are_refused(world: World) -> None:
    """A server that asks under its own idea of the parameters, with accomplices for the rest."""
    weak = dataclasses.replace(PLAN, aggregation=helpers.secure(
        graph="complete", corrupt=0.0, dropout=0.25))  # fmt: skip
    params = terms(weak).params_of(0, 0)
    assert params.session_id == TERMS.params.session_id
    assert params.min_survivors < TERMS.params.min_survivors
    members = TERMS.members(0)
    victim, session = members[0], ServerSession(params, dict.fromkeys(members, b""))
    for i in members:
        accomplice = ClientSession(
            params, i, None, dict.fromkeys(members, b""), once=lambda key: True
        )
        session.receive(i, accomplice.start())
    message = session.close_stage()[victim]
    ask(world, victim, Step(SESSION, "advertise_keys", 0, 0, b""))
    said = refused(world, victim, Step(SESSION, "share_keys", 0, 0, message))
    assert "belongs to another context (parameters" in said


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_out_of_turn_is_refused(world: World, stage: str) -> None:
    master = lead(world, "mask_input")
    member = master.member
    broadcast = MODEL if stage == "mask_input" else b""
    for kind in (1, 3, 129, 131, 132, 0):
        message = bytearray(master.outbound[member])
        message[1] = kind
        refused(world, member, master.step(stage, bytes(message), broadcast))
    finish(master, "mask_input")


def test_the_model_comes_whole_and_at_its_stage(world: World) -> None:
    master = lead(world, "mask_input")
    member, message = master.member, master.outbound[master.member]
    for broadcast, said in (
        (MODEL[:-4], "the model of this plan"),
        (b"", "the model at mask_input"),
    ):
        step = master.step("mask_input", message, broadcast)
        assert said in refused(world, member, step)
    early = master.step("share_keys", message, MODEL)
    assert "the model at mask_input, and only there" in refused(world, member, early)
    empty = master.step("share_keys", b"")
    assert "none at advertise_keys, and one elsewhere" in refused(world, member, empty)
    finish(master, "mask_input")


def test_an_update_that_is_not_finite_is_told_to_its_owner_alone(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    master = lead(world, "mask_input")
    member, message = master.member, master.outbound[master.member]
    poison = np.full(len(MODEL) // 4, np.nan, dtype="<f4").tobytes()
    reply = ask(world, member, master.step("mask_input", message, poison))
    assert reply.status == Status.ANSWER
    assert "zero was sent in its place" in caplog.text
    world.restart(member)  # and the same bytes again from what is on disk
    assert ask(world, member, master.step("mask_input", message, poison)) == reply


def test_what_goes_wrong_inside_is_logged_and_not_told(
    world: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    master = lead(world, "mask_input")
    member, message = master.member, master.outbound[master.member]

    def broken(*args: object) -> None:
        raise FloatingPointError("patient 17 has a blood pressure of nought")

    with monkeypatch.context() as patch:
        patch.setattr("fl.site.Site.train", broken)
        assert refused(world, member, master.step("mask_input", message, MODEL)) == "failed"
    assert "patient 17" in caplog.text
    assert organisations.charges(world, member) == []
    finish(master, "mask_input")


def test_a_claim_of_two_gigabytes_is_refused_before_anything_is_allocated(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    for claim in ((2**31, 0), (0, 2**31), (2**32 - 1, 2**64 - 1)):
        reply = world.members[0].handle(struct.pack("<IQ", *claim) + b"x")
        assert b"takes at most" in reply
    assert "malformed: a frame that claims" in caplog.text
    limits = limits_of(TERMS)
    assert limits.control < 4096
    assert limits.bulk == len(MODEL)


def test_noise_is_refused_and_changes_nothing(world: World) -> None:
    master = lead(world, "mask_input")
    member = master.member
    good = wire.frame(*master.step("mask_input", master.outbound[member], MODEL).parts())
    # Not in the boxes: one that does not open is reported, and its edge is masked all the same.
    head = wire.FRAME_BYTES + 2 + 32 + 8 + 38 + 1  # up to the set that shared
    rng, before = random.Random(7), contents(world, member)
    for _ in range(300):
        frame = bytearray(good)
        for _ in range(rng.randint(1, 3)):
            frame[rng.randrange(head)] ^= 1 << rng.randrange(8)
        if rng.random() < 0.3:
            del frame[rng.randrange(len(frame)) :]
        if bytes(frame) == good:
            continue
        reply = wire.read_reply(*wire.parts(world.members[member].handle(bytes(frame)), ANY), ANY)
        assert reply.status == Status.REFUSED
    assert contents(world, member) == before
    finish(master, "mask_input")


def test_every_refusal_is_in_the_log(world: World, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "fl.organisation"):
        refused(world, 0, Step(SESSION, "unmask", 9, 3, b"x"))
        refused(world, 0, Hello(bytes(32), bytes(32)))
    first, second = (record.getMessage() for record in caplog.records)
    assert first.startswith("refused: round 9, attempt 3, unmask: RefusedError: round: got 9")
    assert second.startswith("refused: hello: RefusedError: session")


def test_the_journal_is_its_owners_of_one_session_and_one_process(
    world: World, tmp_path: Path
) -> None:
    path = tmp_path / "member0" / "journal.sqlite"
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(StoreError, match="no other process holds"):
        reopened(tmp_path)
    world.journals[0].close()
    with pytest.raises(StoreError, match="another plan or roster is another session"):
        reopened(tmp_path, session=bytes(32))
    path.chmod(0o640)
    with pytest.raises(StoreError, match="mode 0640"):
        reopened(tmp_path)
    path.chmod(0o600)
    path.write_bytes(b"no database" * 100)
    with pytest.raises(StoreError, match="file is not a database"):
        reopened(tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"aggregation": helpers.ideal()}, "aggregation: got Ideal"),
        ({"aggregation": helpers.secure()}, "graph: got sparse"),
        (
            {"aggregation": helpers.secure(graph="complete", simulate_dropout={"unmask": 0.1})},
            "simulate_dropout",
        ),
        ({"client_metrics": True}, "client_metrics"),
        ({"cohort": fl.cohort.poisson(0.5)}, "cohort: got poisson:0.5"),
    ],
)
def test_plans_that_cannot_be_shared_are_refused(change: dict[str, Any], said: str) -> None:
    (line,) = faults(organisations.shared_plan(**change))
    assert said in line


def test_what_cannot_be_shared_is_not_bound_to_a_session() -> None:
    with pytest.raises(PlanError, match="graph: got sparse"):
        terms(organisations.shared_plan(aggregation=helpers.secure()))
    assert not faults(organisations.shared_plan(aggregation=helpers.secure()), bytes(32))
