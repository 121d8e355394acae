"""What the scripts share: their options, a core of their own, peers in other environments."""

import argparse
import json
import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks._results import Row

_PEERS = Path(__file__).parent / "peers"
# Whom `--peers` runs beside, and the environment that each of them lives in.
PEERS = {
    "fedjax": "fedjax", "pfl": "pfl", "flower": "flower", "opacus": "opacus",
    "dp-accounting": "accounting", "opendp": "accounting",
}  # fmt: skip


def options_of(doc: str | None, *, shows: bool = True) -> argparse.ArgumentParser:
    """A parser whose help is a script's docstring, with `--show` where it `shows`."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    if shows:
        parser.add_argument("--show", action="store_true", help="print what is there, run nothing")
    return parser


def integer_from(least: int) -> Callable[[str], int]:
    """The type of an option that is a whole number, from `least` on."""

    def number(text: str) -> int:
        found = int(text)
        if found < least:
            raise argparse.ArgumentTypeError(f"got {text}, takes {least} or more")
        return found

    return number


def take_peers(parser: argparse.ArgumentParser) -> None:
    """Adds `--peers` and where their environments are: the same words for every script."""
    parser.add_argument(
        "--peers", nargs="*", choices=[*PEERS], default=[],
        help="run those of them beside that do the same work; the script passes over the others",
    )  # fmt: skip
    parser.add_argument(
        "--folder", type=Path, default=Path("build/peers"),
        help="where benchmarks/peers/environments.py has made their environments",
    )  # fmt: skip


def beside_us(given: argparse.Namespace, able: tuple[str, ...]) -> list[str]:
    """Those peers of `--peers` that a script, or a row of it, has work for."""
    return [peer for peer in given.peers if peer in able]


def versions_text(found: Row) -> str:
    """The versions of a peer that found something, in one line."""
    return ", ".join(f"{name} {version}" for name, version in found["versions"].items())


def pin() -> None:
    """Keeps this process on one core, where the system can."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def ask_peer(folder: Path, peer: str, script: str, options: Mapping[str, object]) -> Row:
    """Runs a script of peers/ and returns the JSON of the last line that it prints.

    Args:
        folder: of the peers' environments.
        peer: a name in PEERS.
        script: its file's name.
        options: of the script, by name.
    """
    environment = PEERS[peer]
    python = folder / environment / "bin" / "python"
    if not python.exists():
        raise SystemExit(
            f"--peers {peer}: no {python}; it is made by"
            f" python -m benchmarks.peers.environments {environment} --folder {folder}"
        )
    words = [f"--{name}={value}" for name, value in options.items()]
    run = subprocess.run(  # noqa: S603 - the user's own interpreter, on a file of this project
        [str(python), str(_PEERS / script), *words], stdout=subprocess.PIPE, text=True, check=False
    )
    if run.returncode:
        raise SystemExit(
            f"--peers {peer}: {script} ended with {run.returncode}; what it said is above"
        )
    found: Row = json.loads(run.stdout.splitlines()[-1])
    return found
