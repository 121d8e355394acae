"""Makes an organisation's process from its plan file, its data and its key."""

import logging
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from fl import secure
from fl.datasets.dataset import FederatedDataset
from fl.engines import pipe
from fl.engines.deployment import Deployment
from fl.engines.journal import Journal
from fl.engines.organisation import Organisation
from fl.engines.owndata import own_data
from fl.engines.signings import check_signed_last, signings_line
from fl.engines.terms import terms_of
from fl.errors import StoreError
from fl.group import alone
from fl.models import Model
from fl.plan import Plan
from fl.prepare import prepare, site_of
from fl.runners import Execution
from fl.states import ClientStates

LOG = logging.getLogger("fl.client")
JOURNAL = "journal.sqlite"
_READ_SECONDS = 60.0  # for a request to arrive, and for its answer to be taken


def open_organisation(
    plan: Plan,
    model: Model,
    data: FederatedDataset,
    *,
    session: bytes,
    roster: Mapping[int, bytes],
    member: int,
    identity: secure.IdentityKey,
    state: Path,
    graph_seed: bytes | None = None,
    execution: Execution = Execution(),
    trace: Path | None = None,
) -> tuple[Organisation, Journal]:
    """Opens the journal and compiles what is needed before the first request.

    Args:
        plan: that this organisation signed.
        model: whose parameters are trained.
        data: sizes of all members' data; only this member's examples are kept.
        session: 32 bytes, as `fl.engines.terms.terms_of` takes it.
        roster: member -> identity key; checked before.
        member: this organisation.
        identity: its key.
        state: directory of the journal; made if there is none, mode 0700. Whoever else could write
            there could put an older journal back.
        graph_seed: as `fl.engines.terms.terms_of` takes it.
        execution: how it trains.
        trace: as `Journal`.

    Raises:
        PlanError: with every fault of the plan.
        StoreError: the journal cannot be used.
    """
    data = own_only(data, member)
    ready = prepare(plan, model, data, execution, alone())
    terms = terms_of(ready, session, roster, graph_seed)
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        mode = state.stat().st_mode & 0o777
    except OSError as error:
        raise StoreError("state", f"{state}: {error}", "a directory") from error
    if mode & 0o022:
        takes = "a directory that its owner alone may write to"
        raise StoreError("state", f"{state}, mode {mode:04o}", takes)
    journal = Journal(state / JOURNAL, session, member, trace)
    site = site_of(ready, data, ClientStates(ready.fresh, lambda _: journal.kept()))
    return Organisation(terms, member, identity, site, journal), journal


def own_only(data: FederatedDataset, member: int | None) -> FederatedDataset:
    """Returns the data set with the examples of every other member left out; None: of all.

    Sizes stay: a plan that protects records makes them public. So does the test set.
    """
    fields = {}
    for name, field in data.fields.items():
        fields[name] = np.zeros(field.shape, field.dtype)  # untouched pages cost no memory
        if member is not None:
            rows = data.client_slice(member)
            fields[name][rows] = field[rows]
    return replace(data, fields=fields)


def serve_client(
    deployment: Deployment,
    socket: Path,
    *,
    data_dir: str | None = None,
    stop: threading.Event | None = None,
    group: str | None = None,
) -> None:
    """Runs an organisation's process until it is told to stop.

    Args:
        deployment: its own plan file.
        socket: path of the Unix socket, made with mode 0600.
        data_dir: where its data lie, on this host: `fl.engines.owndata.own_data`.
        stop: ends it.
        group: whose members may connect too, where the SuperNode runs as another user.

    Raises:
        PlanError: with every fault of plan, roster or key; or it signed another roster last.
        DataError: the data cannot be read.
        StoreError: the journal or the socket cannot be used.
    """
    roster = deployment.read_roster()
    identity = deployment.read_identity(roster)
    data = own_data(deployment, len(roster), data_dir)
    plan, model, data = deployment.job.build(data)
    session, key = deployment.session_id(roster), deployment.key_file
    check_signed_last(key, deployment.run_name, roster.digest(session))
    organisation, journal = open_organisation(
        plan, model, data, session=session, roster=roster.identities,
        member=roster.keys.index(identity.public_key), identity=identity, state=deployment.state,
        graph_seed=deployment.graph_seed(roster), execution=deployment.job.execution,
        trace=key.with_name(f"{key.name}.{session.hex()[:16]}"),  # one journal in a session
    )  # fmt: skip
    organisation.warm_up()
    try:
        _tell(organisation, journal, deployment)
        LOG.info("member %d answers at %s", deployment.member, socket)
        pipe.serve(
            socket, organisation.handle, organisation.limits, read_timeout=_READ_SECONDS,
            stop=stop or threading.Event(), group=group,
        )  # fmt: skip
    finally:
        journal.close()


def _tell(organisation: Organisation, journal: Journal, deployment: Deployment) -> None:
    """What whoever starts the process has to know before it answers."""
    LOG.info("charged so far: %s", organisation.releases)
    sparse = deployment.job.graph == "sparse"
    LOG.info("%s", signings_line(deployment.key_file, deployment.run_name, sparse=sparse))
    if journal.is_new:
        LOG.warning(
            "new journal: %s. It, and all the releases that it counts, belong to this session:"
            " if it is lost, member %d leaves the run",
            deployment.state / JOURNAL, deployment.member,
        )  # fmt: skip
    if organisation.not_protected is not None:
        LOG.warning("no protection against the server: %s", organisation.not_protected)
