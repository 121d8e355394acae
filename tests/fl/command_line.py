"""Calls the command line in process."""

import contextlib
import io
from pathlib import Path
from typing import Any, NamedTuple

from fl.__main__ import main
from fl.summary import read_summary

# One shape of clients, so that a run compiles few programs.
SMALL = ("--dataset", "digits", "--clients", "20", "--partition", "iid", "--rounds", "2")
SEEDED = (*SMALL, "--seeded-secrets")


class Called(NamedTuple):
    status: int
    out: str
    err: str


def call(*words: str) -> Called:
    """Runs one command; argument errors exit with a status too."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main(list(words))
        except SystemExit as error:
            status = error.code if isinstance(error.code, int) else 1
    return Called(status, out.getvalue(), err.getvalue())


def output(*words: str) -> str:
    """What a command prints that goes well."""
    called = call(*words)
    assert called.status == 0, called.err
    return called.out


def refusal(*words: str) -> str:
    """What a command says that is refused."""
    called = call(*words)
    assert called.status == 2
    return called.err


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def refused(called: Called, *words: str) -> None:
    """Exit status 2, one line, no traceback."""
    assert called.status == 2
    assert called.err.startswith("error: ")
    assert called.err.count("\n") == 1
    assert called.err.endswith("\n")
    for word in words:
        assert word in called.err


class Finished(NamedTuple):
    called: Called
    folder: Path
    summary: dict[str, Any]


def train(folder: Path, *flags: str) -> Finished:
    called = call("train", *flags, "--out", str(folder))
    assert (called.status, called.err) == (0, "")
    return Finished(called, folder, read_summary(folder))
