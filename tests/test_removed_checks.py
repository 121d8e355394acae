"""The lists of checks are in step with the code, and with the table in docs/protocol.md.

`make removed-checks` takes each one out and shows that the tests it names fail.
"""

import ast
from functools import cache

import pytest

import fl.errors
import secureagg.errors
from tests import removed_checks
from tests.checks import Check, Suite
from tests.removed_checks import ENGINES, ROOT, SECUREAGG

ERRORS = {*vars(secureagg.errors), *vars(fl.errors), "ValueError", "TypeError"}
# raised where bytes are read, by callers of the package, or in simulations and predictions only
ELSEWHERE = {"adversaries.py", "simulate.py", "spread.py", "prediction.py", "finder.py", "cost.py"}
SUITES = (SECUREAGG, ENGINES)


@cache
def sources(suite: Suite) -> dict[str, str]:
    return {path.name: path.read_text("utf-8") for path in (ROOT / suite.code).glob("*.py")}


@pytest.mark.parametrize(
    ("suite", "item"),
    [
        pytest.param(suite, item, id=f"{suite.code}: {item.what}")
        for suite in SUITES
        for item in suite.checks
    ],
)
def test_each_check_is_in_the_code_and_has_tests(suite: Suite, item: Check) -> None:
    source = sources(suite)[item.file]
    changed = removed_checks.removed(item, source)
    ast.parse(changed)
    assert changed != source
    assert item.tests
    for test in item.tests:
        file, function = test.split("::")
        assert f"def {function}(" in (ROOT / suite.tests / file).read_text("utf-8")


@pytest.mark.parametrize(("suite", "least"), [(SECUREAGG, 140), (ENGINES, 160)])
def test_each_check_is_listed_once(suite: Suite, least: int) -> None:
    names = [item.what for item in suite.checks]
    assert len(set(names)) == len(names) > least


def test_the_document_holds_the_table() -> None:
    text = (ROOT / "docs" / "protocol.md").read_text("utf-8")
    assert "\n".join(removed_checks.table(SECUREAGG)) in text


def refusals(source: str) -> list[int]:
    """Lines that raise an error of the packages, or one of a value, of their own accord."""
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Raise)
        and node.cause is None  # or it passes another refusal on
        and isinstance(node.exc, ast.Call)
        and isinstance(node.exc.func, ast.Name)
        and node.exc.func.id in ERRORS
    ]


@pytest.mark.parametrize(
    ("suite", "file"),
    [
        pytest.param(suite, file, id=f"{suite.code}/{file}")
        for suite in SUITES
        for file in sorted(set(sources(suite)) - ELSEWHERE)
    ],
)
def test_every_refusal_in_the_code_is_in_the_list(suite: Suite, file: str) -> None:
    """The first line of some check's text stands above each raise."""
    source = sources(suite)[file]
    lines = source.splitlines()
    listed = [item.text for item in suite.checks if item.file == file]
    loose = []
    for number in refusals(source):
        above = "\n".join(lines[max(0, number - 8) : number])
        if not any(text.strip().splitlines()[0] in above for text in listed):
            loose.append(f"{number}: {lines[number - 1].strip()}")
    assert loose == []
