"""Against a malicious server, what happened counts only beside what witnesses signed of it."""

import json
import sqlite3
from pathlib import Path

import pytest

from fl.statement import so_far, statement
from fl.train import start
from fl.training import Training
from secureagg import Attestation, FaultyServerError
from tests.fl import helpers


def run(out: Path, rounds: int = 2, *, resume: bool = False) -> Training:
    masked = helpers.secure(
        server="malicious", security_bits=12, correctness_bits=4,
        simulate_dropout={"share_keys": 0.05, "mask_input": 0.05},
    )  # fmt: skip
    data = helpers.small_data(num_clients=40)
    plan = helpers.plan(rounds=rounds, aggregation=masked)
    training = start(plan, helpers.MODEL, data, out=out / "run", resume=resume)
    while training.step() is not None:
        pass
    return training


def kept(out: Path) -> list[tuple[int, int, str, bytes]]:
    with sqlite3.connect(out / "run" / "run.sqlite") as db:
        return db.execute("select round, attempt, survivors, attestation from releases").fetchall()


def test_every_release_is_attested_in_the_store(tmp_path: Path) -> None:
    training = run(tmp_path)
    rows = kept(tmp_path)
    training.store.close()
    assert [row[:2] for row in rows] == [(0, 0), (1, 0)]
    for index, _, survivors, data in rows:
        found = Attestation.from_bytes(data)
        found.verify()
        assert list(found.survivors) == json.loads(survivors)
        assert found.params.round_index == index
        with pytest.raises(FaultyServerError):
            Attestation(
                found.params, found.roster, found.shared, found.survivors[1:], found.quorum
            ).verify()


def test_the_realised_figure_takes_all_of_them(tmp_path: Path) -> None:
    training = run(tmp_path)
    rows = {row.adversary: row for row in training.statement().rows}
    assert rows["server"].realised is not None
    exposure, ledger = training.resolved.exposure, training._books.ledger
    happened, worst = so_far(exposure, ledger, 2, attested=True)
    assert happened is not None
    assert happened <= rows["server"].realised.upper * (1 + 1e-9)
    training.store._db.execute("update releases set attestation = null where round = 0")
    training.store._db.commit()
    training.store.close()
    training = run(tmp_path, resume=True)
    assert training.store.unattested() == {(0, 0)}
    without = {row.adversary: row for row in training.statement().rows}
    assert without["server"].realised is None
    assert without["server"].worst_case == rows["server"].worst_case
    assert without["participants"].realised == rows["participants"].realised
    assert training._books.so_far() == (worst, worst)
    training.store.close()


def test_a_sum_in_the_clear_has_no_witnesses_and_needs_none() -> None:
    data, masked = helpers.small_data(num_clients=40), helpers.ideal(server="malicious")
    training = start(helpers.plan(rounds=1, aggregation=masked), helpers.MODEL, data)
    training.step()
    assert training.store.unattested() == {(0, 0)}
    rows = statement(training.resolved.exposure, training._books.ledger).rows
    assert next(row for row in rows if row.adversary == "server").realised is not None
    training.store.close()


def test_a_semi_honest_server_has_none_either(tmp_path: Path) -> None:
    data = helpers.small_data(num_clients=40)
    masked = helpers.secure(security_bits=12, correctness_bits=4)
    training = start(helpers.plan(rounds=1, aggregation=masked), helpers.MODEL, data)
    training.step()
    assert training.store.unattested() == {(0, 0)}
    server = next(r for r in training.statement().rows if r.adversary == "server")
    assert server.realised is not None
    training.store.close()
