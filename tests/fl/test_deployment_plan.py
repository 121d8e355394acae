"""The plan file of an organisation, its identity key, and the roster that all sign."""

import dataclasses
import json
import os
from pathlib import Path

import pytest

from fl.engines.deployment import Deployment, read_deployment
from fl.engines.roster import Roster, collect, make_identity, read_identity, read_roster
from fl.errors import PlanError
from fl.secure import STAGES

PLAN = """
session = "hearts, spring"
roster = "roster.json"
state = "state"
timeout = 60
records = [202, 196, 83, 136]
member = 1
identity = "1.key"

[timeouts]
mask_input = 600.5

[job]
dataset = "heart-disease"
rounds = 2
algorithm = "fedsgd"
aggregation = "secure"
server = "semi_honest"
graph = "complete"
corrupt = 0.25
dropout = 0.0
mechanism = "skellam"
unit = "record"
record_sampling = 0.2
against = "server"
epsilon = 2.0
delta = 1e-5
clip_norm = 1.0
"""
NAMES = ("cleveland", "hungarian", "switzerland", "va")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A plan file, four keys, and the roster that all four have signed."""
    (tmp_path / "plan.toml").write_text(PLAN)
    keys = [make_identity(tmp_path / f"{i}.key") for i in range(4)]
    collect([(name, key.hex()) for name, key in zip(NAMES, keys, strict=True)]).write(
        tmp_path / "roster.json"
    )
    sign(tmp_path, range(4))
    return tmp_path


def sign(folder: Path, members: range) -> None:
    plan = read_deployment(folder / "plan.toml")
    roster = plan.read_unsigned()
    for i in members:
        roster = roster.signed(read_identity(folder / f"{i}.key"), plan.session_id(roster))
    roster.write(folder / "roster.json")


def refused(folder: Path, *changes: tuple[str, str]) -> str:
    text = PLAN
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (folder / "plan.toml").write_text(text)
    with pytest.raises(PlanError) as raised:
        read_deployment(folder / "plan.toml").read_roster()
    return str(raised.value)


def test_a_plan_is_read(folder: Path) -> None:
    plan = read_deployment(folder / "plan.toml")
    assert plan.job.epsilon == 2.0
    assert plan.timeouts == dict.fromkeys(STAGES, 60) | {"mask_input": 600.5}
    assert plan.state == folder / "state"
    roster = plan.read_roster()
    assert roster.names == NAMES
    assert plan.read_identity(roster).public_key == roster.keys[1] == roster.identities[1]
    assert len(plan.session_id(roster)) == 32


def test_all_faults_are_listed_at_once(folder: Path) -> None:
    said = refused(folder, ('session = "hearts, spring"', "session = 3"), ("timeout = 60", "x = 1"))
    assert said.splitlines() == ["x: got 1; takes no such name", "session: got 3; takes text"]
    said = refused(
        folder, ("timeout = 60", ""), ('"complete"', '"sparse"'), ("rounds = 2", "processes = 2"),
        ('"secure"', '"ideal"'), ("dropout = 0.0", 'cohort = "poisson:0.5"\nclient_metrics = true'),
        ("record_sampling = 0.2", 'out = "runs"'),
    )  # fmt: skip
    named = [line.partition(":")[0] for line in said.splitlines()]
    missing = [f"timeouts.{stage}" for stage in STAGES if stage != "mask_input"]
    assert named == [
        *missing, "job.out", "job.aggregation", "job.cohort", "job.client_metrics",
        "job.processes", "job.record_sampling", "job.dropout",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ('session = "hearts, spring"', 'session = ""', "session"),
        ('session = "hearts, spring"', 'session = "hearts\\nspring"', "session"),
        ('roster = "roster.json"', "roster = 3", "roster"),
        ('state = "state"', "state = 3", "state"),
        ("[job]", "[[job]]", "job"),
        ("timeout = 60", "timeout = ", "plan"),
        ("timeout = 60", "timeout = 0", "timeouts.advertise_keys"),
        ("timeout = 60", "timeout = 1e9", "timeouts.advertise_keys"),
        ("mask_input = 600.5", "masks = 1", "timeouts.masks"),
        ("[timeouts]", "[[timeouts]]", "timeouts"),
        ("records = [202, 196, 83, 136]", "", "records"),
        ("records = [202, 196, 83, 136]", "records = 4", "records"),
        ("records = [202, 196, 83, 136]", "records = [1, 2, 3]", "records"),
        ("records = [202, 196, 83, 136]", "records = [1, 2, 3, -1]", "records[3]"),
        ("member = 1", "member = 4", "member"),
        ("member = 1", "member = true", "member"),
        ("timeout = 60", "timeout = 60\nclasses = 0", "classes"),
        ("member = 1", "", "identity"),
        ('identity = "1.key"', "", "identity"),
        ('identity = "1.key"', "identity = 1", "identity"),
        ('roster = "roster.json"', 'roster = "other.json"', "roster"),
        ("rounds = 2", "round = 2", "round"),
        ("rounds = 2", "clients = 5", "clients"),
        ("rounds = 2", 'data_dir = "data"', "job.data_dir"),
        ("rounds = 2", 'partition = "iid"', "job.partition"),
        ("rounds = 2", 'simulate_dropout = "unmask:0.1"', "job.simulate_dropout"),
    ],
)
def test_a_fault_names_its_field(folder: Path, old: str, new: str, named: str) -> None:
    assert refused(folder, (old, new)).startswith(f"{named}:")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("epsilon = 2.0", "epsilon = 20.0"),
        ("202", "203"),
        ("spring", "summer"),
        ("rounds = 2", "rounds = 2\nspare_releases = 1"),
        ("timeout = 60", "timeout = 60\nclasses = 2"),
    ],
)
def test_signatures_are_of_one_plan(folder: Path, old: str, new: str) -> None:
    said = refused(folder, (old, new))
    assert said.startswith(
        "roster: got no valid signature by cleveland, hungarian, switzerland, va;"
    )


def test_what_needs_no_roster_is_said_without_one(folder: Path) -> None:
    (folder / "roster.json").unlink()
    (folder / "plan.toml").write_text(PLAN.replace("member = 1", "member = -1"))
    with pytest.raises(PlanError, match="member: got -1; takes an integer, at least 0"):
        read_deployment(folder / "plan.toml")
    with pytest.raises(PlanError, match=r"plan: got .*none.toml: .*; takes a TOML file"):
        read_deployment(folder / "none.toml")
    public = PLAN.replace("records = [202, 196, 83, 136]", "").replace(
        "mechanism", "no_dp = true\nmax_norm = 1.0\nmechanism"
    )
    (folder / "plan.toml").write_text(public)  # records are not protected, so nobody counts them
    assert read_deployment(folder / "plan.toml").records is None


def test_what_is_a_members_own_is_not_signed(folder: Path) -> None:
    for old, new in (
        ("member = 1", "member = 2"),
        ("timeout = 60", "timeout = 5"),
        ("1.key", "2.key"),
    ):
        (folder / "plan.toml").write_text(PLAN.replace(old, new))
        read_deployment(folder / "plan.toml").read_roster()


def test_a_roster_signed_by_the_server_alone_is_refused(folder: Path) -> None:
    plan = read_deployment(folder / "plan.toml")
    server = make_identity(folder / "server.key")
    roster = read_roster(folder / "roster.json")
    keys = (server, *roster.keys[1:])
    Roster(NAMES, keys, {}).signed(
        read_identity(folder / "server.key"), plan.session_id(roster)
    ).write(folder / "roster.json")
    with pytest.raises(PlanError, match="no signature by hungarian, switzerland, va"):
        plan.read_roster()


def test_a_missing_signature_is_named_and_copies_merge(folder: Path) -> None:
    plan, roster = read_deployment(folder / "plan.toml"), read_roster(folder / "roster.json")
    only = {i: dataclasses.replace(roster, signatures={i: roster.signatures[i]}) for i in range(4)}
    merged = only[0].merged(only[1]).merged(only[3])
    with pytest.raises(PlanError, match="no signature by switzerland;"):
        merged.verify(plan.session_id(roster))
    merged.merged(only[2]).verify(plan.session_id(roster))
    renamed = dataclasses.replace(only[2], names=("a", *NAMES[1:]))
    rekeyed = dataclasses.replace(only[2], keys=(bytes(32), *roster.keys[1:]))
    for other in (renamed, rekeyed):
        with pytest.raises(PlanError, match="other names or keys"):
            merged.merged(other)
    all_signed = dataclasses.replace(roster, names=renamed.names)
    with pytest.raises(PlanError, match="no valid signature by a, hungarian, switzerland, va"):
        all_signed.verify(plan.session_id(all_signed))


def test_a_key_that_is_not_listed_does_not_sign(folder: Path) -> None:
    make_identity(folder / "stranger.key")
    roster = read_roster(folder / "roster.json")
    with pytest.raises(PlanError, match="does not list the key"):
        roster.signed(read_identity(folder / "stranger.key"), bytes(32))


def test_a_member_needs_its_own_key(folder: Path) -> None:
    (folder / "plan.toml").write_text(PLAN.replace("1.key", "2.key"))
    plan = read_deployment(folder / "plan.toml")
    with pytest.raises(PlanError, match=r"identity: got .*; takes .* for 1"):
        plan.read_identity(plan.read_roster())
    server = dataclasses.replace(plan, member=None, identity=None)
    with pytest.raises(PlanError, match="not the server's"):
        server.read_identity(plan.read_roster())


def test_an_identity_is_its_owners_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, synced = tmp_path / "a.key", list[int]()
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", lambda number: synced.append(os.fstat(number).st_size))
        public = make_identity(path)
    assert synced[0] == path.stat().st_size  # on disk before its public half is in any roster
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_identity(path).public_key == public
    before = path.read_bytes()
    with pytest.raises(PlanError, match="never overwritten"):
        make_identity(path)
    assert path.read_bytes() == before
    for mode in ("0640", "0604"):
        path.chmod(int(mode, 8))
        with pytest.raises(PlanError, match=f"mode {mode}"):
            read_identity(path)
    with pytest.raises(PlanError, match=r"identity: got .*b.key: No such file"):
        read_identity(tmp_path / "b.key")


@pytest.mark.parametrize("text", ["", "fl-identity-1 abc\n", "fl-identity-2 " + "0" * 64, "\xff"])
def test_a_file_that_is_no_identity_is_refused_and_not_shown(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.key"
    path.touch(mode=0o600)
    path.write_text(text, encoding="utf-8")
    with pytest.raises(PlanError, match=r"takes a file of .*keygen") as raised:
        read_identity(path)
    assert "abc" not in str(raised.value)
    assert raised.value.__suppress_context__ or raised.value.__context__ is None


@pytest.mark.parametrize(
    ("members", "named"),
    [
        ([("a", "00")], "roster:"),
        ([("a", "5" * 64), ("a", "6" * 64)], "roster[1].name:"),
        ([("a", "5" * 64), ("", "6" * 64)], "roster[1].name:"),
        ([("a", "5" * 64), ("b\n", "6" * 64)], "roster[1].name:"),
        ([("a", "5" * 64), ("b", "6" * 62)], "roster[1].key:"),
        ([("a", "5" * 64), ("b", "z" * 64)], "roster[1].key:"),
        ([("a", "5" * 64), ("b", "5" * 64)], "roster:"),
        ([("a", "5" * 64), ("b", "0" * 64)], "roster:"),  # of small order
    ],
)
def test_what_is_no_roster_is_refused(members: list[tuple[str, str]], named: str) -> None:
    with pytest.raises(PlanError) as raised:
        collect(members)
    assert str(raised.value).splitlines()[0].startswith(named)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"members": 3}', '{"members": [3]}'])
def test_a_file_that_is_no_roster_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "r.json").write_text(content)
    with pytest.raises(PlanError, match="roster"):
        read_roster(tmp_path / "r.json")
    rows = [{"name": "a", "key": "5" * 64, "signature": "77"}, {"name": "b", "key": "6" * 64}]
    (tmp_path / "r.json").write_text(json.dumps({"members": rows}))
    with pytest.raises(PlanError, match=r"roster\[0\].signature"):
        read_roster(tmp_path / "r.json")
    numbers = [{"name": 3, "key": "5" * 64}, {"name": "b", "key": 6}]
    (tmp_path / "r.json").write_text(json.dumps({"members": numbers}))
    with pytest.raises(PlanError, match=r"roster\[0\].name: got 3.*\nroster\[1\].key: got 6;"):
        read_roster(tmp_path / "r.json")


def test_a_file_that_is_read_as_a_roster_by_mistake_is_not_shown(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_bytes(b"\xffsecret")
    with pytest.raises(PlanError, match="takes a file of") as raised:
        read_roster(tmp_path / "r.json")
    assert "secret" not in str(raised.value)
    (tmp_path / "r.json").write_text("[" * 100_000)
    with pytest.raises(PlanError, match="takes a file of"):
        read_roster(tmp_path / "r.json")


def test_a_repr_holds_no_secret(folder: Path) -> None:
    plan = read_deployment(folder / "plan.toml")
    secret = (folder / "1.key").read_text().split()[1]
    key = plan.read_identity(plan.read_roster())
    assert secret not in repr(plan) + repr(key) + repr(plan.read_roster())
    assert isinstance(plan, Deployment)
