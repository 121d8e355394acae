"""A run across organisations: the model of one process, whatever is lost or started again."""

import contextlib
import dataclasses
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fl
from fl.aggregate import draw_dropouts
from fl.engines import wire
from fl.engines.coordinator import Parts
from fl.secure import STAGES
from secureagg import Attestation
from tests.fl import helpers, organisations
from tests.fl.organisations import (
    FIVE,
    SECRET,
    SEMI_HONEST,
    KilledError,
    Passing,
    World,
    in_process,
    kill_at,
    losing,
    node_of,
    refusals,
    releases,
    server_charges,
)
from tests.fl.test_records import DATA as HOSPITALS
from tests.fl.test_records import MODEL as HOSPITAL_MODEL
from tests.fl.test_records import record_plan

UNEVEN = fl.FederatedDataset.from_arrays(
    FIVE.fields, np.repeat(np.arange(5), [9, 6, 5, 3, 2]), test=FIVE.test, num_classes=3
)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    found = World(organisations.shared_plan(rounds=2), FIVE, tmp_path)
    yield found
    found.close()


@pytest.fixture
def secret(tmp_path: Path) -> Iterator[World]:
    found = World(organisations.shared_plan(rounds=2, **SECRET), FIVE, tmp_path)
    yield found
    found.close()


@pytest.mark.parametrize("server", ["semi_honest", "malicious"])
def test_records_of_hospitals_give_the_model_of_the_run_in_one_process(
    tmp_path: Path, server: str
) -> None:
    aggregation = helpers.secure(graph="complete", server=server, corrupt=0.25, dropout=0.0)
    plan = record_plan(aggregation=aggregation, seeded_secrets=True, rounds=2)
    world = World(plan, HOSPITALS, tmp_path, model=HOSPITAL_MODEL)
    model, rounds = world.run()
    world.close()
    assert [r.survivors for r in rounds] == [tuple(range(4))] * 2
    assert model == in_process(plan, HOSPITAL_MODEL, HOSPITALS)


