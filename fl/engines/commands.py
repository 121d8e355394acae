"""The commands of a deployment: keygen, roster, deploy, client, and privacy of its plan.

    python -m fl keygen FILE                      an identity key; prints what goes into the roster
    python -m fl deploy init DIR --job FILE       a Flower app and the plan that all will sign
    python -m fl roster commit --plan FILE        with a sparse graph: draws the member's opening
    python -m fl roster collect FILE NAME=KEY...  the list of who takes part, unsigned
    python -m fl privacy --plan FILE --data-dir DIR   what a plan promises, before it is signed
    python -m fl roster sign --plan FILE          adds the signature of the plan's member
    python -m fl roster reveal --plan FILE        with a sparse graph, once all have signed
    python -m fl roster merge FILE COPY...        adds the signatures and openings of other copies
    python -m fl roster verify --plan FILE        refuses a roster that not everybody signed
    python -m fl client --plan FILE --data-dir DIR --socket PATH   an organisation's own process

docs/deployment.md goes through them in order.
"""

import argparse
import logging
import secrets
import signal
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from fl.console import privacy_table
from fl.engines.appdir import write_app
from fl.engines.client import serve_client
from fl.engines.deployment import Deployment, read_deployment
from fl.engines.openings import draw_opening, held_opening, reveal_opening
from fl.engines.owndata import own_data
from fl.engines.roster import Roster, collect, make_identity, read_identity, read_roster
from fl.engines.signings import check_signed_last, record_signing, signings_line
from fl.errors import PlanError, fault
from fl.job import Job
from fl.plan import resolve
from fl.secure import STAGES, commit_opening

ReadJob = Callable[[list[str], str], Job]


def keygen(words: Sequence[str]) -> None:
    """Makes an identity key and prints its public half."""
    parser = argparse.ArgumentParser(prog="python -m fl keygen")
    parser.add_argument("file", type=Path, help="new file, kept by its owner alone (mode 0600)")
    print(make_identity(parser.parse_args(words).file).hex())


def privacy(words: Sequence[str]) -> None:
    """Prints the statement of a plan, signed or not, as whoever holds some of the data sees it."""
    parser = argparse.ArgumentParser(prog="python -m fl privacy")
    parser.add_argument("--plan", type=Path, help="a plan file, beside its roster")
    parser.add_argument("--data-dir", help="holds own.npz, or a public data set's original files")
    asked = parser.parse_args(words)
    deployed = read_deployment(asked.plan)
    data = own_data(deployed, len(deployed.read_unsigned()), asked.data_dir)
    plan, model, data = deployed.job.build(data)
    print(privacy_table(resolve(plan, data, model=model).privacy, assumptions=True))


def client(words: Sequence[str]) -> None:
    """Answers the SuperNode over a Unix socket until it is told to stop (SIGTERM, SIGINT)."""
    parser = argparse.ArgumentParser(prog="python -m fl client")
    parser.add_argument("--plan", type=Path, required=True, help="this organisation's plan file")
    parser.add_argument("--data-dir", help="holds own.npz, or a public data set's original files")
    parser.add_argument("--socket", type=Path, required=True, help="made with mode 0600")
    parser.add_argument("--socket-group", help="whose members may connect too: mode 0660")
    asked = parser.parse_args(words)
    plan = read_deployment(asked.plan)
    form = "%(asctime)s %(levelname)s %(name)s: %(message)s"
    logging.basicConfig(level=logging.INFO, format=form)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    serve_client(plan, asked.socket, data_dir=asked.data_dir, stop=stop, group=asked.socket_group)


def deploy(words: Sequence[str], read_job: ReadJob) -> None:
    """Writes a Flower app directory; `read_job` makes a Job of the words left over."""
    parser = argparse.ArgumentParser(prog="python -m fl deploy", allow_abbrev=False)
    parser.add_argument("action", choices=["init"])
    parser.add_argument("dir", type=Path, help="new directory")
    parser.add_argument("--session", help="name of the run, never used before; drawn unless given")
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds per stage")
    parser.add_argument("--records", help="examples of each member, N,N,...; public")
    parser.add_argument("--classes", type=int, help="labels of members' own files are below it")
    asked, rest = parser.parse_known_args(words)
    job = read_job(rest, "deploy init")
    plan = Deployment(
        session=asked.session or f"{job.dataset}-{secrets.token_hex(4)}",
        job=job,
        roster=Path("roster.json"),
        state=Path("state"),
        timeouts=dict.fromkeys(STAGES, asked.timeout),
        records=None if asked.records is None else _integers("records", asked.records),
        classes=asked.classes,
    )
    write_app(plan, asked.dir, timeout=asked.timeout)
    print(f"{asked.dir}: Flower app, plan.toml and README.md, which says what comes next")


