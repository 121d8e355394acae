"""A run across organisations: the model of the run in one process, and what nobody can do."""

from collections.abc import Iterator
from pathlib import Path

import pytest

import fl
from tests.fl import helpers, organisations
from tests.fl.organisations import World
from tests.fl.test_records import DATA as HOSPITALS
from tests.fl.test_records import MODEL as HOSPITAL_MODEL
from tests.fl.test_records import record_plan


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    found = World(organisations.shared_plan(), helpers.small_data(num_clients=5), tmp_path)
    yield found
    found.close()


def in_process(plan: fl.Plan, model: fl.Model, data: fl.FederatedDataset) -> bytes:
    return helpers.params_bytes(fl.train(plan, model, data).params)


@pytest.mark.parametrize("server", ["semi_honest", "malicious"])
def test_the_model_is_that_of_the_run_in_one_process(tmp_path: Path, server: str) -> None:
    aggregation = helpers.secure(graph="complete", server=server, corrupt=0.2, dropout=0.2)
    plan = organisations.shared_plan(aggregation=aggregation)
    world = World(plan, helpers.small_data(num_clients=6), tmp_path)
    model, rounds = world.run()
    world.close()
    assert [r.survivors for r in rounds] == [tuple(range(6))] * 3
    assert model == in_process(plan, helpers.MODEL, world.data)


def test_records_of_hospitals_give_the_model_of_the_run_in_one_process(tmp_path: Path) -> None:
    aggregation = helpers.secure(graph="complete", corrupt=0.25, dropout=0.0)
    plan = record_plan(aggregation=aggregation, seeded_secrets=True)
    world = World(plan, HOSPITALS, tmp_path, model=HOSPITAL_MODEL)
    model, _ = world.run()
    world.close()
    assert model == in_process(plan, HOSPITAL_MODEL, HOSPITALS)
