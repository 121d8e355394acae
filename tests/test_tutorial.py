"""docs/tutorial.md is run from top to bottom, in an empty directory; README shows a real run."""

import doctest
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fl.__main__ import main

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def shell(commands: str, where: Path) -> str:
    """What commands print, as the reader's shell runs them: `python` is this interpreter."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-e", "-c", commands],  # noqa: S607 - the reader's shell
        capture_output=True, text=True, check=False, cwd=where,
        env={**os.environ, "PATH": path, "HOME": str(where)},
    )  # fmt: skip
    assert done.returncode == 0, f"{commands}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def test_the_page_has_commands_and_snippets_and_ci_runs_how_it_begins() -> None:
    kinds = [kind for kind, _ in BLOCKS]
    assert kinds.count("bash") >= 3
    assert kinds.count("python") >= 5
    (install,) = [text for kind, text in BLOCKS if not kind]
    assert install.splitlines()[0] in (ROOT / ".ci" / "run").read_text().splitlines()


@pytest.mark.slow
def test_every_command_and_snippet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    parser, said = doctest.DocTestParser(), ""
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS, verbose=False)
    for number, (kind, text) in enumerate(BLOCKS):
        if kind == "bash":
            said += shell(text, tmp_path)
        elif kind == "python":
            part = parser.get_doctest(text, names, f"snippet {number}", "tutorial.md", 0)
            failures: list[str] = []
            runner.run(part, out=failures.append, clear_globs=False)
            assert not runner.summarize(verbose=False).failed, "".join(failures)
            names = part.globs
    for quoted in re.findall(r"^    (\S.*)$", PAGE, re.MULTILINE):
        if quoted.startswith("error:"):
            assert quoted in said


@pytest.mark.slow
def test_the_table_of_the_readme_is_the_demos(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Under Ideal, which has the survivors and figures of Secure."""
    run = ["train", "--preset", "digits-demo", "--aggregation", "ideal"]
    assert main([*run, "--out", str(tmp_path / "run")]) == 0
    said = capsys.readouterr().out.splitlines()
    readme = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    shown = [line for line in readme if re.match(r"(server|participants|outsider) +0\.001", line)]
    assert len(shown) == 3
    assert set(shown) <= set(said)
