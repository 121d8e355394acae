"""What the scripts share: their options, a core of their own, peers in other environments."""

import argparse
import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from benchmarks._results import Row

_PEERS = Path(__file__).parent / "peers"


def options_of(doc: str | None) -> argparse.ArgumentParser:
    """A parser that prints a script's docstring as its help, and takes `--show`."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--show", action="store_true", help="print what is there, run nothing")
    return parser


def pin() -> None:
    """Keeps this process on one core, where the system can."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def ask_peer(python: Path, script: str, options: Mapping[str, object]) -> Row:
    """Runs a script of peers/ and returns the JSON of the last line that it prints.

    Args:
        python: the interpreter of the peer's environment.
        script: its file's name.
        options: of the script, by name.
    """
    words = [f"--{name}={value}" for name, value in options.items()]
    run = subprocess.run(  # noqa: S603 - the user's own interpreter, on a file of this project
        [str(python), str(_PEERS / script), *words], stdout=subprocess.PIPE, text=True, check=True
    )
    found: Row = json.loads(run.stdout.splitlines()[-1])
    return found
