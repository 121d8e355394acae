"""The command line: what it says before anything runs, and what it refuses."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pytest

import fl
from fl.training import Training
from tests.fl.command_line import SMALL, call, refused


def test_a_file_in_the_way_is_refused_and_untouched(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    refused(call("train", *SMALL, "--out", str(tmp_path / "file")), "out")
    assert (tmp_path / "file").read_text() == "mine"


def test_resume_and_report_refuse_what_is_no_run(tmp_path: Path) -> None:
    for command in ("resume", "report"):
        refused(call(command, str(tmp_path)), "run.sqlite")
        refused(call(command, str(tmp_path / "none")), "run.sqlite")
        assert call(command).status == 2
    assert list(tmp_path.iterdir()) == []


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
