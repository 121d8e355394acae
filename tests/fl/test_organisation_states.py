"""What clients keep between rounds across organisations: in their journals, as in one process."""

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optax
import pytest

import fl
from fl.aggregate import draw_dropouts
from fl.engines import wire
from fl.engines.wire import Step
from tests.fl import helpers, organisations
from tests.fl.leading import refused
from tests.fl.organisations import FIVE, SESSION, KilledError, World, in_process, kill_at, losing


def scaffold(participation: float = 1.0) -> fl.Algorithm:
    return fl.scaffold(
        helpers.MODEL.loss, client_lr=0.1, server_optimizer=optax.sgd(1.0), batch_size=2,
        local_epochs=1, participation=participation,
    )  # fmt: skip


def plan_of(**overrides: Any) -> fl.Plan:
    return organisations.shared_plan(**{"rounds": 3, "algorithm": scaffold(), **overrides})


@contextlib.contextmanager
def world_of(plan: fl.Plan, folder: Path) -> Iterator[World]:
    world = World(plan, FIVE, folder)
    yield world
    world.close()


@pytest.mark.slow
@pytest.mark.parametrize("member", [None, 2], ids=["", "started again before every stage"])
def test_states_in_journals_give_the_model_of_the_run_in_one_process(
    tmp_path: Path, member: int | None
) -> None:
    plan = plan_of(cohort=fl.cohort.cyclic(4), algorithm=scaffold(0.8), rounds=4)
    with world_of(plan, tmp_path) as world:
        world.before = lambda stage, asked: world.restart(asked) if asked == member else None
        model, _ = world.run()
    assert model == in_process(plan, helpers.MODEL, FIVE)
    stateless = dataclasses.replace(plan, algorithm=helpers.plan().algorithm)
    assert model != in_process(stateless, helpers.MODEL, FIVE)


def test_states_of_the_lost_stay_behind_as_in_one_process(tmp_path: Path) -> None:
    aggregation = helpers.secure(graph="complete", corrupt=0.0, dropout=0.4)
    plan = plan_of(aggregation=aggregation)
    rates = {"mask_input": 0.3, "unmask": 0.3}
    lossy = dataclasses.replace(aggregation, simulate_dropout=rates)
    expected = in_process(dataclasses.replace(plan, aggregation=lossy), helpers.MODEL, FIVE)
    drawn = [draw_dropouts(lossy, range(5), plan.seed, index) for index in range(3)]
    with world_of(plan, tmp_path) as world:
        world.faults = [losing(lambda index: drawn[index])]
        model, _ = world.run()
    assert model == expected
    # Masked in vain, and masked and heard without having been asked to unmask, before the last.
    assert all(any(lost[stage] for lost in drawn[:-1]) for stage in rates)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["mask_input", "unmask"])
def test_a_server_that_was_killed_tells_members_which_state_counts(
    tmp_path: Path, stage: str
) -> None:
    with world_of(plan_of(), tmp_path) as world:
        kill_at(world, 1, stage, before=False)
        training = world.server()
        training.step()
        with pytest.raises(KilledError):
            training.step()
        training.store.close()
        world.faults = []
        model, rounds = world.run(resume=True)
    assert [r.index for r in rounds] == [1, 2]
    assert model == in_process(world.plan, helpers.MODEL, FIVE)


def test_a_state_commits_with_the_charge_and_moves_on_with_the_release(tmp_path: Path) -> None:
    with world_of(plan_of(), tmp_path) as world:
        training, journal = world.server(), world.journals[0]
        training.step()
        assert journal.kept() is None  # nobody has told it of the release
        begin = Step(SESSION, "advertise_keys", 1, 0, wire.settled((0, 0)))
        answer = world.members[0].handle(wire.frame(*begin.parts()))
        first = journal.kept()
        assert first is not None
        assert world.members[0].handle(wire.frame(*begin.parts())) == answer
        assert journal.kept() == first
        later = Step(SESSION, "advertise_keys", 1, 1, wire.settled((1, 0)))  # which never was
        world.members[0].handle(wire.frame(*later.parts()))
        assert journal.kept() == first
        training.store.close()


@pytest.mark.slow
def test_what_was_not_released_is_dropped(tmp_path: Path) -> None:
    with world_of(plan_of(), tmp_path) as world:
        training, journal = world.server(), world.journals[0]
        training.step()
        for attempt, place in ((0, None), (1, (0, 0))):  # a server that changes its mind
            begin = Step(SESSION, "advertise_keys", 1, attempt, wire.settled(place))
            world.members[0].handle(wire.frame(*begin.parts()))
            assert journal.kept() is None
        training.store.close()


def test_where_a_vector_was_released_is_said_whole_and_where_it_matters(tmp_path: Path) -> None:
    with world_of(plan_of(), tmp_path / "keeps") as world:
        said = refused(world, 0, Step(SESSION, "advertise_keys", 0, 0, b"1234567"))
        assert "message: got 7 bytes; takes none, or 8 of round and attempt" in said
    with world_of(plan_of(algorithm=helpers.plan().algorithm), tmp_path / "none") as world:
        said = refused(world, 0, Step(SESSION, "advertise_keys", 0, 0, wire.settled((0, 0))))
        assert "none at advertise_keys, and one elsewhere" in said