def _integers(field: str, text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise PlanError((fault(field, text, "N,N,..."),)) from error


def roster(words: Sequence[str]) -> None:
    """Commits, collects, signs, reveals, merges or verifies."""
    parser = argparse.ArgumentParser(prog="python -m fl roster")
    actions = parser.add_subparsers(dest="action", required=True)
    collecting = actions.add_parser("collect", help="write an unsigned roster")
    collecting.add_argument("file", type=Path)
    collecting.add_argument("members", nargs="+", metavar="NAME=KEY", help="in the order of ids")
    planned: dict[str, tuple[str, Callable[[Deployment], None]]] = {
        "commit": ("draw the member's part of a sparse graph's seed", _commit),
        "sign": ("add a signature", lambda plan: _sign(plan, another=asked.another)),
        "reveal": ("add the member's part of the seed, once all have signed", _reveal),
        "verify": ("check everybody's signature", _verify),
    }
    parsers: dict[str, argparse.ArgumentParser] = {}
    for name, (help_, _) in planned.items():
        parsers[name] = actions.add_parser(name, help=help_)
        parsers[name].add_argument("--plan", type=Path, required=True)
    another = "though this member signed one in this session; it starts under this one alone then"
    parsers["sign"].add_argument("--another", action="store_true", help=another)
    merging = actions.add_parser("merge", help="add the signatures of other copies")
    merging.add_argument("file", type=Path)
    merging.add_argument("copies", nargs="+", type=Path)
    asked = parser.parse_args(words)
    if asked.action == "collect":
        _collect(asked.file, asked.members)
    elif asked.action == "merge":
        _merge(asked.file, asked.copies)
    else:
        planned[asked.action][1](read_deployment(asked.plan))


def _collect(file: Path, members: Sequence[str]) -> None:
    if file.exists():
        raise PlanError((fault("file", str(file), "a new file: signatures are not overwritten"),))
    found = collect([(name, key) for name, _, key in (text.partition("=") for text in members)])
    found.write(file)
    print(f"{file}: {len(found)} members, unsigned")


def _identity_file(plan: Deployment) -> Path:
    """The file of the member's key, of a plan whose graph has a seed to be drawn."""
    if plan.job.graph == "complete":
        raise PlanError((fault("job.graph", "complete", "sparse: another has no seed"),))
    return plan.key_file


def _commit(plan: Deployment) -> None:
    own = _identity_file(plan)
    key = read_identity(own).public_key
    committed = commit_opening(plan.run_name, key, draw_opening(own, plan.run_name))
    print(f"{key.hex()}:{committed.hex()}")


def _check_commitment(plan: Deployment, found: Roster, own: Path) -> None:
    """Whoever hands out a roster may have listed a commitment to what it knows itself."""
    key = plan.read_identity(found).public_key
    member = found.keys.index(key)
    opening = held_opening(own, plan.run_name, found.digest(plan.session_id(found)))
    committed = commit_opening(plan.run_name, key, opening)
    if found.commitments[member] != committed:
        takes = f"{committed.hex()}, which this member drew (`roster commit`)"
        raise PlanError((fault("commitment", found.commitments[member].hex(), takes),))


def _sign(plan: Deployment, *, another: bool) -> None:
    found = plan.read_unsigned()
    key, session, own = plan.read_identity(found), plan.session_id(found), plan.key_file
    if plan.job.graph == "sparse":
        _check_commitment(plan, found, own)
    signed = found.signed(key, session)
    record_signing(own, plan.run_name, found.digest(session), another=another)
    signed.write(plan.roster)
    _show(plan)


def _reveal(plan: Deployment) -> None:
    """Only a roster that all have signed fixes what all have committed to."""
    own, found = _identity_file(plan), plan.read_unsigned()
    session = plan.session_id(found)
    found.verify(session)
    _check_commitment(plan, found, own)
    check_signed_last(own, plan.run_name, found.digest(session))
    opening = reveal_opening(own, plan.run_name, found.digest(session))
    member = found.keys.index(plan.read_identity(found).public_key)
    found.opened(member, opening).write(plan.roster)
    _show(plan)


def _merge(file: Path, copies: Sequence[Path]) -> None:
    found = read_roster(file)
    for copy in copies:
        found = found.merged(read_roster(copy))
    found.write(file)
    print(f"{file}: {len(found.signatures)} of {len(found)} signatures")
    if found.commitments:
        print(f"{file}: {len(found.openings)} of {len(found)} openings")


def _verify(plan: Deployment) -> None:
    plan.read_roster()
    _show(plan)


def _show(plan: Deployment) -> None:
    found = plan.read_unsigned()
    for i, (name, key) in enumerate(zip(found.names, found.keys, strict=True)):
        lacks = "" if i in found.signatures else "  (has not signed)"
        if found.commitments and i not in found.openings:
            lacks += "  (has not revealed)"
        print(f"{i}  {key.hex()}  {name}{lacks}")
    if plan.job.no_dp:
        print("NOT PRIVATE: this plan adds no noise")
    elif plan.job.seeded_secrets:
        print("NOT PRIVATE: keys, masks and noise of this plan follow from its seed")
    if plan.identity is not None:
        print(signings_line(plan.identity, plan.run_name, sparse=plan.job.graph == "sparse"))
    print(
        f"hash of plan and roster, to compare by telephone: {found.digest(plan.session_id(found))}"
    )
