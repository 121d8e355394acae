"""Removes every refusal of secureagg in turn: `python -m tests.secureagg.removed_checks`.

A copy of the package is changed, one check at a time, and the tests that the check names are run
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
import pytest

from tests.secureagg.checks import plan, records, roles, wire
from tests.secureagg.checks.case import Check

ROOT = Path(__file__).parents[2]
CHECKS: tuple[Check, ...] = (*wire.CHECKS, *roles.CHECKS, *plan.CHECKS, *records.CHECKS)


def _say(*words: str) -> None:
    sys.stdout.write(" ".join(words) + "\n")
    sys.stdout.flush()


def table() -> list[str]:
    """The lines of the table in docs/protocol.md."""
    rows = ["| check | what it holds up | fails without it |", "|---|---|---|"]
    for item in CHECKS:
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
    """A pytest plugin: which test functions failed, and how many ran."""

    def __init__(self) -> None:
        self.failed: set[str] = set()
        self.ran: set[str] = set()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        name = report.nodeid.split("[")[0].removeprefix("tests/secureagg/")
        self.ran.add(name)
        if report.failed:
            self.failed.add(name)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.failed.add(report.nodeid)


def failing(folder: Path, tests: Sequence[str], *options: str) -> tuple[set[str], set[str]]:
    """Runs tests of the copy in a process of its own: (test functions that failed, that ran)."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        try:
            text = _in_copy(folder, tests, options)
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


def _in_copy(folder: Path, tests: Sequence[str], options: Sequence[str]) -> str:
    """Runs tests in this process, which must hold no module of the package."""
    os.chdir(folder)
    sys.path[:] = [str(folder), *(p for p in sys.path if Path(p or ".").resolve() != ROOT)]
    for name in [n for n in sys.modules if n.split(".")[0] in ("secureagg", "tests")]:
        del sys.modules[name]
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    found = _Failures()
    named = [f"tests/secureagg/{test}" for test in tests]
    pytest.main(["-q", "-p", "no:cacheprovider", *options, *named], plugins=[found])
    where = sys.modules["secureagg"].__file__ or ""
    if not Path(where).is_relative_to(folder):
        raise RuntimeError(f"tested {where}")
    return json.dumps([sorted(found.failed), sorted(found.ran)])


def copy_to(folder: Path) -> None:
    """What the tests need, without byte code."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "secureagg", folder / "secureagg", ignore=ignored)
    for name in ("secureagg", "vectors"):
        shutil.copytree(ROOT / "tests" / name, folder / "tests" / name, ignore=ignored)
    for name in ("pyproject.toml", "tests/conftest.py"):
        shutil.copy(ROOT / name, folder / name)


def try_all(items: Iterable[Check], folder: Path) -> int:
    """Prints check > what it holds up > tests that fail; returns how many removals went unseen."""
    unseen = 0
    for item in items:
        path = folder / "secureagg" / item.file
        source = path.read_text(encoding="utf-8")
        path.write_text(removed(item, source), encoding="utf-8")
        try:
            found, _ = failing(folder, item.tests)
        finally:
            path.write_text(source, encoding="utf-8")
        missed = [test for test in item.tests if test not in found]
        unseen += bool(missed or not item.tests)
        _say(f"{item.what} > {item.holds_up} > {', '.join(sorted(found)) or 'NOTHING'}")
        if missed:
            _say(f"  UNSEEN by {', '.join(missed)}")
    return unseen


def main() -> int:
    """Everything passes with all checks in place, and fails without any one."""
    sys.dont_write_bytecode = True
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        copy_to(folder)
        tests = sorted({test for item in CHECKS for test in item.tests})
        broken, ran = failing(folder, tests)
        if broken or ran != set(tests):
            _say("with every check in place:", *sorted(broken | (set(tests) - ran)))
            return 1
        unseen = try_all(CHECKS, folder)
    _say(f"{len(CHECKS)} checks removed one by one, {unseen} unseen")
    return min(unseen, 1)


if __name__ == "__main__":
    sys.exit(main())
