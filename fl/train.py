"""The round loop, and how a run begins and ends.

The loop is the caller's: `for r in rounds(plan, model, data): ...`. `train` exhausts it.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fl.arrays import to_npz
from fl.datasets.dataset import FederatedDataset
from fl.engine import Engine, InProcess
from fl.errors import StoreError
from fl.group import Group, alone
from fl.models import Model
from fl.plan import Plan
from fl.prepare import Prepared, prepare, site_of
from fl.privacy import Privacy
from fl.results import Round, Run
from fl.runners import Execution
from fl.states import ClientStates
from fl.store import Store
from fl.summary import run_facts, summarize, write_summary
from fl.tensorboard import EventWriter
from fl.training import Training
from fl.tree import sha256


def start(
    plan: Plan,
    model: Model,
    data: FederatedDataset,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    job: Mapping[str, Any] | None = None,
    execution: Execution = Execution(),
    group: Group | None = None,
    tensorboard: bool = False,
) -> Training:
    """Validates a plan and opens its store; nothing is trained yet.

    Args:
        plan: what to run.
        model: its parameters are trained; its metrics are evaluated on `data.test`.
        data: the clients.
        out: directory of the run's store, or None to keep it in memory.
        resume: continue the run in `out` instead of starting one.
        job: strings and numbers to keep with the run, such as those of a Job.
        execution: how clients train; a run resumes with the strategy, chunk and threads that began
            it, on a backend of the same kind, on any number of processes.
        group: the processes of the run, this being 0 of them; the others call `serve`.
        tensorboard: write every round to out/tensorboard too.

    Raises:
        PlanError: with every fault of the plan.
        StoreError: `out` holds a run already, or, to resume, none or another plan's.
        MissingExtraError: `tensorboard` needs a package that is not installed.
        WorkerError: another process is gone or runs something else.
    """
    group = group or alone()
    ready = prepare(plan, model, data, execution, group)

    def in_process(store: Store) -> InProcess:
        site = site_of(ready, data, ClientStates(ready.fresh, store.client_state))
        return InProcess(ready.resolved, site, group)

    events = _events(ready, out) if tensorboard else None  # before anything is on disk
    training = begin(ready, model, data, in_process, out=out, resume=resume, job=job, events=events)
    if group.size > 1:  # what clients keep goes where they live
        rows = {str(client): np.frombuffer(kept, dtype=np.uint8)
                for client, kept in training.store.client_states()}  # fmt: skip
        group.tell(to_npz(rows))
    return training


def begin(
    ready: Prepared,
    model: Model,
    data: FederatedDataset,
    engine_of: Callable[[Store], Engine],
    *,
    out: str | Path | None,
    resume: bool,
    job: Mapping[str, Any] | None,
    events: EventWriter | None = None,
) -> Training:
    """Opens the store of a validated plan; nothing is trained yet.

    Args:
        ready: the plan.
        model: as `start`.
        data: as `start`; of its examples only those of the test set are read here.
        engine_of: the run's store -> what carries out its orders.
        out: as `start`.
        resume: as `start`.
        job: as `start`.
        events: takes every round too.

    Raises:
        StoreError: as `start`.
    """
    facts = run_facts(ready.resolved, data, ready.execution)
    meta = {"fingerprint": ready.identity, "facts": facts, "job": job}
    if resume:
        store = _reopened(ready, out)
    else:
        store = Store.in_memory(meta) if out is None else Store.create(Path(out), meta)
    training = Training(ready, model, data, store, engine_of(store), events)
    if resume:
        try:
            training.resume()
        except StoreError:
            store.close()
            raise
    return training


def _events(ready: Prepared, out: str | Path | None) -> EventWriter:
    plan = ready.resolved.plan
    return EventWriter(
        None if out is None else Path(out),
        private=isinstance(plan.privacy, Privacy),
        secret_cohort=plan.cohort.secret,
    )


def _reopened(ready: Prepared, out: str | Path | None) -> Store:
    if out is None:
        raise StoreError("out", None, "the directory of the run to resume")
    store = Store.open(Path(out))
    meta = store.meta()
    if meta["fingerprint"] != ready.identity:
        store.close()
        began = meta["facts"]["execution"]
        if began != ready.execution:
            raise StoreError("execution", ready.execution, f"that of the run so far, {began}")
        raise StoreError(
            "plan", "another plan than the one that began this run",
            "the same plan, trained in the same way: strategy, chunk, threads, backend",
        )  # fmt: skip
    return store


def rounds(
    plan: Plan,
    model: Model,
    data: FederatedDataset,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    execution: Execution = Execution(),
    group: Group | None = None,
    tensorboard: bool = False,
) -> Iterator[Round]:
    """Runs a plan round by round; the plan is validated before this returns.

    Args:
        plan: what to run.
        model: its parameters are trained; its metrics are evaluated on `data.test`.
        data: the clients.
        out: directory of the run's store and summary, or None to keep nothing.
        resume: continue the run in `out` instead of starting one.
        execution: how clients train.
        group: the processes of the run, this being 0 of them; the others call `serve`.
        tensorboard: write every round to out/tensorboard too.

    Raises:
        PlanError: with every fault of the plan.
        StoreError: `out` holds a run already, or, to resume, none or another plan's.
        MissingExtraError: `tensorboard` needs a package that is not installed.
        WorkerError: another process is gone or runs something else.
    """
    training = start(
        plan, model, data, out=out, resume=resume, execution=execution, group=group,
        tensorboard=tensorboard,
    )  # fmt: skip
    return _steps(training, None if out is None else Path(out))


def _steps(training: Training, out: Path | None) -> Iterator[Round]:
    try:
        while (finished := training.step()) is not None:
            yield finished
    finally:  # also where the caller stops early: what happened so far is on record
        conclude(training, out)


def conclude(training: Training, out: Path | None) -> dict[str, Any]:
    """Ends a run: writes summary.json into `out`, closes the store, returns the summary."""
    meta = training.store.meta()
    summary = summarize(
        meta["facts"],
        training.store.rounds(),
        training.statement(),
        model_sha256=sha256(training.state.params),
        metrics=training.evaluate(),
        stopped_early=training.stopped_early,
        job=meta.get("job"),
    )
    if out is not None:
        write_summary(out, summary)
    training.close()
    return summary


def train(
    plan: Plan,
    model: Model,
    data: FederatedDataset,
    *,
    out: str | Path | None = None,
    execution: Execution = Execution(),
    group: Group | None = None,
    tensorboard: bool = False,
) -> Run:
    """Runs a plan to its end; the arguments are those of `rounds`.

    Raises:
        PlanError: with every fault of the plan.
        StoreError: `out` holds a run already.
        MissingExtraError: `tensorboard` needs a package that is not installed.
        WorkerError: another process is gone or runs something else.
    """
    training = start(
        plan, model, data, out=out, execution=execution, group=group, tensorboard=tensorboard
    )
    costs = tuple(
        finished.cost for finished in _steps(training, None if out is None else Path(out))
    )
    return Run(
        training.state.params,
        training.evaluate(),
        training.statement(),
        costs,
        training.stopped_early,
    )
