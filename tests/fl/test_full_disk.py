"""Commands of an organisation on a disk that is full: an error that names the file, no half file.

The limit on the size of files is the kernel's own: what is longer is cut off there, as a full disk
cuts it off, and the rest is an OSError.
"""

import contextlib
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from fl.engines.deployment import read_deployment
from fl.engines.files import write_file
from fl.engines.openings import opening_file
from fl.errors import PlanError
from tests.fl.command_line import output, refusal
from tests.fl.test_deployment_commands import INIT
from tests.fl.test_deployment_run import SIZES, write_plans

MEND = "takes a file that can be written: nothing was; free space, or mend its folder"


@contextlib.contextmanager
def full_after(size: int) -> Iterator[None]:
    """No file grows beyond so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def fails(size: int, field: str, file: Path, *words: str) -> None:
    """The command fails at that file on a full disk and leaves all as it was."""
    before = contents()
    with full_after(size):
        said = refusal(*words)
    assert said.startswith(f"error: {field}: got {file}: File too large; {MEND}")
    assert contents() == before


def contents() -> dict[Path, bytes | None]:
    """Everything here: files, hidden ones too, and folders."""
    return {p: p.read_bytes() if p.is_file() else None for p in Path().rglob("*")}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def plans(folder: Path) -> Path:
    """Three members' plans with a sparse graph, committed to and collected."""
    write_plans(folder, SIZES, server="semi_honest", graph="sparse")
    said = [output("roster", "commit", "--plan", f"{i}.toml").strip() for i in range(3)]
    output("roster", "collect", "roster.json", *(f"org{i}={said[i]}" for i in range(3)))
    return folder


@pytest.mark.parametrize("size", [0, 40])
def test_keygen(folder: Path, size: int) -> None:
    fails(size, "identity", Path("a.key"), "keygen", "a.key")
    output("keygen", "a.key")


@pytest.mark.parametrize("made", [(), ("app",)])
@pytest.mark.parametrize(("size", "file"), [(0, "pyproject.toml"), (1000, "plan.toml")])
def test_deploy_init(folder: Path, size: int, file: str, made: tuple[str, ...]) -> None:
    for name in made:
        Path(name).mkdir()
    fails(size, "dir", Path("app") / file, *INIT)
    fails(size, "dir", Path("a/b/c") / file, *INIT[:2], "a/b/c", *INIT[3:])
    output(*INIT)


def test_an_opening_that_is_drawn(plans: Path) -> None:
    path = opening_file(Path("0.key"), read_deployment("0.toml").run_name)
    path.unlink()
    fails(30, "opening", path, "roster", "commit", "--plan", "0.toml")
    output("roster", "commit", "--plan", "0.toml")


def test_an_opening_that_is_revealed(plans: Path) -> None:
    for i in range(3):
        output("roster", "sign", "--plan", f"{i}.toml")
    path = opening_file(Path("0.key"), read_deployment("0.toml").run_name)
    words = ("roster", "reveal", "--plan", "0.toml")
    fails(path.stat().st_size + 10, "opening", path, *words)
    assert "revealed" not in path.read_text()
    output(*words)


@pytest.mark.parametrize("action", ["collect", "sign", "reveal", "merge"])
def test_a_roster(plans: Path, action: str) -> None:
    for i in range(3 if action == "reveal" else 0):
        output("roster", "sign", "--plan", f"{i}.toml")
    words = {
        "collect": ("new.json", f"a={output('keygen', 'a.key')[:64]}",
                    f"b={output('keygen', 'b.key')[:64]}"),
        "merge": ("roster.json", "roster.json"),
    }.get(action, ("--plan", "0.toml"))  # fmt: skip
    file = Path(words[0] if words[0].endswith("json") else "roster.json")
    with full_after(210):  # what is beside the key is shorter
        said = refusal("roster", action, *words)
    assert said.startswith(f"error: roster: got {file}: File too large; {MEND}")
    assert not [p for p in Path().rglob("*") if p.name.endswith(".new")]
    output("roster", action, *words)


def broken(number: int) -> None:
    """os.fsync on a disk that fails."""
    raise OSError(5, "Input/output error")


def broken_for_folders(number: int) -> None:
    if Path(f"/dev/fd/{number}").is_dir():
        broken(number)


def test_a_file_and_its_name_are_on_disk(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "x").write_text("before")
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", broken)
        with pytest.raises(PlanError, match=f"field: got x: Input/output error; {MEND}"):
            write_file(Path("x"), "after", "field")
    assert contents() == {Path("x"): b"before"}
    synced: list[bool] = []
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", lambda number: synced.append(Path(f"/dev/fd/{number}").is_dir()))
        write_file(Path("x"), "after", "field")
    assert synced == [False, True]
    assert contents() == {Path("x"): b"after"}
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", broken_for_folders)
        said = "field: got x: Input/output error; takes a folder that can be synced; the file is"
        with pytest.raises(PlanError, match=said):
            write_file(Path("x"), "last", "field")
    assert contents() == {Path("x"): b"last"}


def test_a_new_file_takes_the_place_of_none(folder: Path) -> None:
    Path("x").write_text("before")
    with pytest.raises(PlanError, match="field: got x: File exists; takes another"):
        write_file(Path("x"), "after", "field", new="another")
    assert contents() == {Path("x"): b"before"}
    write_file(Path("y"), "private", "field", private=True)
    assert Path("y").stat().st_mode & 0o777 == 0o600
