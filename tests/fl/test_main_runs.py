"""Runs of the command line: what they print, what they leave, how they go on."""

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fl
from fl.store import Store
from fl.summary import read_summary
from fl.training import Training
from tests.fl import helpers
from tests.fl.command_line import SEEDED, SMALL, Finished, call, contents, refused, train


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A finished private run of the real protocol; tests leave it as they found it."""
    return train(tmp_path_factory.mktemp("secure") / "run", *SMALL)


def test_a_run_leaves_store_summary_and_report(secure: Finished) -> None:
    assert {"run.sqlite", "summary.json", "report.html"} <= set(contents(secure.folder))
    with sqlite3.connect(secure.folder / "run.sqlite") as db:
        released = db.execute("select round, attempt from releases").fetchall()
        finished = db.execute("select count(*) from rounds").fetchone()
    db.close()
    assert released == [(0, 0), (1, 0)]
    assert finished == (2,)


def test_the_summary_holds_what_is_promised(secure: Finished) -> None:
    summary = secure.summary
    assert summary["dataset"] == "digits"
    assert (summary["num_clients"], summary["rounds"]) == (20, 2)
    assert 0.2 < summary["accuracy"] <= 1  # ten classes: guessing gives 0.1
    assert {"train", "encode", "protocol", "decode"} <= set(summary["seconds_per_round"])
    assert all(value > 0 for value in summary["seconds_per_round"].values())
    assert {"python", "numpy", "jax", "cryptography"} <= set(summary["versions"])
    assert summary["stopped_early"] is None
    assert summary["job"]["epsilon"] == 4.0
    rows = summary["privacy"]["rows"]
    assert [row["adversary"] for row in rows] == ["server", "participants", "outsider"]
    for row in rows:
        assert set(row) == {
            "adversary", "relation", "delta", "epsilon", "reason", "c", "min_survivors",
            "max_releases",
        }  # fmt: skip
        assert row["reason"] is None
        figures = row["epsilon"]
        assert 0 < figures["realised"]["upper"] <= figures["worst_case"]["upper"] <= 4.0
        assert figures["planned"]["upper"] <= figures["worst_case"]["upper"]
    server = rows[0]
    assert (server["c"], server["min_survivors"], server["max_releases"]) == (2, 18, 2)


def test_upload_is_what_the_stages_add_up_to(secure: Finished) -> None:
    stages = secure.summary["cost_by_stage"]
    assert list(stages) == ["advertise_keys", "share_keys", "mask_input", "unmask"]
    total = sum(stage["upload_bytes"] for stage in stages.values())
    assert secure.summary["upload_bytes_per_client_round"] == pytest.approx(total, rel=0.05)
    assert stages["mask_input"]["upload_bytes"] > 650  # more than a byte a parameter


def test_the_model_hash_is_that_of_the_checkpoint(secure: Finished) -> None:
    store = Store.open(secure.folder)
    checkpoint = store.checkpoint()
    store.close()
    assert checkpoint is not None
    bias, weights = checkpoint.leaves[:2]
    assert (bias.shape, weights.shape) == ((10,), (64, 10))
    assert secure.summary["model_sha256"] == fl.tree.sha256({"b": bias, "w": weights})


def test_parameters_and_statement_are_printed_before_training_costs_after(secure: Finished) -> None:
    out = secure.called.out
    job = fl.job.from_dict({k: v for k, v in secure.summary["job"].items() if v is not None})
    order = [
        "Preset digits-demo; it was tuned on the test data.\n",
        job.describe(),
        "worst case",
        "* zero-out: ",
        "seconds per round",
        "mask_input",
        "worst case",
        "accuracy ",
    ]
    position = 0
    for part in order:
        assert part in out[position:], part
        position = out.index(part, position) + len(part)
    before, after = out.split("seconds per round")
    for adversary in ("server", "participants", "outsider"):
        assert f"\n{adversary} " in before
        assert f"\n{adversary} " in after


def test_an_existing_run_is_refused_and_untouched(secure: Finished) -> None:
    before = contents(secure.folder)
    refused(call("train", *SMALL, "--out", str(secure.folder)), "out", "already holds a run")
    assert contents(secure.folder) == before


def test_report_makes_the_page_again(secure: Finished) -> None:
    page = secure.folder / "report.html"
    before = contents(secure.folder)
    page.unlink()
    called = call("report", str(secure.folder))
    assert (called.status, called.out) == (0, f"report: {page}\n")
    assert contents(secure.folder).keys() == before.keys()
    assert secure.summary["model_sha256"] in page.read_text(encoding="utf-8")
    assert read_summary(secure.folder) == secure.summary


def test_resuming_a_finished_run_is_harmless(secure: Finished) -> None:
    charges = "select * from client_charges order by round, attempt, client"
    with sqlite3.connect(secure.folder / "run.sqlite") as db:
        before = db.execute(charges).fetchall()
    called = call("resume", str(secure.folder))
    assert called.status == 0
    with sqlite3.connect(secure.folder / "run.sqlite") as db:
        assert db.execute(charges).fetchall() == before
    db.close()
    assert read_summary(secure.folder) == secure.summary


@pytest.mark.slow
def test_seeded_runs_promise_nothing_and_ideal_equals_secure(tmp_path: Path) -> None:
    secure = train(tmp_path / "secure", *SEEDED).summary
    ideal = train(tmp_path / "ideal", *SEEDED, "--aggregation", "ideal").summary
    assert secure["model_sha256"] == ideal["model_sha256"]
    assert secure["accuracy"] == ideal["accuracy"]
    assert (secure["aggregation"], ideal["aggregation"]) == ("secure", "ideal")
    assert ideal["upload_bytes_per_client_round"] is None
    for summary in (secure, ideal):
        for row in summary["privacy"]["rows"]:
            assert "not private" in row["reason"]
            assert row["epsilon"] == {"planned": None, "realised": None, "worst_case": None}
        assert "epsilon <=" not in call("report", str(tmp_path / summary["aggregation"])).out


def test_a_run_in_the_open_says_that_it_is_not_private(tmp_path: Path) -> None:
    done = train(tmp_path / "run", *SMALL, "--no-dp", "--aggregation", "plain")
    assert done.summary["aggregation"] == "plain"
    assert done.summary["mechanism"] == "none"
    assert done.summary["accuracy"] > 0.5
    assert done.summary["upload_bytes_per_client_round"] == 650 * 4
    assert {row["reason"] for row in done.summary["privacy"]["rows"]} == {
        "no noise is added: the plan is not private"
    }
    assert "* server: no noise is added: the plan is not private" in done.called.out
    assert "upload per client and round: 2,600 bytes" in done.called.out
    assert "<=" not in done.called.out


def interrupt_after(rounds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The keyboard interrupts before round `rounds`."""
    genuine: Callable[[Any], Any] = Training.step

    def step(training: Any) -> Any:
        if training.next_round == rounds:
            raise KeyboardInterrupt
        return genuine(training)

    monkeypatch.setattr(Training, "step", step)


