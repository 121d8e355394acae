"""Attacks a plan's whole pipeline with canaries, and states what leaks at least.

Canaries join the clients of the plan, which is then run as always. Every adversary of the privacy
statement scores them by what it sees, guesses their coins, and the guesses give a lower bound to
stand beside the upper bound that is claimed. docs/privacy.md, "Auditing a run".
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

import dp
from fl._validate import choice_fault, integer_fault, number_fault
from fl.audit.canaries import DIRECTIONS, LARGEST, Canaries, Planted, draw_canaries, with_clients
from fl.audit.watch import run_watched
from fl.datasets.dataset import FederatedDataset
from fl.encoding import PrivateEncoding, rotation_of
from fl.engine import Attempted
from fl.errors import PlanError, fault
from fl.group import alone
from fl.models import Model
from fl.plan import Plan, Resolved
from fl.prepare import prepare
from fl.privacy import ADVERSARIES, Privacy
from fl.runners import Execution, Trained
from fl.site import Order
from fl.statement import Statement
from fl.tree import ravel
from fl.types import FloatVector, PyTree, RandomBytes

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class AuditedRow:
    """What an attack says of one row of the statement.

    Attributes:
        adversary: whose row.
        delta: of it.
        claimed: the upper end of its worst case.
        lower: what leaks at least, with the audit's confidence.
        correct: guesses that were right.
        estimate: `dp.estimate_one_shot`, no bound; None where scores are too few or all alike.
    """

    adversary: str
    delta: float
    claimed: float
    lower: float
    correct: int
    estimate: float | None

    @property
    def refuted(self) -> bool:
        """Whether more leaks than is claimed."""
        return self.lower > self.claimed


@dataclass(frozen=True)
class Audit:
    """The audit of one run.

    Attributes:
        canaries: m.
        guesses: r, of the m.
        significance: of every row by itself: chance that its bound exceeds the truth.
        rows: of the statement's rows with a figure.
        statement: of the run that was attacked.
        summary: of that run.
    """

    canaries: int
    guesses: int
    significance: float
    rows: tuple[AuditedRow, ...]
    statement: Statement
    summary: Mapping[str, Any]

    def of(self, adversary: str, delta: float | None) -> dict[str, Any] | None:
        """Returns an audited row as summary.json holds it; None where there is no figure."""
        for row in self.rows:
            if (row.adversary, row.delta) == (adversary, delta):
                return {
                    "lower": row.lower,
                    "confidence": 1.0 - self.significance,
                    "claimed": row.claimed,
                    "refuted": row.refuted,
                    "canaries": self.canaries,
                    "guesses": self.guesses,
                    "correct": row.correct,
                    "estimate": row.estimate,
                    "estimate_label": dp.NOT_A_BOUND,
                }
        return None


class Scores:
    """Every adversary's scores of the canaries, summed over rounds; a `fl.audit.watch.Watch`.

    Attributes:
        by_adversary: adversary -> float64[m].
    """

    def __init__(self, resolved: Resolved, canaries: Canaries, colluders: Iterable[int]) -> None:
        if not isinstance(resolved.encoding, PrivateEncoding):
            raise TypeError("a plan without noise has no scores")  # `audit` refuses it
        self.by_adversary = {name: np.zeros(len(canaries.present)) for name in ADVERSARIES}
        self._encoding, self._resolved, self._canaries = resolved.encoding, resolved, canaries
        self._colluders = frozenset(colluders)
        self._sent: dict[int, Mapping[str, NDArray[np.uint64]]] = {}
        self._inputs: dict[int, FloatVector] = {}
        self._steps: NDArray[np.float32] | None = None  # the canaries', in the model

    def overhear(self, trained: Trained) -> None:
        """Takes the others' inputs, which differential privacy lets the adversary know."""
        self._inputs |= dict(zip(trained.client_ids.tolist(), trained.vectors, strict=True))

    def sent(
        self, round_index: int, client: int, segments: Mapping[str, NDArray[np.uint64]]
    ) -> None:
        """See `Watch.sent`: of all but the colluders nothing is read."""
        del round_index
        if client in self._colluders:
            self._sent[client] = segments

    def attempted(self, order: Order, attempted: Attempted) -> None:
        """See `Watch.attempted`: the noised sum less what is known of it."""
        outcome, sent, inputs = attempted.outcome, self._sent, self._inputs
        self._sent, self._inputs = {}, {}
        if outcome.mean is None or outcome.mean.vector is None:
            return
        plan = self._resolved.plan
        dim, index = self._resolved.messages.dim, order.round_index
        rotation = rotation_of(self._encoding, dim, plan.seed, index)
        seen = outcome.mean.vector * self._encoding.denominator
        for client in outcome.survivors:
            if client in self._colluders:
                seen = seen - self._encoding.contribution(sent[client], rotation)
            elif client in inputs:
                seen = seen - inputs[client]
        scores = self._canaries.directions @ seen
        self.by_adversary["server"] += scores * self._among(outcome.survivors)
        self.by_adversary["participants"] += scores * self._among(order.invited)

    def released(self, order: Order, before: PyTree, after: PyTree) -> None:
        """See `Watch.released`: to an outsider, what the models changed by."""
        change = np.asarray(ravel(before), np.float64) - np.asarray(ravel(after), np.float64)
        if self._steps is None:
            directions = self._canaries.directions
            alike = change.size == directions.shape[1]
            self._steps = directions if alike else first_steps(self._resolved, before, directions)
        known = not self._resolved.plan.cohort.secret
        taking_part = self._among(order.invited) if known else 1.0
        self.by_adversary["outsider"] += (self._steps @ change) * taking_part

    def _among(self, clients: Sequence[int]) -> NDArray[np.bool_]:
        return np.isin(np.array(self._canaries.ids), np.array(clients))


