"""Openings of a sparse graph: drawn for one session, committed to, revealed under one roster."""

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from fl.engines.deployment import read_deployment
from fl.engines.openings import draw_opening, held_opening, opening_file, reveal_opening
from fl.engines.roster import read_roster
from fl.errors import PlanError
from tests.fl.command_line import output, refusal
from tests.fl.test_deployment_run import SIZES, write_plans
from tests.fl.test_full_disk import broken

NAME, OTHER = bytes(32), bytes(range(32))
HASH, ANOTHER = "ab" * 32, "cd" * 32


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return tmp_path / "a.key"


def test_an_opening_is_drawn_once_for_a_session(key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", lambda number: synced.append(os.fstat(number).st_size))
        opening = draw_opening(key, NAME)
    path = opening_file(key, NAME)
    assert synced[0] == path.stat().st_size
    assert path.stat().st_mode & 0o777 == 0o600
    assert len(opening) == 32
    assert draw_opening(key, NAME) == opening == held_opening(key, NAME, HASH)
    assert draw_opening(key, OTHER) != opening
    assert path.read_text() == f"fl-opening-1 {opening.hex()}\n"


def test_an_opening_is_revealed_under_one_roster_and_never_committed_to_again(
    key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opening, synced = draw_opening(key, NAME), list[int]()
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", lambda number: synced.append(os.fstat(number).st_size))
        assert reveal_opening(key, NAME, HASH) == opening
    assert synced[0] == opening_file(key, NAME).stat().st_size  # before anybody is told
    assert reveal_opening(key, NAME, HASH) == opening == held_opening(key, NAME, HASH)
    with monkeypatch.context() as patch:  # the first time may have ended before the disk had it
        patch.setattr("os.fsync", broken)
        with pytest.raises(PlanError, match="Input/output error; takes a folder that can be sync"):
            reveal_opening(key, NAME, HASH)
    attempts: list[Callable[[], bytes]] = [
        lambda: reveal_opening(key, NAME, ANOTHER),
        lambda: held_opening(key, NAME, ANOTHER),
        lambda: draw_opening(key, NAME),
    ]
    for again in attempts:
        with pytest.raises(PlanError, match=f"revealed under roster {HASH}; takes a new session"):
            again()


@pytest.mark.parametrize(
    "text",
    [
        "", "fl-opening-1", "fl-opening-1 abc", "fl-opening-1 abcd", f"fl-opening-2 {HASH}",
        f"fl-opening-1 {HASH}\nrevealde {HASH}", f"fl-opening-1 {HASH}\nrevealed x\nrevealed y",
        "\xff",
    ],
)  # fmt: skip
def test_a_file_that_is_no_opening_is_refused_and_not_shown(key: Path, text: str) -> None:
    path = opening_file(key, NAME)
    path.touch(mode=0o600)
    path.write_text(text, encoding="utf-8")
    with pytest.raises(PlanError, match="no opening; takes a file of") as raised:
        held_opening(key, NAME, HASH)
    assert "abc" not in str(raised.value)
    assert raised.value.__suppress_context__ or raised.value.__context__ is None


def test_an_opening_is_its_owners_alone(key: Path) -> None:
    with pytest.raises(PlanError, match="No such file"):
        held_opening(key, NAME, HASH)
    draw_opening(key, NAME)
    for mode in ("0640", "0604"):
        opening_file(key, NAME).chmod(int(mode, 8))
        with pytest.raises(PlanError, match=f"mode {mode}"):
            held_opening(key, NAME, HASH)
    with pytest.raises(PlanError, match=r"opening: got .*: No such file"):
        draw_opening(key.parent / "nowhere" / "a.key", NAME)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three members' plans with a sparse graph; the working directory."""
    monkeypatch.chdir(tmp_path)
    write_plans(tmp_path, SIZES, server="semi_honest", graph="sparse")
    return tmp_path


def roster(action: str, *members: int) -> str:
    return "".join(output("roster", action, "--plan", f"{i}.toml") for i in members)


def collected() -> None:
    committed = [roster("commit", i).strip() for i in range(3)]
    Path("roster.json").unlink(missing_ok=True)
    output("roster", "collect", "roster.json", *(f"org{i}={committed[i]}" for i in range(3)))


def edit(member: int, **changes: str) -> None:
    rows = json.loads(Path("roster.json").read_text())
    rows["members"][member] |= changes
    Path("roster.json").write_text(json.dumps(rows))


def test_all_commit_all_sign_all_reveal_and_everybody_finds_the_same_seed(folder: Path) -> None:
    collected()
    assert roster("commit", 1).strip().partition(":")[2] == (
        read_roster(Path("roster.json")).commitments[1].hex()
    )  # it says the same as before
    roster("sign", 0, 1)
    said = refusal("roster", "reveal", "--plan", "0.toml")
    assert "no signature by org2" in said  # a commitment could still be changed
    assert (
        "revealed"
        not in opening_file(Path("0.key"), read_deployment("0.toml").run_name).read_text()
    )
    roster("sign", 2)
    unrevealed = Path("roster.json").read_text()
    for i in range(3):
        Path("roster.json").write_text(unrevealed)
        assert roster("reveal", i).count("(has not revealed)") == 2
        Path("roster.json").rename(f"copy{i}.json")
    Path("roster.json").write_text(unrevealed)
    assert "0 of 3 openings" in output("roster", "merge", "roster.json", "roster.json")
    output("roster", "merge", "roster.json", "copy0.json", "copy2.json")
    for party in ("0", "server"):
        said = refusal("roster", "verify", "--plan", f"{party}.toml")
        assert "no opening by org1; takes that of everybody listed" in said
    assert "3 of 3 openings" in output("roster", "merge", "roster.json", "copy1.json")
    plans = [read_deployment(f"{party}.toml") for party in (0, 1, 2, "server")]
    (seed,) = {plan.graph_seed(plan.read_roster()) for plan in plans}
    assert seed is not None
    assert len(seed) == 32
    edit(1, opening="00" * 32)
    said = refusal("roster", "verify", "--plan", "server.toml")
    assert "no valid opening by org1" in said


def test_commitments_are_in_what_is_signed(folder: Path) -> None:
    collected()
    roster("sign", 0, 1, 2)
    edit(1, commitment="00" * 32)
    said = refusal("roster", "verify", "--plan", "server.toml")
    assert "no valid signature by org0, org1, org2" in said


def test_nobody_signs_a_commitment_that_is_not_its_own(folder: Path) -> None:
    collected()
    edit(1, commitment="00" * 32)
    said = refusal("roster", "sign", "--plan", "1.toml")
    assert f"commitment: got {'00' * 32}; takes " in said
    roster("sign", 0)  # whoever it is not of cannot tell


def test_who_has_revealed_signs_no_other_roster_of_the_session(folder: Path) -> None:
    collected()
    roster("sign", 0, 1, 2)
    roster("reveal", 0, 0)
    path = opening_file(Path("2.key"), read_deployment("2.toml").run_name)
    path.unlink()  # member 2 withholds, and would choose its opening again, now knowing another's
    Path("roster.json").rename("first.json")
    said = refusal("roster", "commit", "--plan", "0.toml")
    assert "takes a new session in everybody's plan" in said
    keys = [row["key"] for row in json.loads(Path("first.json").read_text())["members"]]
    old = read_roster(Path("first.json")).commitments
    new = [f"{keys[0]}:{old[0].hex()}", f"{keys[1]}:{old[1].hex()}"]
    new.append(roster("commit", 2).strip())
    output("roster", "collect", "roster.json", *(f"org{i}={new[i]}" for i in range(3)))
    said = refusal("roster", "sign", "--plan", "0.toml")
    assert "takes a new session in everybody's plan" in said
    for i in range(3):
        Path(f"{i}.toml").write_text(Path(f"{i}.toml").read_text().replace("three", "again, three"))
    collected()
    roster("sign", 0, 1, 2)
    roster("reveal", 0, 1, 2)


def test_a_sparse_graph_takes_a_commitment_of_everybody(folder: Path) -> None:
    committed = [roster("commit", i).strip() for i in range(3)]
    words = ("roster", "collect", "roster.json")
    some = [f"org{i}={text[: None if i else 64]}" for i, text in enumerate(committed)]
    said = refusal(*words, *some)
    assert "roster: got 2 commitments of 3 members; takes one of everybody, or none" in said
    said = refusal(*words, f"org0={committed[0][:-1]}", *some[1:])
    assert "roster[0].commitment: got " in said
    output(*words, *(text[:69] for text in some[1:]), some[0])
    said = refusal("roster", "sign", "--plan", "0.toml")
    assert "roster: got no commitments under a sparse graph; takes one of each member" in said


def test_openings_are_of_members_and_of_sparse_graphs(folder: Path) -> None:
    said = refusal("roster", "commit", "--plan", "server.toml")
    assert "identity: got None; takes that of a member: not the server's" in said
    Path("0.toml").write_text(Path("0.toml").read_text().replace('"sparse"', '"complete"'))
    for action in ("commit", "reveal"):
        said = refusal("roster", action, "--plan", "0.toml")
        assert "job.graph: got complete; takes sparse" in said
    assert read_deployment("0.toml").graph_seed(None) is None  # type: ignore[arg-type]


def test_an_opening_is_not_replaced_by_a_copy_with_another(folder: Path) -> None:
    collected()
    roster("sign", 0, 1, 2)
    roster("reveal", 0, 1)
    kept = Path("roster.json").read_text()
    edit(0, opening="00" * 32)  # by member 2: who would be blamed, and all begin again?
    Path("roster.json").rename("copy2.json")
    for ours, copy in ((kept, "copy2.json"), (Path("copy2.json").read_text(), "copy0.json")):
        Path("roster.json").write_text(ours)
        Path("copy0.json").write_text(kept)
        said = refusal("roster", "merge", "roster.json", copy)
        assert "roster: got two different openings of org0; takes each from its member's" in said
        assert Path("roster.json").read_text() == ours


def test_copies_with_other_commitments_are_not_merged(folder: Path) -> None:
    collected()
    found = read_roster(Path("roster.json"))
    other = dataclasses.replace(found, commitments=(bytes(32), *found.commitments[1:]))
    with pytest.raises(PlanError, match="other commitments"):
        found.merged(other)