def test_the_statement_is_printed_before_a_round_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt_after(0, monkeypatch)
    called = call("train", *SMALL, "--out", str(tmp_path / "run"))
    assert called.status == 130
    assert "epsilon = 4.0" in called.out
    assert "worst case" in called.out
    assert "seconds per round" not in called.out


def test_an_interrupted_run_continues_to_the_same_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = (*SEEDED, "--rounds", "3", "--aggregation", "ideal")
    whole = train(tmp_path / "whole", *flags)
    with monkeypatch.context() as patch:
        interrupt_after(1, patch)
        stopped = call("train", *flags, "--out", str(tmp_path / "run"))
    assert stopped.status == 130
    assert "resume" in stopped.err
    assert "Traceback" not in stopped.err
    resumed = call("resume", str(tmp_path / "run"))
    assert (resumed.status, resumed.err) == (0, "")
    summary = read_summary(tmp_path / "run")
    assert summary["rounds"] == 3
    assert summary["model_sha256"] == whole.summary["model_sha256"]
    assert summary["job"]["rounds"] == 3
    assert (tmp_path / "run" / "report.html").is_file()


def test_a_damaged_store_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "run.sqlite").write_bytes(b"no database, whatever its name says" * 40)
    for command in ("resume", "report"):
        refused(call(command, str(tmp_path)))


def test_a_run_begun_in_python_is_not_resumed_from_strings(tmp_path: Path) -> None:
    list(fl.rounds(helpers.plan(rounds=1), helpers.MODEL, helpers.small_data(), out=tmp_path))
    refused(call("resume", str(tmp_path)), "job: got None")


