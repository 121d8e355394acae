"""keygen, roster and deploy on the command line, from nothing to a roster that all signed."""

import re
import signal
import threading
import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import fl
from fl.__main__ import main
from fl.engines.deployment import read_deployment
from tests.fl.command_line import output, refusal

INIT = (
    *("deploy", "init", "app", "--preset", "heart-disease", "--graph", "complete"),
    *("--records", "202,196,83,136", "--rounds", "2"),
)
CLIENT_APP = Path(fl.__file__).parent / "engines" / "client_app.py"
NAMES = ("cleveland", "hungarian", "switzerland", "va")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def collected() -> None:
    """The app, four members' keys and their plans beside it."""
    output(*INIT)
    keys = [output("keygen", f"app/{i}.key").strip() for i in range(4)]
    members = [f"{name}={key}" for name, key in zip(NAMES, keys, strict=True)]
    output("roster", "collect", "app/roster.json", *members)
    for i in range(4):
        own = f'member = {i}\nidentity = "{i}.key"\n'
        Path(f"app/{i}.toml").write_text(own + Path("app/plan.toml").read_text())


def test_four_members_sign_and_the_server_verifies(folder: Path) -> None:
    collected()
    said = {output("roster", "sign", "--plan", f"app/{i}.toml").splitlines()[-1]
            for i in range(3)}  # fmt: skip
    assert "no signature by va;" in refusal("roster", "verify", "--plan", "app/plan.toml")
    said.add(output("roster", "sign", "--plan", "app/3.toml").splitlines()[-1])
    said.add(output("roster", "verify", "--plan", "app/plan.toml").splitlines()[-1])
    assert len(said) == 1  # everybody sees the same hash
    assert read_deployment("app/plan.toml").read_roster().names == NAMES


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (
            "seeded_secrets = false",
            "seeded_secrets = true",
            "keys, masks and noise of this plan follow from its seed",
        ),
        ("no_dp = false", "no_dp = true", "this plan adds no noise"),
    ],
)
def test_who_signs_is_told_that_a_plan_is_not_private(
    folder: Path, before: str, after: str, said: str
) -> None:
    collected()
    assert "NOT PRIVATE" not in output("roster", "sign", "--plan", "app/0.toml")
    path = Path("app/1.toml")
    assert before in path.read_text()
    path.write_text(path.read_text().replace(before, after))
    shown = output("roster", "sign", "--plan", "app/1.toml")
    assert f"NOT PRIVATE: {said}" in shown


def test_everybody_reads_the_same_promise_before_it_signs(folder: Path) -> None:
    collected()
    said = []
    for file, count in (("0.toml", 202), ("plan.toml", 0)):
        Path(f"app/{file}").write_text("classes = 2\n" + Path(f"app/{file}").read_text())
        Path(f"{file}.data").mkdir()
        x, y = np.zeros((count, 21), np.float32), np.zeros(count, np.int32)
        np.savez(f"{file}.data/own.npz", x=x, y=y, offsets=np.array([0, count]))
        words = ("privacy", "--plan", f"app/{file}", "--data-dir", f"{file}.data")
        said.append(output(*words))
    assert said[0] == said[1]
    assert re.search(r"^server +1e-05 .*<= [12]\.", said[0], re.MULTILINE)
    missing = refusal("privacy", "--plan=app/1.toml", "--data-dir", "plan.toml.data")
    assert "1 clients with 0 examples; takes one client with 196 examples" in missing


def test_copies_are_signed_apart_and_merged(folder: Path) -> None:
    collected()
    unsigned = Path("app/roster.json").read_text()
    for i in range(4):
        Path("app/roster.json").write_text(unsigned)
        out = output("roster", "sign", "--plan", f"app/{i}.toml")
        assert out.count("(has not signed)") == 3
        Path("app/roster.json").rename(f"app/copy-{i}.json")
    Path("app/roster.json").write_text(unsigned)
    copies = [f"app/copy-{i}.json" for i in range(4)]
    assert "4 of 4" in output("roster", "merge", "app/roster.json", *copies)
    output("roster", "verify", "--plan", "app/0.toml")


def test_a_plan_that_was_changed_after_signing_is_refused(folder: Path) -> None:
    collected()
    for i in range(4):
        output("roster", "sign", "--plan", f"app/{i}.toml")
    path = Path("app/plan.toml")
    path.write_text(path.read_text().replace("epsilon = 2.0", "epsilon = 9.0"))
    said = refusal("roster", "verify", "--plan", "app/plan.toml")
    assert "no valid signature by cleveland, hungarian, switzerland, va" in said


