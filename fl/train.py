"""The round loop: train, sum, release, step, evaluate, commit.

The loop is the caller's: `for r in rounds(plan, model, data): ...`. `train` exhausts it.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

import dp
from fl import secure
from fl.aggregate import Plain, draw_dropouts, lost_before_masking
from fl.algorithms.base import ServerState
from fl.datasets.dataset import FederatedDataset
from fl.errors import StoreError
from fl.metrics import evaluator
from fl.models import Model
from fl.plan import Plan, Resolved, resolve
from fl.privacy import RELATION, Privacy
from fl.round import Attempt, Clock, attempt_round, client_values
from fl.runners import ScanRunner, Trained
from fl.statement import Statement, so_far, statement
from fl.store import Store
from fl.summary import fingerprint, run_facts, summarize, write_summary
from fl.tree import sha256
from fl.types import Purpose, PyTree, jax_key


class Cost(NamedTuple):
    """What a round cost.

    Attributes:
        seconds: wall-clock seconds of train, encode, protocol and decode, all clients together.
        upload_bytes: sent by all clients together, or None where nothing was serialised.
        protocol: bytes and CPU seconds per role and stage, where the protocol ran.
    """

    seconds: Mapping[str, float]
    upload_bytes: int | None
    protocol: secure.RoundCost | None


@dataclass(frozen=True)
class Round:
    """One finished round.

    Attributes:
        index: from 0.
        params: the global model after it.
        metrics: on the test set, where this round was evaluated, and sums that rode along.
        survivors: whose updates are in the model; empty where nothing was released.
        epsilon: upper realised figure so far of the row named by `against` (the worst case so far
            where realised may not be printed), or None without a guarantee.
        epsilon_worst_case: the same with min_survivors in each release charged so far.
        cost: seconds and bytes.
        reason: why nothing was released, or None.
    """

    index: int
    params: PyTree
    metrics: Mapping[str, float]
    survivors: tuple[int, ...]
    epsilon: float | None
    epsilon_worst_case: float | None
    cost: Cost
    reason: str | None


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        params: the final model.
        metrics: its evaluation on the test set.
        privacy: the statement from what happened.
        cost: each round's.
        stopped_early: why rounds are missing, or None.
    """

    params: PyTree
    metrics: Mapping[str, float]
    privacy: Statement
    cost: tuple[Cost, ...]
    stopped_early: str | None


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
        self._evaluate = None if data.test is None else evaluator(model, data.test)
        self._server_update = jax.jit(plan.algorithm.server_update)
        self._ledger = _ledger(resolved, data.num_clients)

    def resume(self) -> None:
        """Continues from the store: ledgers, server state and round number."""
        if self._ledger is not None:
            for index, number, clients in self.store.charges():
                self._ledger.charge(index, number, clients)
            for index, number, survivors in self.store.releases():
                self._record_release(index, number, survivors)
        checkpoint = self.store.checkpoint()
        if checkpoint is not None:
            structure = jax.tree.structure(self.state)
            leaves = [jnp.asarray(leaf) for leaf in checkpoint.leaves]
            self.state = jax.tree.unflatten(structure, leaves)
            self.next_round = checkpoint.round_index + 1

    def statement(self) -> Statement:
        """The privacy statement from what happened so far."""
        return statement(self.resolved.exposure, self._ledger)

    def evaluate(self) -> dict[str, float]:
        """Metrics of the model as it stands on the test set; empty without one."""
        return {} if self._evaluate is None else self._evaluate(self.state.params)

    def step(self) -> Round | None:
        """Runs the next round; None when the run is over."""
        plan, index = self.resolved.plan, self.next_round
        ids = plan.cohort.members(index, len(self._sizes), plan.seed)
        if index >= plan.rounds or self._exhausted(ids):
            return None
        dropouts = (
            {}
            if isinstance(plan.aggregation, Plain)
            else draw_dropouts(plan.aggregation, ids, plan.seed, index)
        )
        clock, number = Clock(), self.store.attempts(index)
        senders = self._charge(index, number, ids, lost_before_masking(dropouts))
        senders = senders[~np.isin(senders, list(dropouts.get("mask_input", ())))]
        with clock("train"):
            broadcast = plan.algorithm.broadcast(self.state)
            trained = self._runner.train(broadcast, index, senders.tolist())
        self._tell_owners(index, number, trained)
        attempt = attempt_round(
            self.resolved,
            client_values(plan, trained, self._sizes),
            ids.tolist(),
            dropouts,
            index,
            number,
            lambda survivors: self._commit_release(index, number, survivors),
            clock,
        )
        with clock("decode"):
            self._apply(attempt)
        return self._finish(index, number, len(ids), attempt, trained, clock)

    def _exhausted(self, ids: NDArray[np.int64]) -> bool:
        params = self.resolved.params
        if self._ledger is None:
            return False
        if self._ledger.exhausted[ids].any():
            why = f"a client has used all {self._ledger.max_releases} releases that it grants"
        elif params is not None and self.store.total_attempts() >= params.rounds:
            why = f"all {params.rounds} attempts that the protocol's failure covers are used"
        else:
            return False
        self.stopped_early = (
            f"round {self.next_round} did not start: {why} (spare_releases grants more)"
        )
        return True

    @property
    def _private(self) -> bool:
        return isinstance(self.resolved.plan.privacy, Privacy)

    def _charge(
        self, index: int, number: int, ids: NDArray[np.int64], lost: frozenset[int]
    ) -> NDArray[np.int64]:
        """Commits the charge of every client that may send a masked vector, and returns them."""
        present = ids[~np.isin(ids, list(lost))]
        if self._private:
            self.store.charge(index, number, present.tolist())
        if self._ledger is not None:
            self._ledger.charge(index, number, present.tolist())
        return present

    def _tell_owners(self, index: int, number: int, trained: Trained) -> None:
        if self._private:
            zeroed = trained.client_ids[~trained.finite]
            self.store.note_zeroed(index, number, zeroed.tolist())

    def _commit_release(self, index: int, number: int, survivors: tuple[int, ...]) -> None:
        self.store.release(index, number, survivors)
        self._record_release(index, number, survivors)

    def _record_release(self, index: int, number: int, survivors: tuple[int, ...]) -> None:
        if self._ledger is not None:
            exposure = self.resolved.exposure
            event = exposure.event(exposure.adversary, len(survivors))
            self._ledger.release(index, number, survivors, event)

    def _apply(self, attempt: Attempt) -> None:
        if attempt.mean is None or attempt.mean.vector is None:
            return
        mean = jnp.asarray(attempt.mean.vector, dtype=jnp.float32)
        message = self.resolved.messages.unravel(mean)
        self.state = self._server_update(self.state, message)
        jax.block_until_ready(self.state)  # type: ignore[no-untyped-call]  # jax leaves it untyped

    def _measure(self, index: int, attempt: Attempt, trained: Trained) -> dict[str, float]:
        plan, found = self.resolved.plan, {}
        last = index == plan.rounds - 1
        if self._evaluate is not None and ((index + 1) % plan.eval_every == 0 or last):
            found = self._evaluate(self.state.params)
        counts = {} if attempt.mean is None else attempt.mean.counts
        in_the_open = self.resolved.encoding is None
        local = trained.metrics if in_the_open else {}  # otherwise they stay with their owners
        means = {f"train_{name}": total / n for name, (total, n) in local.items() if n}
        return {**found, **counts, **means}

    def _finish(
        self,
        index: int,
        number: int,
        invited: int,
        attempt: Attempt,
        trained: Trained,
        clock: Clock,
    ) -> Round:
        metrics = self._measure(index, attempt, trained)
        epsilon, worst = so_far(self.resolved.exposure, self._ledger)
        uploaded = None if attempt.cost is None else sum(attempt.cost.upload_bytes.values())
        if self.resolved.encoding is None:
            uploaded = trained.vectors.nbytes
        row = {
            "round": index,
            "attempt": number,
            "status": "aborted" if attempt.mean is None else "released",
            "reason": attempt.reason,
            "invited": invited,
            "survivors": len(attempt.survivors),
            "metrics": metrics,
            "epsilon": epsilon,
            "epsilon_worst_case": worst,
            "seconds": clock.seconds,
            "upload_bytes": uploaded,
            "cost": attempt.cost and dataclasses.asdict(attempt.cost),
        }
        self.store.finish_round(row, index, self.state)
        self.next_round = index + 1
        cost = Cost(dict(clock.seconds), uploaded, attempt.cost)
        return Round(
            index, self.state.params, metrics, attempt.survivors, epsilon, worst, cost,
            attempt.reason,
        )  # fmt: skip


def _ledger(resolved: Resolved, num_clients: int) -> dp.Ledger | None:
    """The ledger of all clients and of the server, which a simulation may keep as one.

    None where nothing is promised: seeded runs repeat their noise, and resume as often as asked.
    """
    exposure = resolved.exposure
    if not isinstance(exposure.privacy, Privacy) or exposure.seeded_secrets:
        return None
    return dp.Ledger(
        num_clients,
        max_releases=exposure.max_releases,
        min_survivors=exposure.bounds.min_survivors,
        neighboring=RELATION,
    )


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

    Args and Raises: as `start`.
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

    Args and Raises: as `start`.
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
