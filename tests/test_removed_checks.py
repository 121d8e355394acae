"""The list of checks is in step with the code, and with the table in docs/protocol.md.

`make removed-checks` takes each one out and shows that the tests it names fail.
"""

import ast
from pathlib import Path

import pytest

from secureagg import errors
from tests.secureagg import removed_checks

HERE = Path(__file__).parent
SOURCES = {p.name: p.read_text("utf-8") for p in (removed_checks.ROOT / "secureagg").glob("*.py")}


@pytest.mark.parametrize("item", removed_checks.CHECKS, ids=lambda item: item.what)
def test_each_check_is_in_the_code_and_has_tests(item):
    changed = removed_checks.removed(item, SOURCES[item.file])
    ast.parse(changed)
    assert changed != SOURCES[item.file]
    assert item.tests
    for test in item.tests:
        file, function = test.split("::")
        assert f"def {function}(" in (HERE / file).read_text("utf-8")


def test_each_check_is_listed_once():
    names = [item.what for item in removed_checks.CHECKS]
    assert len(set(names)) == len(names) > 140


def test_the_document_holds_the_table():
    text = (removed_checks.ROOT / "docs" / "protocol.md").read_text("utf-8")
    assert "\n".join(removed_checks.table()) in text


# raised where bytes are read, by callers of the package, or in simulations and predictions only
ELSEWHERE = {"adversaries.py", "simulate.py", "spread.py", "prediction.py", "finder.py", "cost.py"}


def refusals(source) -> list[int]:
    """Lines that raise an error of the package, or a ValueError, of their own accord."""
    names = {*vars(errors), "ValueError"}
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Raise)
        and node.cause is None  # or it passes another refusal on
        and isinstance(node.exc, ast.Call)
        and isinstance(node.exc.func, ast.Name)
        and node.exc.func.id in names
    ]


@pytest.mark.parametrize("file", sorted(set(SOURCES) - ELSEWHERE))
def test_every_refusal_in_the_code_is_in_the_list(file):
    """The first line of some check's text stands above each raise."""
    lines = SOURCES[file].splitlines()
    listed = [item.text for item in removed_checks.CHECKS if item.file == file]
    loose = []
    for number in refusals(SOURCES[file]):
        above = "\n".join(lines[max(0, number - 8) : number])
        if not any(text.strip().splitlines()[0] in above for text in listed):
            loose.append(f"{number}: {lines[number - 1].strip()}")
    assert loose == []