def test_a_member_cannot_sign_for_another(folder: Path) -> None:
    collected()
    path = Path("app/0.toml")
    path.write_text(path.read_text().replace("member = 0", "member = 2"))
    assert "which the roster lists for 2" in refusal("roster", "sign", "--plan", str(path))
    assert "not the server's" in refusal("roster", "sign", "--plan", "app/plan.toml")


def test_the_app_ships_a_byte_pipe_and_no_other_code(folder: Path) -> None:
    output(*INIT)
    assert sorted(path.name for path in Path("app").iterdir()) == [
        "README.md", "client_app.py", "plan.toml", "pyproject.toml",
    ]  # fmt: skip
    assert Path("app/client_app.py").read_bytes() == CLIENT_APP.read_bytes()
    app = tomllib.loads(Path("app/pyproject.toml").read_text())
    assert set(app["tool"]["flwr"]["app"]["components"]) == {"serverapp", "clientapp"}
    plan = read_deployment("app/plan.toml")
    assert (plan.job.rounds, plan.records, plan.member) == (2, (202, 196, 83, 136), None)
    assert set(plan.timeouts.values()) == {300.0}


@pytest.mark.parametrize("session", ["x", "3", "!!", "Zürich & Genève, the 3rd run of this spring"])
def test_flower_takes_the_apps_name(folder: Path, session: str) -> None:
    output(*INIT, "--session", session)
    name = tomllib.loads(Path("app/pyproject.toml").read_text())["project"]["name"]
    assert re.fullmatch(r"[a-z][a-z0-9-]{0,30}[a-z0-9]", name)
    assert read_deployment("app/plan.toml").session == session


def test_a_client_without_a_plan_says_so(folder: Path) -> None:
    said = refusal("client", "--plan", "none.toml", "--socket", "s")
    assert said.startswith("error: plan: got none.toml: ")
    output(*INIT)
    said = refusal("client", "--plan", "app/plan.toml", "--socket", "s")
    assert said.startswith("error: roster: got ")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("deploy go app", "invalid choice: 'go'"),
        ("roster", "the following arguments are required: action"),
        ("roster sign", "the following arguments are required: --plan"),
        ("client --socket s", "the following arguments are required: --plan"),
        ("client --plan p.toml", "the following arguments are required: --socket"),
    ],
)
def test_what_a_command_needs_is_asked_for(
    capsys: pytest.CaptureFixture[str], words: str, said: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words.split())
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_a_word_is_no_short_for_another(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main((*INIT, "--class", "2"))
    assert "--class" in capsys.readouterr().err
    assert not Path("app").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_client_ends_when_it_is_told_to(
    folder: Path, monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
) -> None:  # fmt: skip
    handlers: dict[int, Callable[..., None]] = {}

    def told(*_: object, stop: threading.Event, **__: object) -> None:
        assert not stop.is_set()
        handlers[number]()
        assert stop.is_set()

    monkeypatch.setattr("signal.signal", handlers.__setitem__)
    monkeypatch.setattr("fl.engines.commands.serve_client", told)
    output(*INIT)
    output("client", "--plan", "app/plan.toml", "--socket", "s")


def test_a_session_is_new_unless_given(folder: Path) -> None:
    def session(*words: str) -> str:
        output(*INIT[:2], words[0], *INIT[3:], *words[1:])
        return read_deployment(f"{words[0]}/plan.toml").session

    assert session("a") != session("b")
    assert session("c", "--session", 'The "first" run') == 'The "first" run'


def test_nothing_is_overwritten(folder: Path) -> None:
    output(*INIT)
    assert "takes an empty directory" in refusal(*INIT)
    Path("roster.json").touch()
    key = output("keygen", "a.key").strip()
    assert "a new file" in refusal("roster", "collect", "roster.json", f"a={key}")
    assert "never overwritten" in refusal("keygen", "a.key")


def test_a_job_that_cannot_be_deployed_writes_nothing(folder: Path) -> None:
    said = refusal("deploy", "init", "app", "--preset", "digits-demo")
    assert "job.simulate_dropout" in said
    said = refusal(*INIT, "--clip-norm", "-1", "--cohort", "cyclic:0")
    assert "job.clip_norm: got -1.0" in said  # before anybody signs, not when a process starts
    assert "job.cohort: got cyclic:0" in said
    assert not Path("app").exists()
    said = refusal(*INIT[:-4], "--records", "1,x")
    assert said == "error: records: got 1,x; takes N,N,...\n"
