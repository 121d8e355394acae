"""Removes every refusal in turn: `python -m tests.removed_checks [FOLDER OF CODE]`.

A copy of the code is changed, one check at a time, and the tests that the check names are run
against it. Each must fail; whatever is missed is printed, and the exit status says so.
"""

import json
import os
import shutil
import sys
import tempfile
import traceback
from collections.abc import Iterable, Sequence
from pathlib import Path

import cryptography.hazmat.primitives.ciphers.aead  # noqa: F401 - loaded once, for all forks
import numpy as np  # noqa: F401
import optax  # noqa: F401
import pytest

from tests.checks import Check, Suite
from tests.fl.checks import answers, files, rosters
from tests.secureagg.checks import plan, records, roles, wire

ROOT = Path(__file__).parents[1]
SECUREAGG = Suite(
    "secureagg", "tests/secureagg", ("secureagg", "tests/secureagg", "tests/vectors"),
    (*wire.CHECKS, *roles.CHECKS, *plan.CHECKS, *records.CHECKS),
)  # fmt: skip
ENGINES = Suite(
    "fl/engines", "tests/fl", ("secureagg", "dp", "fl", "tests/fl"),
    (*answers.CHECKS, *files.CHECKS, *rosters.CHECKS),
)  # fmt: skip


def _say(*words: str) -> None:
    sys.stdout.write(" ".join(words) + "\n")
    sys.stdout.flush()


def table(suite: Suite) -> list[str]:
    """The lines of a document's table."""
    rows = ["| check | what it holds up | fails without it |", "|---|---|---|"]
    for item in suite.checks:
        tests = ", ".join(f"`{test}`" for test in item.tests)
        rows.append(f"| {item.what} | {item.holds_up} | {tests} |")
    return rows


def removed(item: Check, source: str) -> str:
    """The source of a file without the check.

    Raises:
        ValueError: the text does not occur exactly once.
    """
    if source.count(item.text) != 1:
        raise ValueError(f"{item.what}: {source.count(item.text)} times in {item.file}")
    return source.replace(item.text, item.without)


class _Failures:
    """A pytest plugin: which test functions of a folder failed, and how many ran."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.failed: set[str] = set()
        self.ran: set[str] = set()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        name = report.nodeid.split("[")[0].removeprefix(f"{self.folder}/")
        self.ran.add(name)
        if report.failed:
            self.failed.add(name)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.failed.add(report.nodeid)


def failing(
    folder: Path, suite: Suite, tests: Sequence[str], *options: str
) -> tuple[set[str], set[str]]:
    """Runs tests of the copy in a process of its own: (test functions that failed, that ran)."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        try:
            text = _in_copy(folder, suite, tests, options)
        except BaseException:  # noqa: BLE001 - the parent raises it
            text = traceback.format_exc()
        with os.fdopen(write, "w") as pipe:
            pipe.write(text)
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    if not text.startswith("["):
        raise RuntimeError(f"{tests} could not be run: {text}")
    failed, ran = json.loads(text)
    return set(failed), set(ran)


def _in_copy(folder: Path, suite: Suite, tests: Sequence[str], options: Sequence[str]) -> str:
    """Runs tests in this process, which must hold no module of the packages."""
    os.chdir(folder)
    os.environ["PYTHONPATH"] = str(folder)  # of processes that tests start
    sys.path[:] = [str(folder), *(p for p in sys.path if Path(p or ".").resolve() != ROOT)]
    for name in [n for n in sys.modules if n.split(".")[0] in ("secureagg", "dp", "fl", "tests")]:
        del sys.modules[name]
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    found = _Failures(suite.tests)
    named = [f"{suite.tests}/{test}" for test in tests]
    pytest.main(["-q", "-p", "no:cacheprovider", *options, *named], plugins=[found])
    where = sys.modules[suite.code.split("/")[0]].__file__ or ""
    if not Path(where).is_relative_to(folder):
        raise RuntimeError(f"tested {where}")
    return json.dumps([sorted(found.failed), sorted(found.ran)])


def copy_to(folder: Path, suite: Suite) -> None:
    """What the tests need, without byte code."""
    for name in suite.needs:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "tests/conftest.py", "tests/checks.py"):
        shutil.copy(ROOT / name, folder / name)


def try_all(suite: Suite, items: Iterable[Check], folder: Path) -> int:
    """Prints check > what it holds up > tests that fail; returns how many removals went unseen."""
    unseen = 0
    for item in items:
        path = folder / suite.code / item.file
        source = path.read_text(encoding="utf-8")
        path.write_text(removed(item, source), encoding="utf-8")
        try:
            found, _ = failing(folder, suite, item.tests)
        finally:
            path.write_text(source, encoding="utf-8")
        missed = [test for test in item.tests if test not in found]
        unseen += bool(missed or not item.tests)
        _say(f"{item.what} > {item.holds_up} > {', '.join(sorted(found)) or 'NOTHING'}")
        if missed:
            _say(f"  UNSEEN by {', '.join(missed)}")
    return unseen


def remove(suite: Suite) -> int:
    """Everything passes with all checks in place, and fails without any one: 0, or 1."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        copy_to(folder, suite)
        tests = sorted({test for item in suite.checks for test in item.tests})
        broken, ran = failing(folder, suite, tests)
        if broken or ran != set(tests):
            _say("with every check in place:", *sorted(broken | (set(tests) - ran)))
            return 1
        unseen = try_all(suite, suite.checks, folder)
    _say(f"{suite.code}: {len(suite.checks)} checks removed one by one, {unseen} unseen")
    return min(unseen, 1)


def main(words: Sequence[str]) -> int:
    """Removes the checks of the folders of code that are named, or of all."""
    sys.dont_write_bytecode = True
    suites = {suite.code: suite for suite in (SECUREAGG, ENGINES)}
    return max(remove(suites[word]) for word in words or suites)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
