"""A run across organisations, at the server: the round loop of `fl.train` with another engine."""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fl.console import round_line
from fl.datasets.dataset import FederatedDataset
from fl.engines.client import own_only
from fl.engines.coordinator import Coordinator, Transport
from fl.engines.deployment import Deployment
from fl.engines.owndata import own_data
from fl.engines.terms import terms_of
from fl.errors import StoreError
from fl.group import alone
from fl.models import Model
from fl.plan import Plan
from fl.prepare import prepare
from fl.runners import Execution
from fl.store import FILE
from fl.train import begin, conclude
from fl.training import Training

LOG = logging.getLogger("fl.server")

RUN = "run"  # directory of the run, in the plan's state directory


def start_server(
    plan: Plan,
    model: Model,
    data: FederatedDataset,
    *,
    session: bytes,
    roster: Mapping[int, bytes],
    names: Sequence[str],
    transport: Transport,
    timeouts: Mapping[str, float],
    join_timeout: float,
    out: Path,
    resume: bool,
    graph_seed: bytes | None = None,
    job: Mapping[str, Any] | None = None,
) -> Training:
    """Opens the run's store; nothing is sent yet. The caller steps through the rounds.

    A run that resumes goes on after its last finished round. The round that was caught in the
    middle is begun again as another attempt; what it charged stays charged, here and at the
    members.

    Args:
        plan: that all have signed.
        model: its parameters are trained.
        data: sizes of the members' data, and the test set; no example is read.
        session: 32 bytes, as `terms_of` takes it.
        roster: member -> identity key.
        names: of the members.
        transport: to their nodes.
        timeouts: stage -> seconds.
        join_timeout: seconds to wait for members that are missing before a round.
        out: directory of the run's store.
        resume: continue the run in `out`.
        graph_seed: as `terms_of` takes it.
        job: strings and numbers to keep with the run.

    Raises:
        PlanError: with every fault of the plan.
        StoreError: `out` holds a run already, or, to resume, none or another.
    """
    ready = prepare(plan, model, data, Execution(), alone())
    terms = terms_of(ready, session, roster, graph_seed)
    identity = hashlib.sha256(session + ready.identity.encode()).hexdigest()
    ready = ready._replace(identity=identity)
    return begin(
        ready, model, data,
        lambda store: Coordinator(terms, names, transport, store, timeouts, join_timeout),
        out=out, resume=resume, job=job,
    )  # fmt: skip


def _make_private(out: Path) -> None:
    """Makes the run's directory for its owner alone: the store may hold the noise of the server."""
    try:
        out.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError("state", f"{out}: {error.strerror}", "a directory") from error


def run_server(
    deployment: Deployment, transport: Transport, *, data_dir: str | None = None
) -> dict[str, Any]:
    """Runs a deployment to its end, or goes on where an earlier process was killed.

    Args:
        deployment: the server's own plan file.
        transport: to the members' nodes.
        data_dir: where test set and sizes lie: `fl.engines.owndata.own_data`.

    Returns:
        The contents of summary.json, which lies with the store in the state directory.

    Raises:
        PlanError: with every fault of plan or roster.
        DataError: the data cannot be read.
        StoreError: the run's directory cannot be used.
    """
    roster = deployment.read_roster()
    data = own_data(deployment, len(roster), data_dir)
    plan, model, data = deployment.job.build(data)
    out = deployment.state / RUN
    _make_private(out)
    training = start_server(
        plan, model, own_only(data, None), session=deployment.session_id(roster),
        roster=roster.identities, names=roster.names, transport=transport,
        timeouts=deployment.timeouts, join_timeout=deployment.timeouts["advertise_keys"],
        out=out, resume=(out / FILE).is_file(),
        graph_seed=deployment.graph_seed(roster), job=asdict(deployment.job),
    )  # fmt: skip
    try:
        while (finished := training.step()) is not None:
            LOG.info("%s", round_line(finished.index, finished.reason or "released"))
    except BaseException:
        training.store.close()
        raise
    if training.stopped_early is not None:
        LOG.warning("stopped early: %s", training.stopped_early)
    return conclude(training, out)