@pytest.mark.parametrize(
    "change",
    [
        {"cohort": fl.cohort.cyclic(4)},
        {"privacy": fl.NotPrivate(2.0, "examples", 4)},
        {"privacy": helpers.privacy(mechanism="gaussian", against="participants")},
        {"privacy": helpers.privacy(mechanism="discrete_gaussian")},
    ],
    ids=["cyclic", "not private", "central", "discrete gaussian"],
)
def test_every_kind_of_plan_gives_the_model_of_the_run_in_one_process(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    world = World(organisations.shared_plan(rounds=2, **change), UNEVEN, tmp_path)
    model, _ = world.run()
    world.close()
    assert model == in_process(world.plan, helpers.MODEL, UNEVEN)


def test_witnesses_sign_what_the_store_keeps(tmp_path: Path) -> None:
    aggregation = helpers.secure(graph="complete", server="malicious", corrupt=0.2, dropout=0.0)
    plan = organisations.shared_plan(rounds=1, seeded_secrets=False, aggregation=aggregation)
    world = World(plan, FIVE, tmp_path)
    training = world.server()
    training.step()
    assert not training.store.unattested()
    realised = [row.realised for row in training.statement().rows]
    training.store.close()
    world.close()
    assert realised[0] is not None
    with contextlib.closing(sqlite3.connect(tmp_path / "run" / "run.sqlite")) as db:
        (signed,) = db.execute("select attestation from releases").fetchone()
    attestation = Attestation.from_bytes(signed)
    attestation.verify()
    assert attestation.roster == world.roster
    assert attestation.params.session_id == organisations.SESSION


def test_a_node_that_never_answers_is_asked_more_and_more_rarely(tmp_path: Path) -> None:
    asked: list[int] = []

    def mute(frame: bytes) -> bytes:
        asked.append(sum(p.stage == "unmask" and p.member == 0 for p in ten.passed))
        return wire.frame(b"")

    ten = World(organisations.shared_plan(rounds=10), FIVE, tmp_path)
    ten.nodes[node_of(7)] = mute
    ten.faults = [lambda p: [] if p.member == 7 else None]
    _, rounds = ten.run()
    ten.close()
    assert len(rounds) == 10
    assert asked == [0, 1, 2, 8]  # before these rounds


def test_a_member_whose_process_is_down_for_long_takes_part_again(tmp_path: Path) -> None:
    world = World(organisations.shared_plan(rounds=10), FIVE, tmp_path)

    def down(passing: Passing) -> list[tuple[int, Parts]] | None:
        over = sum(p.stage == "unmask" and p.member == 0 for p in world.passed)
        return [] if passing.member == 2 and over < 5 else None

    world.faults = [down]
    _, rounds = world.run()
    world.close()
    assert [2 in r.survivors for r in rounds] == [False] * 8 + [True] * 2


@pytest.mark.parametrize("server", ["semi_honest", "malicious"])
def test_members_lost_at_every_stage_give_the_model_of_the_run_in_one_process(
    tmp_path: Path, server: str
) -> None:
    aggregation = helpers.secure(graph="complete", server=server, corrupt=0.1, dropout=0.3)
    plan = organisations.shared_plan(aggregation=aggregation, rounds=4)
    lossy = dataclasses.replace(aggregation, simulate_dropout=dict.fromkeys(STAGES, 0.1))
    expected = fl.train(dataclasses.replace(plan, aggregation=lossy), helpers.MODEL, data := HOSTS)
    world = World(plan, data, tmp_path)
    world.faults = [losing(lambda r: draw_dropouts(lossy, range(10), plan.seed, r))]
    model, rounds = world.run()
    world.close()
    assert model == helpers.params_bytes(expected.params)
    drawn = [draw_dropouts(lossy, range(10), plan.seed, r) for r in range(4)]
    assert all(any(d[stage] for d in drawn) for stage in ("share_keys", "mask_input", "unmask"))
    for lost, finished in zip(drawn, rounds, strict=True):
        gone = {i for stage in STAGES[:3] for i in lost[stage]}
        assert finished.survivors == tuple(sorted(set(range(10)) - gone))


HOSTS = helpers.small_data(num_clients=10)


@pytest.mark.parametrize(
    ("stage", "survives", "charged"),
    [
        ("advertise_keys", False, False),
        ("share_keys", False, False),
        ("mask_input", False, True),
        ("unmask", True, True),
    ],
)
def test_both_ledgers_hold_what_may_have_been_sent(
    secret: World, stage: str, survives: bool, charged: bool
) -> None:
    secret.faults = [losing(lambda r: {stage: [2]} if r == 0 else {})]
    _, rounds = secret.run()
    assert [2 in r.survivors for r in rounds] == [survives, True]
    expected = [(0, 0), (1, 0)] if charged else [(1, 0)]
    assert server_charges(secret)[2] == expected == organisations.charges(secret, 2)
    assert server_charges(secret)[3] == [(0, 0), (1, 0)] == organisations.charges(secret, 3)
    assert releases(secret) == {(r.index, 0): r.survivors for r in rounds}


@pytest.mark.parametrize("stage", SEMI_HONEST)
def test_too_few_are_a_typed_abort_that_releases_nothing(secret: World, stage: str) -> None:
    before = helpers.params_bytes(secret.server(out=secret.folder / "other").state.params)
    secret.faults = [losing(lambda r: {stage: [1, 2, 3]})]
    model, rounds = secret.run()
    assert model == before
    assert [r.survivors for r in rounds] == [(), ()]
    assert all("nothing is released" in (r.reason or "") for r in rounds)
    masked = stage in ("mask_input", "unmask")
    assert organisations.charges(secret, 0) == ([(0, 0), (1, 0)] if masked else [])
    assert server_charges(secret)[0] == organisations.charges(secret, 0)
    # on record before anything could be unmasked, so an abort after that over-counts
    assert bool(releases(secret)) == (stage == "unmask")


def test_answers_that_come_twice_count_once(world: World) -> None:
    world.faults = [lambda p: [(node_of(p.member), p.answer)] * 2]
    model, _ = world.run()
    assert model == in_process(world.plan, helpers.MODEL, FIVE)


def test_a_member_that_comes_back_under_another_node_takes_part_again(secret: World) -> None:
    training = secret.server()
    handle = secret.nodes.pop(node_of(2))
    first = training.step()
    secret.nodes[node_of(99)] = handle
    second = training.step()
    training.store.close()
    assert first is not None
    assert second is not None
    assert first.survivors == (0, 1, 3, 4)
    assert second.survivors == (0, 1, 2, 3, 4)


@pytest.mark.parametrize("server", ["semi_honest", "malicious"])
def test_a_member_started_again_before_every_stage_goes_on(tmp_path: Path, server: str) -> None:
    aggregation = helpers.secure(graph="complete", server=server, corrupt=0.2, dropout=0.0)
    world = World(organisations.shared_plan(rounds=1, aggregation=aggregation), FIVE, tmp_path)
    world.before = lambda stage, member: world.restart(member) if member == 2 else None
    model, rounds = world.run()
    world.close()
    assert rounds[0].survivors == (0, 1, 2, 3, 4)
    assert model == in_process(world.plan, helpers.MODEL, FIVE)


def test_a_member_whose_answer_was_lost_gives_the_same_bytes_again(secret: World) -> None:
    again: list[bool] = []

    def ask_twice(passing: Passing) -> None:
        if passing.member == 2:
            secret.restart(2)
            frame = wire.frame(*passing.request.parts())
            answer = wire.parts(secret.members[2].handle(frame), organisations.ANY)
            if passing.stage != "hello":
                again.append(answer == passing.answer)

    secret.faults = [ask_twice]
    _, rounds = secret.run()
    assert again == [True] * 8
    assert organisations.charges(secret, 2) == [(0, 0), (1, 0)]
    assert [r.survivors for r in rounds] == [(0, 1, 2, 3, 4)] * 2


@pytest.mark.parametrize("before", [True, False], ids=["asking", "answered"])
@pytest.mark.parametrize("stage", SEMI_HONEST)
def test_a_server_that_was_killed_goes_on_with_another_attempt(
    world: World, caplog: pytest.LogCaptureFixture, stage: str, before: bool
) -> None:
    kill_at(world, 1, stage, before=before)
    training = world.server()
    training.step()
    with pytest.raises(KilledError):
        training.step()
    training.store.close()
    world.before, world.faults = None, []
    model, rounds = world.run(resume=True)
    assert [(r.index, r.survivors) for r in rounds] == [(1, (0, 1, 2, 3, 4))]
    assert model == in_process(world.plan, helpers.MODEL, FIVE)
    assert f"round 1, attempt 0 was caught at {stage}: it is abandoned" in refusals(caplog)
    masked = stage in ("mask_input", "unmask")
    caught = [(1, 0)] if masked else []
    assert server_charges(world)[0] == [(0, 0), *caught, (1, 1)]
    assert organisations.charges(world, 0) == [(0, 0), *caught, (1, 1)]
    asked = masked and not (stage == "mask_input" and before)
    assert organisations.charges(world, 4) == [(0, 0), *([(1, 0)] if asked else []), (1, 1)]
    assert ((1, 0) in releases(world)) == (stage == "unmask")


@pytest.mark.parametrize(("spare", "finished"), [(0, [0]), (1, [0, 1])])
def test_an_abandoned_attempt_costs_a_release(
    tmp_path: Path, spare: int, finished: list[int]
) -> None:
    privacy = helpers.privacy(spare_releases=spare)
    world = World(organisations.shared_plan(rounds=2, privacy=privacy, **SECRET), FIVE, tmp_path)
    kill_at(world, 0, "mask_input", before=False)
    training = world.server()
    with pytest.raises(KilledError):
        training.step()
    training.store.close()
    world.faults = []
    _, rounds = world.run(resume=True)
    assert [r.index for r in rounds] == finished
    expected = [(0, 0), (0, 1), (1, 0)][: 2 + spare]
    assert organisations.charges(world, 0) == expected == server_charges(world)[0]
    world.close()


def test_stages_are_on_record_with_seconds_and_bytes(world: World) -> None:
    training = world.server()
    training.step()
    rows = training.store.stages()
    training.store.close()
    assert [row["stage"] for row in rows] == list(SEMI_HONEST)
    assert all(row["asked"] == row["answered"] == 5 for row in rows)
    model = sum(leaf.nbytes for leaf in helpers.leaves(training.state.params))
    assert rows[2]["download_bytes"] > 5 * model
    assert all(row["upload_bytes"] > 0 and row["seconds"] > 0 for row in rows)
