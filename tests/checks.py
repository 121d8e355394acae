"""One refusal of the package, and how to take it out."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """A refusal, the text that makes it, and the tests that miss it.

    Attributes:
        what: what is refused, in words.
        holds_up: the hybrids of docs/protocol.md that need it, or what else does.
        file: in secureagg/.
        text: occurs there exactly once.
        without: in its place, the refusal is gone.
        tests: `file::function` in tests/secureagg; each fails without the check.
    """

    what: str
    holds_up: str
    file: str
    text: str
    without: str
    tests: tuple[str, ...]


def check(what: str, holds_up: str, file: str, text: str, without: str, *tests: str) -> Check:
    """A Check whose tests come last."""
    return Check(what, holds_up, file, text, without, tests)