def test_runs_are_numbered_where_no_directory_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    interrupt_after(0, monkeypatch)
    for _ in range(2):
        call("train", *SMALL)
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["digits-1", "digits-2"]


def test_a_regression_ends_in_its_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 3)).astype(np.float32)
    fields = {"x": x, "y": (x @ np.array([1.0, -2.0, 0.5]) + 1).astype(np.float32)}
    data = fl.FederatedDataset.from_arrays(fields, np.arange(80) % 8, test=fields, name="numbers")
    monkeypatch.setattr(fl.datasets, "load", lambda *_, **__: data)
    words = ("train", "--preset", "mnist", "--model", "linear", "--client-lr", "0.05")
    local = ("--cohort", "full", "--local-epochs", "5", "--eval-every", "1")
    called = call(*words, *local, "--rounds", "12", "--out", str(tmp_path / "run"))
    assert (called.status, called.err) == (0, "")
    summary = read_summary(tmp_path / "run")
    assert summary["accuracy"] is None
    mae, mse = summary["metrics"]["mae"], summary["metrics"]["mse"]
    assert mse < 0.1
    assert f"\nmae {mae:.4g}, mse {mse:.4g} after 12 rounds" in called.out
    assert "round 9: mae " in called.out
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Test mean error" in page
    assert "Test accuracy" not in page


def test_every_round_is_charged_before_it_is_released(secure: Finished) -> None:
    with sqlite3.connect(secure.folder / "run.sqlite") as db:
        query = "select round, attempt, survivors from releases"
        for index, attempt, survivors in db.execute(query).fetchall():
            charged = db.execute(
                "select client from client_charges where round = ? and attempt = ?",
                (index, attempt),
            ).fetchall()
            assert set(json.loads(survivors)) <= {client for (client,) in charged}
            assert len(json.loads(survivors)) >= 18
    db.close()


def test_seeds_make_runs_of_their_own_and_one_interval(tmp_path: Path) -> None:
    out = tmp_path / "sweep"
    called = call("train", *SMALL, "--aggregation", "ideal", "--seeds", "2", "--out", str(out))
    assert called.status == 0
    found = json.loads((out / "sweep.json").read_text())
    assert found["seeds"] == [0, 1]
    assert len(found["metrics"]["accuracy"]["values"]) == 2
    assert "over 2 seeds" in called.out
    assert "2 runs together" in " ".join(called.out.split())
    for seed in found["seeds"]:
        assert read_summary(out / f"seed-{seed}")["rounds"] == 2
    refused(call("train", *SMALL, "--seeds", "1", "--out", str(tmp_path / "one")), "seeds")


def test_unit_and_algorithm_show_in_summary_and_report(tmp_path: Path) -> None:
    out = tmp_path / "run"
    called = call(
        "train", *SMALL, "--aggregation", "ideal", "--algorithm", "fedsgd", "--unit", "record",
        "--record-sampling", "0.1", "--out", str(out),
    )  # fmt: skip
    assert called.status == 0
    summary = read_summary(out)
    assert summary["privacy"]["unit"] == "record"
    assert summary["details"]["unit"] == "record"
    assert summary["details"]["algorithm"] == "fedsgd"
    assert summary["details"]["cohort"] == "full"
    page = (out / "report.html").read_text()
    assert "one record" in page
    assert "fedsgd" in page


def test_a_secret_cohort_leaves_no_sizes_bytes_or_seconds_in_what_is_public(
    tmp_path: Path,
) -> None:
    out = tmp_path / "run"
    flags = (
        "--dataset", "digits", "--clients", "200", "--partition", "iid", "--rounds", "2",
        "--aggregation", "ideal", "--cohort", "poisson:0.5", "--out", str(out),
    )  # fmt: skip
    assert call("train", *flags).status == 0
    summary = read_summary(out)
    assert summary["details"]["secret_cohort"]
    assert set(summary["seconds_per_round"].values()) == {None}
    assert summary["upload_bytes_per_client_round"] is None
    assert summary["cost_by_stage"] == {}
    page = (out / "report.html").read_text()
    for title in ("Survivors", "Seconds", "Upload per"):
        assert f"<h3>{title}" not in page
    store = Store.open(out)
    sizes = {row["survivors"] for row in store.rounds()} - {100}  # what is expected is public
    store.close()
    assert all(f">{size}<" not in page for size in sizes)
