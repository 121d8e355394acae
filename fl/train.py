"""The round loop: train, sum, release, step, evaluate, commit.

The loop is the caller's: `for r in rounds(plan, model, data): ...`. `train` exhausts it.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fl.aggregate import Plain, draw_dropouts
from fl.arrays import to_npz
from fl.books import Books
from fl.datasets.dataset import FederatedDataset
from fl.engine import Attempted, Engine, InProcess
from fl.errors import StoreError
from fl.group import Group, alone
from fl.lanes import metric_totals
from fl.metrics import client_evaluator, evaluator
from fl.models import Model
from fl.plan import Plan
from fl.prepare import Prepared, prepare, site_of
from fl.programs import server_step
from fl.results import Cost, Round, Run
from fl.round import Clock, Outcome
from fl.runners import Execution
from fl.site import Order, Report
from fl.statement import Statement
from fl.states import ClientStates
from fl.store import Store
from fl.streams import invited
from fl.summary import run_facts, summarize, write_summary
from fl.tree import sha256

_AUTO = Execution()


class Training:
    """One run in progress, in process 0: `step` runs a round.

    Attributes:
        resolved: the plan with everything derived.
        store: where charges, releases and checkpoints are committed.
        state: the server state after the last finished round.
        next_round: the first round that is not finished.
        stopped_early: why the run ended before its last round, or None.
    """

    def __init__(
        self, ready: Prepared, model: Model, data: FederatedDataset, store: Store, engine: Engine
    ) -> None:
        self.resolved = ready.resolved
        self.store = store
        self.state = ready.state
        self.next_round = 0
        self.stopped_early: str | None = None
        self._engine = engine
        self._num_clients = data.num_clients
        self._evaluate = None if data.test is None else evaluator(model, data.test)
        self._evaluate_clients = (
            client_evaluator(model, data) if ready.resolved.plan.client_metrics else None
        )
        self._evaluated: tuple[int, dict[str, float]] | None = None
        self._books = Books(ready.resolved.exposure, data.num_clients, store)

    def resume(self) -> None:
        """Continues from the store: ledgers, server state, client states and round number."""
        self._books.replay()
        checkpoint = self.store.checkpoint()
        if checkpoint is not None:
            structure = jax.tree.structure(self.state)
            leaves = [jnp.asarray(leaf) for leaf in checkpoint.leaves]
            self.state = jax.tree.unflatten(structure, leaves)
            self.next_round = checkpoint.round_index + 1

    def close(self) -> None:
        """Ends the run everywhere and closes the store."""
        self._engine.close()
        self.store.close()

    def statement(self) -> Statement:
        """The privacy statement from what happened so far."""
        return self._books.statement()

    def evaluate(self) -> dict[str, float]:
        """Metrics of the model as it stands on the test set; empty without one."""
        if self._evaluate is None:
            return {}
        if self._evaluated is None or self._evaluated[0] != self.next_round:
            self._evaluated = self.next_round, self._evaluate(self.state.params)
        return self._evaluated[1]

    def step(self) -> Round | None:
        """Runs the next round; None when the run is over."""
        plan, index = self.resolved.plan, self.next_round
        if index >= plan.rounds:
            return None
        ids = invited(self.resolved, self._num_clients, index)
        if self._refused(ids):
            return None
        order = self._order(index, ids)
        if not self.resolved.sizes[0] <= len(ids) <= self.resolved.sizes[1]:
            why = "the secret cohort's size is outside its bounds: nothing is released"
            return self._finish(order, Attempted(Outcome(None, (), None, why), (), ()), Clock())
        clock = Clock()
        attempted = self._engine.attempt(order, self._books, clock)
        zeroed = sorted(client for report in attempted.reports for client in report.zeroed)
        self.store.note_zeroed(index, order.attempt, zeroed)
        with clock("decode"):
            self._apply(attempted.outcome)
        finished = self._finish(order, attempted, clock)
        self._engine.settle(finished.survivors)
        return finished

    def _order(self, index: int, ids: list[int]) -> Order:
        plan = self.resolved.plan
        dropouts = (
            {}
            if isinstance(plan.aggregation, Plain)
            else draw_dropouts(plan.aggregation, ids, plan.seed, index)
        )
        self.state = self.state._replace(round_index=np.int32(index))
        sent = plan.algorithm.broadcast(self.state)
        return Order(index, self.store.attempts(index), tuple(ids), dropouts, sent)

    def _refused(self, ids: list[int]) -> bool:
        why = self._books.refusal(ids, self.resolved.max_attempts)
        if why is not None:
            self.stopped_early = (
                f"round {self.next_round} did not start: {why} (spare_releases grants more)"
            )
        return why is not None

    def _apply(self, outcome: Outcome) -> None:
        if outcome.mean is None or outcome.mean.vector is None:
            return
        self.state = server_step(
            self.resolved.plan.algorithm, self.resolved.messages.unravel, self.state,
            outcome.mean.vector.astype(np.float32),
        )  # fmt: skip
        jax.block_until_ready(self.state)  # type: ignore[no-untyped-call]  # jax leaves it untyped

    def _due(self, index: int) -> bool:
        """Whether the model is evaluated after the round."""
        plan = self.resolved.plan
        return (index + 1) % plan.eval_every == 0 or index == plan.rounds - 1

    def _client_metrics(self, index: int) -> dict[str, float]:
        if self._evaluate_clients is None or not self._due(index):
            return {}
        found = self._evaluate_clients(self.state.params)
        return {key: v for name, one in found.items() for key, v in one.flat(name).items()}

    def _metrics(self, index: int, outcome: Outcome, reports: Sequence[Report]) -> dict[str, float]:
        due = self._due(index)
        counts = {} if outcome.mean is None else outcome.mean.counts
        local = metric_totals({k: v for report in reports for k, v in report.metrics.items()})
        means = {f"train_{name}": total / n for name, (total, n) in local.items() if n}
        return {**(self.evaluate() if due else {}), **counts, **means}

    def _finish(self, order: Order, attempted: Attempted, clock: Clock) -> Round:
        index, (outcome, reports, kept) = order.round_index, attempted
        self.next_round = index + 1
        metrics, clients = self._metrics(index, outcome, reports), self._client_metrics(index)
        epsilon, worst = self._books.so_far()
        uploaded = None if outcome.cost is None else sum(outcome.cost.upload_bytes.values())
        if self.resolved.encoding is None:
            uploaded = 4 * self.resolved.messages.dim * sum(report.trained for report in reports)
        row = {
            "round": index,
            "attempt": order.attempt,
            "status": "aborted" if outcome.mean is None else "released",
            "reason": outcome.reason,
            "invited": len(order.invited),
            "survivors": len(outcome.survivors),
            "metrics": metrics,
            "epsilon": epsilon,
            "epsilon_worst_case": worst,
            "seconds": clock.seconds,
            "upload_bytes": uploaded,
            "cost": outcome.cost and dataclasses.asdict(outcome.cost),
            "client_metrics": clients,
        }
        released = outcome.survivors
        moved = ((client, state) for client, state in kept if client in frozenset(released))
        self.store.finish_round(row, index, self.state, moved)
        cost = Cost(dict(clock.seconds), uploaded, outcome.cost)
        return Round(
            index, self.state.params, metrics, outcome.survivors, epsilon, worst, cost,
            outcome.reason, clients,
        )  # fmt: skip


def start(
    plan: Plan,
    model: Model,
    data: FederatedDataset,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    job: Mapping[str, Any] | None = None,
    execution: Execution = _AUTO,
    group: Group | None = None,
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
            it, on any number of processes.
        group: the processes of the run, this being 0 of them; the others call `serve`.

    Raises:
        PlanError: with every fault of the plan.
        StoreError: `out` holds a run already, or, to resume, none or another plan's.
        WorkerError: another process is gone or runs something else.
    """
    group = group or alone()
    ready = prepare(plan, model, data, execution, group)

    def in_process(store: Store) -> InProcess:
        site = site_of(ready, data, ClientStates(ready.fresh, store.client_state))
        return InProcess(ready.resolved, site, group)

    training = begin(ready, model, data, in_process, out=out, resume=resume, job=job)
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

    Raises:
        StoreError: as `start`.
    """
    facts = run_facts(ready.resolved, data, ready.execution)
    meta = {"fingerprint": ready.identity, "facts": facts, "job": job}
    if resume:
        store = _reopened(ready, out)
    else:
        store = Store.in_memory(meta) if out is None else Store.create(Path(out), meta)
    training = Training(ready, model, data, store, engine_of(store))
    if resume:
        try:
            training.resume()
        except StoreError:
            store.close()
            raise
    return training


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
        raise StoreError("plan", "another plan than the one that began this run", "the same plan")
    return store


def rounds(
    plan: Plan,
    model: Model,
    data: FederatedDataset,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    execution: Execution = _AUTO,
    group: Group | None = None,
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

    Raises:
        PlanError: with every fault of the plan.
        StoreError: `out` holds a run already, or, to resume, none or another plan's.
        WorkerError: another process is gone or runs something else.
    """
    training = start(plan, model, data, out=out, resume=resume, execution=execution, group=group)
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
    execution: Execution = _AUTO,
    group: Group | None = None,
) -> Run:
    """Runs a plan to its end; the arguments are those of `rounds`.

    Raises:
        PlanError: with every fault of the plan.
        StoreError: `out` holds a run already.
        WorkerError: another process is gone or runs something else.
    """
    training = start(plan, model, data, out=out, execution=execution, group=group)
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
