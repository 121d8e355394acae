"""Which rosters a member has signed: one in a session, and it runs under the last alone."""

import threading
from pathlib import Path

import pytest

from fl.engines.client import serve_client
from fl.engines.deployment import read_deployment
from fl.engines.signings import check_signed_last, record_signing, signings_line
from fl.errors import PlanError
from tests.fl.command_line import output, refusal
from tests.fl.test_deployment_run import SIZES, write, write_plans
from tests.fl.test_full_disk import broken

RUN, OTHER = bytes(32), bytes(range(32))
FIRST, SECOND, THIRD = "ab" * 32, "cd" * 32, "ef" * 32


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return tmp_path / "a.key"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_second_roster_of_a_session_is_refused_unless_it_is_asked_for(key: Path) -> None:
    record_signing(key, RUN, FIRST)
    record_signing(key, RUN, FIRST)  # the same again is nothing new
    said = f"roster: got {SECOND}, after {FIRST} in the same session; takes .* --another"
    with pytest.raises(PlanError, match=said):
        record_signing(key, RUN, SECOND)
    check_signed_last(key, RUN, FIRST)
    record_signing(key, OTHER, SECOND)  # another session's
    record_signing(key, RUN, SECOND, another=True)
    check_signed_last(key, RUN, SECOND)
    with pytest.raises(PlanError, match=f"{FIRST}; it has signed {SECOND} since; takes the roster"):
        check_signed_last(key, RUN, FIRST)
    with pytest.raises(PlanError, match="after"):
        record_signing(key, RUN, FIRST)
    record_signing(key, RUN, FIRST, another=True)
    check_signed_last(key, RUN, FIRST)
    assert {path.stat().st_mode & 0o777 for path in key.parent.iterdir()} == {0o600}


def test_the_last_of_many_is_the_last(key: Path) -> None:
    rosters = [f"{i:064x}" for i in range(12)]
    for roster in rosters:
        record_signing(key, RUN, roster, another=True)
    check_signed_last(key, RUN, rosters[-1])
    for roster in rosters[:-1]:
        with pytest.raises(PlanError, match=f"{roster}; it has signed {rosters[-1]} since"):
            check_signed_last(key, RUN, roster)


def test_two_commands_at_once_do_not_sign_two_rosters(
    key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record_signing(key, RUN, FIRST)
    with monkeypatch.context() as patch:
        patch.setattr("fl.engines.signings._signings", lambda identity: [])  # read before that
        with pytest.raises(PlanError, match="File exists; takes a new file"):
            record_signing(key, RUN, SECOND)
    check_signed_last(key, RUN, FIRST)


def test_a_member_does_not_run_under_what_it_has_not_signed_here(key: Path) -> None:
    with pytest.raises(
        PlanError, match=r"without a record beside .*a\.key that it was signed here"
    ):
        check_signed_last(key, RUN, FIRST)
    record_signing(key, OTHER, FIRST)
    record_signing(key.with_name("b.key"), RUN, FIRST)
    with pytest.raises(PlanError, match="without a record"):
        check_signed_last(key, RUN, FIRST)


@pytest.mark.parametrize("text", ["", f"fl-signed-2 {FIRST}\n", f"fl-signed-1 {FIRST}", "\xff"])
def test_a_record_that_was_changed_is_refused(key: Path, text: str) -> None:
    record_signing(key, OTHER, FIRST)
    (path,) = key.parent.iterdir()
    path.write_text(text, encoding="utf-8")
    for name in (OTHER, RUN):
        with pytest.raises(PlanError, match=r"signed: got .*; takes files of"):
            record_signing(key, name, FIRST)
    with pytest.raises(PlanError, match="No such file"):
        signings_line(key.parent / "nowhere" / "a.key", RUN, sparse=True)


def test_a_record_that_is_gone_is_missed(key: Path) -> None:
    for roster in (FIRST, SECOND, THIRD):
        record_signing(key, RUN, roster, another=True)
    record_signing(key, OTHER, FIRST)
    key.with_name("a.key.0000000000000000.signed.2").unlink()
    with pytest.raises(PlanError, match=r"signed\.3, without the one before it; takes files of"):
        check_signed_last(key, RUN, THIRD)
    key.with_name("a.key.0000000000000000.signed.1").unlink()
    with pytest.raises(PlanError, match="without the one before it"):
        signings_line(key, OTHER, sparse=False)


def test_a_record_is_on_disk_before_it_counts(key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record_signing(key, RUN, FIRST)
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", broken)
        said = r"signed: got .*\.signed\.1: Input/output error; takes a folder that can be synced"
        with pytest.raises(PlanError, match=said):
            record_signing(key, RUN, FIRST)


def test_what_a_member_signed_is_counted_by_roster(key: Path) -> None:
    for sparse in (False, True):  # without a record there is no R to speak of
        assert signings_line(key, RUN, sparse=sparse).endswith(": 0 in this session, 0 in all")
    record_signing(key, RUN, FIRST)
    one = signings_line(key, RUN, sparse=True)
    assert "R = 1, the rosters signed for this run: at most 0.0 of security_bits" in one
    for roster in (SECOND, FIRST):
        record_signing(key, RUN, roster, another=True)
    record_signing(key, OTHER, THIRD)
    assert signings_line(key, RUN, sparse=False).endswith(": 2 in this session, 3 in all")
    three = signings_line(key, RUN, sparse=True)  # log2(3) = 1.585, rounded up
    assert "R = 2 to 3, the rosters signed for this run: at most 1.6 of security_bits" in three


def test_a_member_signs_one_plan_of_a_session(folder: Path) -> None:
    write(folder)
    path = Path("0.toml")
    path.write_text(path.read_text().replace("rounds = 2", "rounds = 9"))
    before = Path("roster.json").read_bytes()
    said = refusal("roster", "sign", "--plan", "0.toml")
    assert said.startswith("error: roster: got ")
    assert "in the same session; takes the roster that this member signed" in said
    assert Path("roster.json").read_bytes() == before
    said = output("roster", "sign", "--plan", "0.toml", "--another")
    assert "rosters on record beside this key: 2 in this session, 2 in all\n" in said


def test_a_members_process_runs_under_the_roster_that_it_signed_last(folder: Path) -> None:
    write(folder)
    plan = read_deployment("0.toml")
    record_signing(plan.key_file, plan.run_name, FIRST, another=True)
    stop = threading.Event()
    stop.set()  # a process that starts after all ends at once
    with pytest.raises(PlanError, match=f"it has signed {FIRST} since"):
        serve_client(plan, folder / "0.sock", data_dir="data0", stop=stop)
    assert not (folder / "state0").exists()


def test_an_opening_is_revealed_under_the_roster_that_was_signed_last(folder: Path) -> None:
    write_plans(folder, SIZES, server="semi_honest", graph="sparse")
    said = [output("roster", "commit", "--plan", f"{i}.toml").strip() for i in range(3)]
    output("roster", "collect", "roster.json", *(f"org{i}={said[i]}" for i in range(3)))
    shown = [output("roster", "sign", "--plan", f"{i}.toml") for i in range(3)]
    assert "sparse graph: at most R times the statement's protocol failure, R = 1," in shown[0]
    plan = read_deployment("0.toml")
    record_signing(plan.key_file, plan.run_name, FIRST, another=True)
    assert f"it has signed {FIRST} since" in refusal("roster", "reveal", "--plan", "0.toml")
