"""The round loop: train, sum, release, step, evaluate, commit.

The loop is the caller's: `for r in rounds(plan, model, data): ...`. `train` exhausts it.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fl.aggregate import Plain, draw_dropouts, lost_before_masking
from fl.algorithms.base import ServerState
from fl.books import Books
from fl.datasets.dataset import FederatedDataset
from fl.errors import StoreError
from fl.metrics import client_evaluator, evaluator
from fl.models import Model
from fl.plan import Plan, Resolved, resolve
from fl.privacy import Privacy
from fl.records import RecordRunner
from fl.results import Cost, Round, Run
from fl.round import (
    Clock,
    Outcome,
    Values,
    attempt_round,
    client_values,
    invited,
    record_values,
)
from fl.runners import ScanRunner, Trained, no_messages
from fl.statement import Statement
from fl.store import Store
from fl.summary import fingerprint, run_facts, summarize, write_summary
from fl.tree import sha256
from fl.types import Purpose, PyTree, jax_key


class Training:
    """One run in progress: `step` runs a round.

    Attributes:
        resolved: the plan with everything derived.
        store: where charges, releases and checkpoints are committed.
        state: the server state after the last finished round.
        next_round: the first round that is not finished.
        stopped_early: why the run ended before its last round, or None.
    """

    def __init__(
        self,
        resolved: Resolved,
        model: Model,
        data: FederatedDataset,
        store: Store,
        state: ServerState,
    ) -> None:
        plan = resolved.plan
        self.resolved = resolved
        self.store = store
        self.state = state
        self.next_round = 0
        self.stopped_early: str | None = None
        self._sizes = data.sizes
        self._runner = ScanRunner(
            plan.algorithm, data, plan.seed, resolved.messages.dim, resolved.max_norm
        )
        self._records = None
        if isinstance(plan.privacy, Privacy) and plan.privacy.unit == "record":
            self._records = RecordRunner(
                plan.algorithm, data, plan.seed, plan.privacy.clip_norm,
                plan.privacy.record_sampling or 1.0,
            )  # fmt: skip
        self._evaluate = None if data.test is None else evaluator(model, data.test)
        self._evaluate_clients = client_evaluator(model, data) if plan.client_metrics else None
        self._evaluated: tuple[int, dict[str, float]] | None = None
        self._server_update = jax.jit(plan.algorithm.server_update)
        self._fresh = plan.algorithm.fresh_client_state(state.params)
        self._books = Books(resolved.exposure, data.num_clients, store)

    def resume(self) -> None:
        """Continues from the store: ledgers, server state and round number."""
        self._books.replay()
        checkpoint = self.store.checkpoint()
        if checkpoint is not None:
            structure = jax.tree.structure(self.state)
            leaves = [jnp.asarray(leaf) for leaf in checkpoint.leaves]
            self.state = jax.tree.unflatten(structure, leaves)
            self.next_round = checkpoint.round_index + 1

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
        ids = invited(self.resolved, len(self._sizes), index)
        if self._refused(ids):
            return None
        if not self.resolved.sizes[0] <= len(ids) <= self.resolved.sizes[1]:
            why = "the secret cohort's size is outside its bounds: nothing is released"
            outcome = Outcome(None, (), None, why)
            attempt = self.store.attempts(index)
            return self._finish(index, attempt, len(ids), outcome, no_messages(()), Clock())
        dropouts = (
            {}
            if isinstance(plan.aggregation, Plain)
            else draw_dropouts(plan.aggregation, ids, plan.seed, index)
        )
        self.state = self.state._replace(round_index=np.int32(index))
        clock, attempt = Clock(), self.store.attempts(index)
        lost = lost_before_masking(dropouts)
        present = [client for client in ids if client not in lost]
        self._books.charge(index, attempt, present)
        gone = frozenset(dropouts.get("mask_input", ()))
        senders = [client for client in present if client not in gone]
        trained, values = self._local_work(index, senders, clock)
        self.store.note_zeroed(index, attempt, trained.client_ids[~trained.finite].tolist())
        outcome = attempt_round(
            self.resolved,
            values,
            ids,
            dropouts,
            index,
            attempt,
            lambda survivors: self._books.release(index, attempt, survivors),
            clock,
        )
        with clock("decode"):
            self._apply(outcome)
        return self._finish(index, attempt, len(ids), outcome, trained, clock)

    def _local_work(self, index: int, senders: list[int], clock: Clock) -> tuple[Trained, Values]:
        """Trains the clients, or, where records are the unit, gets ready to as they are summed."""
        plan, sent = self.resolved.plan, self.resolved.plan.algorithm.broadcast(self.state)
        if self._records is not None:
            return no_messages(senders), record_values(plan, self._records, sent, index, clock)
        with clock("train"):
            trained = self._runner.train(sent, index, senders, self._client_state)
        return trained, client_values(plan, trained, self._sizes)

    def _client_state(self, client: int) -> PyTree:
        """Returns a client's own state: as its last release left it, or fresh."""
        structure = jax.tree.structure(self._fresh)
        keeps = bool(jax.tree.leaves(self._fresh))
        leaves = self.store.client_state(client) if keeps else None
        return self._fresh if leaves is None else jax.tree.unflatten(structure, leaves)

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
        mean = jnp.asarray(outcome.mean.vector, dtype=jnp.float32)
        message = self.resolved.messages.unravel(mean)
        self.state = self._server_update(self.state, message)
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

    def _metrics(self, index: int, outcome: Outcome, trained: Trained) -> dict[str, float]:
        due = self._due(index)
        counts = {} if outcome.mean is None else outcome.mean.counts
        in_the_open = self.resolved.encoding is None
        local = trained.metrics if in_the_open else {}  # otherwise they stay with their owners
        means = {f"train_{name}": total / n for name, (total, n) in local.items() if n}
        return {**(self.evaluate() if due else {}), **counts, **means}

    def _finish(
        self,
        index: int,
        attempt: int,
        invited: int,
        outcome: Outcome,
        trained: Trained,
        clock: Clock,
    ) -> Round:
        self.next_round = index + 1
        metrics, clients = self._metrics(index, outcome, trained), self._client_metrics(index)
        epsilon, worst = self._books.so_far()
        uploaded = None if outcome.cost is None else sum(outcome.cost.upload_bytes.values())
        if self.resolved.encoding is None:
            uploaded = trained.vectors.nbytes
        row = {
            "round": index,
            "attempt": attempt,
            "status": "aborted" if outcome.mean is None else "released",
            "reason": outcome.reason,
            "invited": invited,
            "survivors": len(outcome.survivors),
            "metrics": metrics,
            "epsilon": epsilon,
            "epsilon_worst_case": worst,
            "seconds": clock.seconds,
            "upload_bytes": uploaded,
            "cost": outcome.cost and dataclasses.asdict(outcome.cost),
            "client_metrics": clients,
        }
        self.store.finish_round(row, index, self.state, self._moved_on(outcome, trained))
        cost = Cost(dict(clock.seconds), uploaded, outcome.cost)
        return Round(
            index, self.state.params, metrics, outcome.survivors, epsilon, worst, cost,
            outcome.reason, clients,
        )  # fmt: skip

    def _moved_on(self, outcome: Outcome, trained: Trained) -> Iterator[tuple[int, PyTree]]:
        """Yields the states of clients whose messages were released; the others keep theirs."""
        released = frozenset() if outcome.mean is None else frozenset(outcome.survivors)
        if jax.tree.leaves(self._fresh):
            for row, client in enumerate(trained.client_ids.tolist()):
                if client in released:
                    yield client, trained.state_of(row)


