"""The command line in process: what it prints, what it leaves, what it refuses."""

import contextlib
import dataclasses
import io
import json
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import fl
from fl.__main__ import main
from fl.store import Store
from fl.summary import read_summary
from fl.training import Training
from tests.fl import helpers

# One shape of clients, so that a run compiles few programs.
SMALL = ("--dataset", "digits", "--clients", "20", "--partition", "iid", "--rounds", "2")
SEEDED = (*SMALL, "--seeded-secrets")


class Called(NamedTuple):
    status: int
    out: str
    err: str


def call(*words: str) -> Called:
    """Runs one command; argument errors exit with a status too."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main(list(words))
        except SystemExit as error:
            status = error.code if isinstance(error.code, int) else 1
    return Called(status, out.getvalue(), err.getvalue())


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def refused(called: Called, *words: str) -> None:
    """Exit status 2, one line, no traceback."""
    assert called.status == 2
    assert called.err.startswith("error: ")
    assert called.err.count("\n") == 1
    assert called.err.endswith("\n")
    for word in words:
        assert word in called.err


class Finished(NamedTuple):
    called: Called
    folder: Path
    summary: dict[str, Any]


def train(folder: Path, *flags: str) -> Finished:
    called = call("train", *flags, "--out", str(folder))
    assert (called.status, called.err) == (0, "")
    return Finished(called, folder, read_summary(folder))


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


def test_the_statement_is_printed_before_a_round_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt_after(0, monkeypatch)
    called = call("train", *SMALL, "--out", str(tmp_path / "run"))
    assert called.status == 130
    assert "epsilon = 4.0" in called.out
    assert "worst case" in called.out
    assert "seconds per round" not in called.out


def test_an_existing_run_is_refused_and_untouched(secure: Finished) -> None:
    before = contents(secure.folder)
    refused(call("train", *SMALL, "--out", str(secure.folder)), "out", "already holds a run")
    assert contents(secure.folder) == before


def test_a_file_in_the_way_is_refused_and_untouched(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    refused(call("train", *SMALL, "--out", str(tmp_path / "file")), "out")
    assert (tmp_path / "file").read_text() == "mine"


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


def test_resume_and_report_refuse_what_is_no_run(tmp_path: Path) -> None:
    for command in ("resume", "report"):
        refused(call(command, str(tmp_path)), "run.sqlite")
        refused(call(command, str(tmp_path / "none")), "run.sqlite")
        assert call(command).status == 2
    assert list(tmp_path.iterdir()) == []


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
    (tmp_path / "runs" / "digits-1").is_dir()
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["digits-1", "digits-2"]


def test_a_job_that_is_refused_leaves_no_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    called = call("train", *SMALL, "--epsilon", "-1", "--dropout", "2", "--cohort", "none")
    assert called.status == 2
    for name in ("epsilon", "dropout", "cohort"):
        assert f"{name}: got " in called.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--dataset", "nosuch"], "dataset: got nosuch; takes digits | mnist | mnist-writers"),
        (["--preset", "digits-demo", "--dataset", "nosuch"], "dataset: got nosuch"),
        (["--preset", "nosuch"], "preset: got nosuch; takes digits-demo | mnist |"),
        ([], "dataset: got None"),
        (["--job", "nosuch.toml"], "job: got nosuch.toml"),
        (["--dataset", "mnist-writers"], "data_dir: got None; takes a folder"),
        (["--dataset", "digits", "--aggregation", "magic"], "aggregation: got magic"),
        (["--dataset", "digits", "--processes", "0"], "processes: got 0; takes "),
        ([*SMALL, "--server", "nosy"], "server: got nosy; takes semi_honest | malicious"),
    ],
)
@pytest.mark.parametrize("command", ["train", "privacy"])
def test_what_is_unknown_is_refused_in_one_line(
    command: str, words: Sequence[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    refused(call(command, *words), said)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("dataset", ["mnist-writers", "fashion-mnist"])
def test_a_missing_file_says_what_to_download_to_where(dataset: str, tmp_path: Path) -> None:
    called = call("train", "--dataset", dataset, "--data-dir", str(tmp_path))
    refused(called, "https://", ".gz downloaded to ", str(tmp_path))


@pytest.mark.parametrize("words", [["--epochs", "3"], ["--rounds", "many"], ["--epsilon"]])
def test_flags_that_do_not_exist_or_fit_exit_with_2(words: Sequence[str], tmp_path: Path) -> None:
    called = call("train", *SMALL, "--out", str(tmp_path / "run"), *words)
    assert called.status == 2
    assert "Traceback" not in called.err
    assert list(tmp_path.iterdir()) == []


def test_help_is_printed_and_an_unknown_command_fails() -> None:
    for words in ([], ["--help"], ["-h"]):
        called = call(*words)
        assert called.status == 0
        assert "python -m fl resume RUN" in called.out
    called = call("trian")
    assert called.status == 2
    assert called.err == (
        "error: command: got trian; takes train | resume | report | datasets | privacy "
        "| audit | keygen | roster | client | deploy\n"
    )


@pytest.mark.parametrize("command", ["train", "privacy"])
def test_every_field_of_a_job_is_a_flag(command: str) -> None:
    called = call(command, "--help")
    assert called.status == 0
    for field in dataclasses.fields(fl.Job):
        assert f"--{field.name.replace('_', '-')}" in called.out


def test_datasets_are_listed_with_what_they_need() -> None:
    called = call("datasets")
    assert called.status == 0
    for description in fl.datasets.describe():
        assert f"{description.name}\n  {description.summary}\n" in called.out
        assert f"needs {description.needs}\n" in called.out


def test_a_set_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = ("datasets", "--plot", "digits", "--clients", "30", "--partition", "shards:2")
    assert call(*words).out == "digits-labels.svg\n"
    assert (tmp_path / "digits-labels.svg").read_text().startswith("<?xml")
    assert call(*words, "--out", "picture.png").status == 0
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
    refused(call(*words, "--out", "picture.txt"), "plot: got picture.txt; takes a file name")
    refused(call("datasets", "--plot", "digits"), "partition: got None")
    assert call("datasets", "--plot", "nosuch").status == 2


OPEN = ("privacy", "--dataset", "digits", "--clients", "20", "--partition", "iid", "--preset",
        "mnist")  # fmt: skip


def test_a_switch_that_is_on_may_be_given_again(tmp_path: Path) -> None:
    for words in (OPEN, (*OPEN, "--no-dp"), (*OPEN, "--no_dp")):
        called = call(*words)
        assert (called.status, called.err) == (0, "")
        assert "the plan is not private" in called.out


def test_a_target_that_is_asked_for_ends_a_presets_no_dp() -> None:
    called = call(*OPEN, "--epsilon", "4")
    assert called.status == 2
    for name in ("mechanism", "against", "delta", "clip_norm"):
        assert f"{name}: got None" in called.err
    private = ("--mechanism", "skellam", "--against", "server", "--delta", "1e-3",
               "--clip-norm", "1")  # fmt: skip
    for words in ((*OPEN, "--epsilon", "4", *private), (*OPEN, "--epsilon=4", *private)):
        assert "not private" not in call(*words).out
    assert "not private" in call(*OPEN, "--epsilon", "4", "--no-dp", *private).out


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


def worst_cases(text: str) -> dict[str, float]:
    """Adversary -> printed worst case, the last figure of its line."""
    rows = [line.split() for line in text.splitlines() if "<= " in line]
    return {row[0]: float(row[len(row) - row[::-1].index("<=")]) for row in rows}


def test_privacy_prints_the_statement_and_trains_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Training, "step", None)
    called = call("privacy", "--preset", "digits-demo")
    assert (called.status, called.err) == (0, "")
    shown = worst_cases(called.out)
    assert set(shown) == {"server", "participants", "outsider"}
    assert 3.99 < shown["server"] <= 4.0
    assert shown["outsider"] < shown["server"]
    assert "* zero-out: " in called.out
    assert list(tmp_path.iterdir()) == []


def test_flags_win_over_the_job_file_which_wins_over_the_preset(tmp_path: Path) -> None:
    path = tmp_path / "job.toml"
    job = dataclasses.replace(fl.PRESETS["digits-demo"], clients=30, rounds=2, epsilon=2.0)
    path.write_text(job.describe(), encoding="utf-8")
    from_file = call("privacy", "--job", str(path))
    assert 1.99 < worst_cases(from_file.out)["server"] <= 2.0
    assert "Preset" not in from_file.out
    from_flags = call("privacy", "--job", str(path), "--epsilon", "1.5")
    assert 1.49 < worst_cases(from_flags.out)["server"] <= 1.5


def test_a_broken_job_file_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "job.toml"
    path.write_text('dataset = "digits"\nspeed = 3\n', encoding="utf-8")
    refused(call("train", "--job", str(path)), "speed: got 3; takes no such name")
    path.write_text("dataset = ", encoding="utf-8")
    refused(call("train", "--job", str(path)), "job.toml", "takes a TOML file")


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
