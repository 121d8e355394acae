"""What every process of a run does before the first round: validate, agree, lay out its clients."""

import os
from dataclasses import replace
from typing import NamedTuple

import jax

from fl import secure
from fl.algorithms.base import ServerState
from fl.datasets.dataset import FederatedDataset
from fl.errors import PlanError, WorkerError, fault
from fl.group import Group
from fl.lanes import LANES
from fl.models import Model
from fl.plan import Plan, Resolved, resolve
from fl.privacy import Privacy
from fl.programs import initial_state, seed_words
from fl.records import RecordRunner
from fl.runners import Execution, Runner, runner_for
from fl.site import Site
from fl.states import ClientStates
from fl.summary import fingerprint
from fl.types import PyTree
from fl.workers import SINGLE_THREAD


class Prepared(NamedTuple):
    """A validated run.

    Attributes:
        resolved: the plan with everything derived.
        state: the server's before the first round.
        fresh: what a client keeps that has not taken part.
        runner: how clients train here.
        execution: strategy, chunk, threads and backend, which decide a model's last bits.
        identity: hash of what a plan that resumes must share, `execution` included.
    """

    resolved: Resolved
    state: ServerState
    fresh: PyTree
    runner: Runner
    execution: dict[str, int | str]
    identity: str


def prepare(
    plan: Plan, model: Model, data: FederatedDataset, execution: Execution, group: Group
) -> Prepared:
    """Validates a plan, then compiles the initialisation; all processes call it in step.

    Raises:
        PlanError: with every fault of the plan.
        WorkerError: another process runs something else.
    """
    resolved = _bound(resolve(plan, data, model=model), group)
    _check_processes(resolved, group)
    state, fresh = jax.eval_shape(
        lambda: initial_state(plan.algorithm, model.init, seed_words(plan.seed))
    )
    runner = runner_for(
        execution, plan.algorithm, data, plan.seed, resolved.max_norm,
        jax.eval_shape(plan.algorithm.broadcast, state), fresh,
    )  # fmt: skip
    settings: dict[str, int | str] = {
        "strategy": runner.strategy,
        "chunk": runner.chunk,
        "threads": threads(),
        "backend": backend(),
    }
    identity = fingerprint(resolved, data, state, settings)
    _agree(identity, group)
    state, fresh = initial_state(plan.algorithm, model.init, seed_words(plan.seed))
    return Prepared(resolved, state, jax.device_get(fresh), runner, settings, identity)


def _bound(resolved: Resolved, group: Group) -> Resolved:
    """The protocol's parameters as process 0 drew them."""
    if resolved.params is None or group.size == 1:
        return resolved
    drawn = group.tell(secure.binding(resolved.params))
    return replace(resolved, params=secure.bind(resolved.params, drawn))


def _check_processes(resolved: Resolved, group: Group) -> None:
    if group.size == 1:
        return
    found = []
    if resolved.encoding is None and LANES % group.size:
        takes = f"a divisor of {LANES} where floats are averaged in the open"
        found.append(fault("processes", group.size, takes))
    if jax.default_backend() == "cpu" and threads() != 1:
        takes = f"one thread each: XLA_FLAGS={SINGLE_THREAD} before JAX starts, or pinned processes"
        found.append(fault("processes", f"{threads()} threads in a process", takes))
    if found:
        raise PlanError(tuple(found))


def backend() -> str:
    """Returns "cpu", or an accelerator's platform and kind: another kind may round apart."""
    platform = jax.default_backend()
    return platform if platform == "cpu" else f"{platform}: {jax.devices()[0].device_kind}"


def threads() -> int:
    """Returns how many threads a compiled program may use here: more than one may round apart."""
    single = SINGLE_THREAD in os.environ.get("XLA_FLAGS", "")
    return 1 if single else len(os.sched_getaffinity(0)) if _PINS else os.cpu_count() or 1


_PINS: bool = hasattr(os, "sched_getaffinity")  # Linux


def _agree(identity: str, group: Group) -> None:
    if group.size == 1:
        return
    others = [k for k, got in enumerate(group.exchange(identity.encode()))
              if group.index == 0 and got.decode() != identity]  # fmt: skip
    verdict = group.tell(str(others[0]).encode() if others else b"")
    if verdict:
        raise WorkerError(int(verdict), "runs another plan, data or strategy than worker 0")


def site_of(ready: Prepared, data: FederatedDataset, states: ClientStates) -> Site:
    """Returns the clients of this process."""
    plan, runner = ready.resolved.plan, ready.runner
    private = plan.privacy
    by_record: RecordRunner | None = None
    if isinstance(private, Privacy) and private.unit == "record":
        by_record = RecordRunner(
            plan.algorithm, data, plan.seed, private.clip_norm, private.record_sampling or 1.0
        )
    in_the_open = ready.resolved.encoding is None
    return Site(plan, by_record or runner, states, data.sizes, in_the_open=in_the_open)
