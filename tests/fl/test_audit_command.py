"""`python -m fl audit`: bounds beside claims in summary.json, report.html and on the terminal."""

import contextlib
import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import pytest

import fl
from fl.__main__ import main
from fl.audit.command import job_of, under_secure
from fl.errors import StoreError
from fl.report import render_report

JOB: dict[str, Any] = {
    "dataset": "digits", "clients": 12, "partition": "iid", "rounds": 2, "eval_every": 2,
    "aggregation": "ideal", "corrupt": 0.1, "dropout": 0.1, "mechanism": "skellam",
    "against": "server", "epsilon": 4.0, "delta": 1e-3, "clip_norm": 0.5,
}  # fmt: skip


def job_file(folder: Path, **overrides: Any) -> Path:
    path = folder / "job.toml"
    path.write_text(fl.Job(**{**JOB, **overrides}).describe(), encoding="utf-8")
    return path


def read(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    return found


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A job that was audited, and what was printed."""
    folder, printed = tmp_path_factory.mktemp("audited"), io.StringIO()
    with contextlib.redirect_stdout(printed):
        words = ["audit", str(job_file(folder)), "--canaries", "8", "--out", str(folder / "run")]
        assert main(words) == 0
    return folder / "run", printed.getvalue()


def test_a_job_is_audited_under_the_protocol_and_its_run_is_kept(audited):
    out, shown = audited
    summary = read(out)
    assert summary["aggregation"] == "secure"
    assert summary["num_clients"] == 20
    assert summary["audit"]["canaries"] == 8
    assert summary["audit"]["confidence"] == 0.95
    names = [one["name"] for one in summary["audit"]["detectors"]]
    assert "too little noise" in names
    for row in summary["privacy"]["rows"]:
        found = row["audited"]
        assert found["claimed"] == row["epsilon"]["worst_case"]["upper"]
        assert found["lower"] <= found["claimed"]
        assert found["refuted"] is False
        assert found["estimate_label"] == "estimate, not a bound"
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "audited &ge;" in page
    assert "confidence 95 %" in page
    assert "audited (95 %)" in shown
    assert "too little noise" in shown


@pytest.mark.slow
def test_a_run_is_completed_and_a_row_without_a_figure_stays_without_a_bound(tmp_path):
    out = tmp_path / "run"
    words = ["train", "--job", str(job_file(tmp_path, mechanism="gaussian", against="outsider"))]
    assert main([*words, "--out", str(out)]) == 0
    before = read(out)
    assert main(["audit", str(out), "--canaries", "8", "--significance", "0.01"]) == 0
    after = read(out)
    assert after["model_sha256"] == before["model_sha256"]
    assert after["num_clients"] == 12
    audited = {row["adversary"]: row["audited"] for row in after["privacy"]["rows"]}
    assert audited["server"] is None
    assert audited["outsider"]["confidence"] == 0.99
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "central noise gives no guarantee against the server" in page


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--canaries", "0"], "canaries: got 0"),
        (["--significance", "1"], "significance: got 1.0"),
        (["--guesses", "9", "--canaries", "8"], "guesses: got 9"),
    ],
    ids=("canaries", "significance", "guesses"),
)
def test_what_is_asked_wrongly_is_refused(tmp_path, capsys, words, says):
    assert main(["audit", str(job_file(tmp_path)), "--out", str(tmp_path / "x"), *words]) == 2
    assert says in capsys.readouterr().err


def test_a_plan_that_claims_nothing_is_refused(tmp_path, capsys):
    path = job_file(tmp_path, no_dp=True, max_norm=1.0)
    assert main(["audit", str(path), "--out", str(tmp_path / "x")]) == 2
    assert "a private plan" in capsys.readouterr().err


def test_a_directory_without_a_run_is_refused(tmp_path, capsys):
    assert main(["audit", str(tmp_path)]) == 2
    assert capsys.readouterr().err
    with pytest.raises(StoreError):
        job_of(tmp_path)


def test_ideal_is_audited_as_secure_and_others_as_they_are():
    job = fl.Job(**JOB)
    assert under_secure(job) == dataclasses.replace(job, aggregation="secure", server="semi_honest")
    plain = dataclasses.replace(job, aggregation="plain")
    assert under_secure(plain) is plain


def test_a_refuted_row_says_so_and_a_run_without_audit_has_no_column(audited):
    summary = read(audited[0])
    summary["privacy"]["rows"][0]["audited"] |= {"refuted": True, "lower": 4.3219}
    summary["audit"]["detectors"][0]["alarm"] = True
    page = render_report(summary, [])
    assert "≥ 4.32, above the claim" in page
    assert "<strong>alarm</strong>" in page
    del summary["audit"]
    assert "audited" not in render_report(summary, [])
