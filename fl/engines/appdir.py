"""The directory of a Flower app for one deployment: what `flwr run` ships, and the plan to sign."""

import contextlib
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

from fl.engines.deployment import Deployment
from fl.engines.files import write_file
from fl.errors import PlanError, fault

_PYPROJECT = """\
# What `flwr run` ships: the name of what the server has installed, and client_app.py, which passes
# bytes to each organisation's own process and does nothing else.
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "{name}"
version = "1.0.0"
description = "Private aggregation across organisations"
license = "Apache-2.0"
dependencies = ["private-aggregation[deploy]"]

[tool.flwr.app]
publisher = "{name}"

[tool.flwr.app.components]
serverapp = "fl.engines.flower:server_app"
clientapp = "client_app:app"

[tool.flwr.app.config]
plan = "" # the server's own plan file, an absolute path on the SuperLink's host
data-dir = "" # where the test set lies there
"""
_PLAN = """\
# The plan of one run. What is signed with the roster: session, records, classes and job.
session = {session}   # never used before: every key derives from it
roster = "roster.json"
state = "state"   # directory of what must survive a restart
timeout = {timeout}   # seconds per stage; [timeouts] may name single stages
{shared}
# Each organisation adds its own two lines; the server's plan has neither.
# member = 0                  which entry of the roster it is, from 0
# identity = "identity.key"   from `python -m fl keygen identity.key`

[job]
{job}
"""
_README = """\
# {session}

1. Every organisation: `python -m fl keygen identity.key`, and hands the line that it prints to the
   others by a way that nobody can change.
2. Anybody: `python -m fl roster collect roster.json NAME=KEY NAME=KEY ...`, and sends roster.json
   and plan.toml to everybody.
3. Every organisation: checks whose keys these are, adds `member` and `identity` at the top of its
   plan.toml, reads what `python -m fl privacy --plan plan.toml --data-dir DATA` says of it, then
   `python -m fl roster sign --plan plan.toml`, compares the hash with the others, and sends its
   roster.json back.
4. Anybody: `python -m fl roster merge roster.json COPY COPY ...`, and sends it to everybody again.
5. Every organisation: `python -m fl roster verify --plan plan.toml`, then
   `python -m fl client --plan plan.toml --data-dir DATA --socket client.sock`, and a SuperNode with
   `--node-config 'socket="/path/to/client.sock"'`.
6. The server: `flwr run . CONNECTION --run-config 'plan="/path/to/plan.toml"'`.

With `graph = "sparse"` each runs `python -m fl roster commit` before step 2, whose line has what it
prints, and `roster reveal` after step 4, which is then done again.

The project's docs/deployment.md has every command of SuperLink and SuperNodes, with TLS, and says
what each side must trust.
"""


def write_app(plan: Deployment, folder: Path, *, timeout: float) -> None:
    """Writes pyproject.toml, client_app.py, plan.toml and README.md.

    Args:
        plan: what is written; paths in it are not.
        folder: new, or empty.
        timeout: seconds per stage.

    Raises:
        PlanError: the folder holds something, or it or a file cannot be made; nothing is left then.
    """
    made = [path for path in (folder, *folder.parents) if not os.path.exists(path)]
    written: list[Path] = []
    try:
        _make_empty(folder)
        for file, text in _files(plan, timeout).items():
            write_file(folder / file, text, "dir", new="a new file")
            written.append(folder / file)
    except PlanError:
        _remove(written, made)
        raise


def _make_empty(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = next(folder.iterdir(), None)
    except OSError as error:
        raise PlanError((fault("dir", f"{folder}: {error.strerror}", "a directory"),)) from error
    if held is not None:
        raise PlanError((fault("dir", f"{folder}, which holds {held.name}", "an empty directory"),))


def _files(plan: Deployment, timeout: float) -> dict[str, str]:
    # Flower's rule for names: a letter, then letters, digits and hyphens, at most 32 in all.
    name = f"run-{re.sub(r'[^a-z0-9]+', '-', plan.session.lower())}"[:32].strip("-")
    shared = (
        "" if plan.records is None else f"records = {list(plan.records)}   # examples of each\n"
    )
    shared += "" if plan.classes is None else f"classes = {plan.classes}\n"
    return {
        "pyproject.toml": _PYPROJECT.format(name=name),
        "plan.toml": _PLAN.format(
            session=json.dumps(plan.session, ensure_ascii=False),
            timeout=timeout,
            shared=shared,
            job=plan.job.describe(),
        ),
        "README.md": _README.format(session=plan.session),
        "client_app.py": Path(__file__).with_name("client_app.py").read_text(encoding="utf-8"),
    }


def _remove(written: Sequence[Path], made: Sequence[Path]) -> None:
    """Files and, the innermost first, folders; what is not to be removed has not been made."""
    for path in written:
        with contextlib.suppress(OSError):
            path.unlink()
    for path in made:
        with contextlib.suppress(OSError):
            path.rmdir()
