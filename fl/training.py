"""One run in progress: a round is trained, summed, released, stepped, evaluated, committed."""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from fl.aggregate import Plain, draw_dropouts
from fl.books import Books
from fl.correlated import correlated_noise
from fl.datasets.dataset import FederatedDataset
from fl.engine import Attempted, Engine
from fl.lanes import metric_totals
from fl.metrics import client_evaluator, evaluator
from fl.models import Model
from fl.prepare import Prepared
from fl.programs import server_step
from fl.results import Cost, Round
from fl.round import Clock, Outcome
from fl.site import Order, Report
from fl.statement import Statement
from fl.store import Store
from fl.streams import invited
from fl.tensorboard import EventWriter

_LOST = "interrupted after its noise was drawn: it counts as released, and its update is lost"


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
        self,
        ready: Prepared,
        model: Model,
        data: FederatedDataset,
        store: Store,
        engine: Engine,
        events: EventWriter | None,
    ) -> None:
        self.resolved = ready.resolved
        self.store = store
        self.state = ready.state
        self.next_round = 0
        self.stopped_early: str | None = None
        self._engine = engine
        self._events = events
        self._num_clients = data.num_clients
        self._evaluate = None if data.test is None else evaluator(model, data.test)
        self._evaluate_clients = (
            client_evaluator(model, data) if ready.resolved.plan.client_metrics else None
        )
        self._evaluated: tuple[int, dict[str, float]] | None = None
        noise = correlated_noise(ready.resolved)
        self._books = Books(ready.resolved.exposure, data.num_clients, store, noise)
        self._lost: int | None = None

    def resume(self) -> None:
        """Continues from the store: ledgers, server state, client states and round number."""
        self._books.replay()
        checkpoint = self.store.checkpoint()
        if checkpoint is not None:
            structure = jax.tree.structure(self.state)
            leaves = [jnp.asarray(leaf) for leaf in checkpoint.leaves]
            self.state = jax.tree.unflatten(structure, leaves)
            self.next_round = checkpoint.round_index + 1
        if self._books.restore(self.next_round):
            self._lost = self.next_round
        if self._events is not None:
            for row in self.store.rounds():
                self._events.write(row)

    def close(self) -> None:
        """Ends the run everywhere and closes the store."""
        self._engine.close()
        if self._events is not None:
            self._events.close()
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
        if index == self._lost:
            nothing = Outcome(None, (), None, _LOST)
            return self._finish(self._order(index, ids), Attempted(nothing, (), ()), Clock())
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
        self.store.finish_round(row, index, self.state, moved, self._books.end(index))
        if self._events is not None:
            self._events.write(row)
        cost = Cost(dict(clock.seconds), uploaded, outcome.cost)
        return Round(
            index, self.state.params, metrics, outcome.survivors, epsilon, worst, cost,
            outcome.reason, clients,
        )  # fmt: skip