def start(
    plan: Plan,
    model: Model,
    data: FederatedDataset,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    job: Mapping[str, Any] | None = None,
) -> Training:
    """Validates a plan and opens its store; nothing is trained yet.

    Args:
        plan: what to run.
        model: its parameters are trained; its metrics are evaluated on `data.test`.
        data: the clients.
        out: directory of the run's store, or None to keep it in memory.
        resume: continue the run in `out` instead of starting one.
        job: strings and numbers to keep with the run, such as those of a Job.

    Raises:
        PlanError: with every fault of the plan.
        StoreError: `out` holds a run already, or, to resume, none or another plan's.
    """
    resolved = resolve(plan, data, model=model)
    state = plan.algorithm.init(model.init(jax_key(plan.seed, Purpose.PARAMS)))
    identity = fingerprint(resolved, data, state)
    meta = {"fingerprint": identity, "facts": run_facts(resolved, data), "job": job}
    if not resume:
        store = Store.in_memory(meta) if out is None else Store.create(Path(out), meta)
        return Training(resolved, model, data, store, state)
    if out is None:
        raise StoreError("out", None, "the directory of the run to resume")
    store = Store.open(Path(out))
    if store.meta()["fingerprint"] != identity:
        store.close()
        raise StoreError("plan", "another plan than the one that began this run", "the same plan")
    training = Training(resolved, model, data, store, state)
    training.resume()
    return training


def rounds(
    plan: Plan,
    model: Model,
    data: FederatedDataset,
    *,
    out: str | Path | None = None,
    resume: bool = False,
) -> Iterator[Round]:
    """Runs a plan round by round; the plan is validated before this returns.

    Args:
        plan: what to run.
        model: its parameters are trained; its metrics are evaluated on `data.test`.
        data: the clients.
        out: directory of the run's store and summary, or None to keep nothing.
        resume: continue the run in `out` instead of starting one.

    Raises:
        PlanError: with every fault of the plan.
        StoreError: `out` holds a run already, or, to resume, none or another plan's.
    """
    training = start(plan, model, data, out=out, resume=resume)
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
    training.store.close()
    return summary


def train(
    plan: Plan, model: Model, data: FederatedDataset, *, out: str | Path | None = None
) -> Run:
    """Runs a plan to its end.

    Args:
        plan: what to run.
        model: its parameters are trained; its metrics are evaluated on `data.test`.
        data: the clients.
        out: directory of the run's store and summary, or None to keep nothing.

    Raises:
        PlanError: with every fault of the plan.
        StoreError: `out` holds a run already.
    """
    training = start(plan, model, data, out=out)
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