def first_steps(
    resolved: Resolved, params: PyTree, directions: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Returns what the server's first step on each direction takes off the model, f32[m, p].

    For messages that hold more than a change of the model, such as SCAFFOLD's: an outsider sees
    of a canary what its message does to the model.
    """
    algorithm, unravel = resolved.plan.algorithm, resolved.messages.unravel
    state = algorithm.init(params)

    def stepped(message: jax.Array) -> jax.Array:
        return ravel(algorithm.server_update(state, unravel(message)).params)

    still = stepped(jnp.zeros(directions.shape[1], jnp.float32))
    return np.asarray(still - jax.jit(jax.vmap(stepped))(jnp.asarray(directions)))


def audit(
    plan: Plan,
    model: Model,
    data: FederatedDataset,
    *,
    canaries: int,
    significance: float,
    guesses: int | None = None,
    directions: str = "orthogonal",
    knows_inputs: bool = True,
    rand: RandomBytes = os.urandom,
    execution: Execution = Execution(),
    out: Path | None = None,
    job: Mapping[str, Any] | None = None,
) -> Audit:
    """Runs the plan with canaries among its clients, and bounds what each adversary learns.

    The noise is sized for the cohorts with the canaries in them, to the same target.

    Args:
        plan: a private plan whose unit is the client.
        model: as `fl.train`.
        data: as `fl.train`.
        canaries: m, clients that are added.
        significance: chance that one row's bound exceeds the truth.
        guesses: r, at most m; default m, no canary is abstained from.
        directions: "orthogonal" or "random".
        knows_inputs: server and participants know what the plan's own clients put in, as
            differential privacy lets them; without it those inputs hide canaries, and bounds fall.
        rand: the auditor's secret bytes: coins and directions.
        execution: as `fl.train`.
        out: directory of the run that is attacked, or None to keep nothing.
        job: strings and numbers to keep with it.

    Raises:
        PlanError: with every fault of the plan, or no row with a figure.
        StoreError: `out` holds a run already.
    """
    faults = integer_fault("canaries", canaries, 1, 10**5)
    if guesses is not None and not faults:
        faults += integer_fault("guesses", guesses, 1, canaries)
    check_plan(plan, significance, *faults, *choice_fault("directions", directions, DIRECTIONS))
    everybody = with_clients(data, canaries)
    ready = prepare(plan, model, everybody, execution, alone())
    resolved = ready.resolved
    if knows_inputs:
        _check_memory(resolved.sizes[1], resolved.messages.dim)
    _check_figures(resolved.privacy)
    drawn = draw_canaries(
        canaries, resolved.messages.dim, first_id=data.num_clients, directions=directions,
        rand=rand,
    )  # fmt: skip
    colluders = range(min(resolved.exposure.bounds.max_corrupt, data.num_clients))
    scores = Scores(resolved, drawn, colluders)
    messages = _messages(drawn)
    runner = Planted(
        ready.runner, lambda _: messages, resolved.max_norm or 1.0, resolved.messages.dim,
        scores.overhear if knows_inputs else None,
    )  # fmt: skip
    said, summary = run_watched(ready, model, everybody, runner, scores, out=out, job=job)
    chosen = canaries if guesses is None else guesses
    rows = tuple(
        _audited(scores.by_adversary[row.adversary], drawn.present, chosen, significance,
                 row.adversary, row.delta or 0.0, row.worst_case.upper)
        for row in said.rows
        if row.reason is None and row.worst_case is not None
    )  # fmt: skip
    return Audit(canaries, chosen, significance, rows, said, summary)


def check_plan(plan: Plan, significance: float, *faults: str) -> None:
    """Checks what audits and probes take.

    Raises:
        PlanError: with these and all other faults.
    """
    found = [
        *faults,
        *number_fault("significance", significance, "a number in (0, 1)", lambda v: 0 < v < 1),
    ]
    if not isinstance(plan.privacy, Privacy):
        found.append(fault("privacy", plan.privacy, "a private plan: it claims something"))
    elif plan.privacy.unit != "client":
        found.append(fault("unit", plan.privacy.unit, "client: canaries are clients"))
    if found:
        raise PlanError(tuple(found))


def _check_figures(said: Statement) -> None:
    if all(row.reason is not None for row in said.rows):
        reasons = "; ".join(sorted({str(row.reason) for row in said.rows}))
        raise PlanError((fault("plan", reasons, "a plan with a figure to audit"),))


def _check_memory(clients: int, dim: int) -> None:
    if clients * dim > LARGEST:
        takes = f"clients times parameters at most {LARGEST}, or knows_inputs=False"
        raise PlanError((fault("knows_inputs", f"{clients} of {dim} parameters", takes),))


def _messages(drawn: Canaries) -> dict[int, FloatVector | None]:
    return {
        client: drawn.directions[row] if drawn.present[row] else None
        for row, client in enumerate(drawn.ids)
    }


def _audited(
    scores: FloatArray,
    present: NDArray[np.bool_],
    guesses: int,
    significance: float,
    adversary: str,
    delta: float,
    claimed: float,
) -> AuditedRow:
    found = dp.audit_one_run(
        scores, present, num_guesses=guesses, delta=delta, significance=significance
    )
    try:
        estimate = dp.estimate_one_shot(scores[present], scores[~present], delta=delta).epsilon
    except dp.ParameterError:  # a side has no two scores that differ
        estimate = None
    return AuditedRow(adversary, delta, claimed, found.epsilon, found.correct, estimate)
