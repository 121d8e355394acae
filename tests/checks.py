"""One refusal of a package, and how to take it out."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """A refusal, the text that makes it, and the tests that miss it.

    Attributes:
        what: what is refused, in words.
        holds_up: the hybrids of docs/protocol.md that need it, or what else does.
        file: in the suite's folder of code.
        text: occurs there exactly once.
        without: in its place, the refusal is gone.
        tests: `file::function` in the suite's folder of tests; each fails without the check.
    """

    what: str
    holds_up: str
    file: str
    text: str
    without: str
    tests: tuple[str, ...]


@dataclass(frozen=True)
class Suite:
    """The checks of a folder of code.

    Attributes:
        code: the folder.
        tests: the folder of the tests that they name.
        needs: files and folders that the tests load, beside pyproject.toml and conftest.py.
        checks: all of them.
    """

    code: str
    tests: str
    needs: tuple[str, ...]
    checks: tuple[Check, ...]


def check(what: str, holds_up: str, file: str, text: str, without: str, *tests: str) -> Check:
    """A Check whose tests come last."""
    return Check(what, holds_up, file, text, without, tests)
