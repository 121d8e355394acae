"""A process other than 0: it takes orders until process 0 ends the run."""

import json

from fl.arrays import from_npz
from fl.datasets.dataset import FederatedDataset
from fl.group import Group
from fl.models import Model
from fl.plan import Plan
from fl.prepare import prepare, site_of
from fl.round import Clock, attempt_round
from fl.runners import Execution
from fl.site import OVER, Order
from fl.states import ClientStates


def serve(
    plan: Plan,
    model: Model,
    data: FederatedDataset,
    *,
    group: Group,
    execution: Execution = Execution(),
) -> None:
    """Runs the part of a process other than 0, until process 0 ends the run.

    Args:
        plan: the same as in process 0, and so are model, data and execution.
        model: as there.
        data: as there; only the examples of this process's clients are read.
        group: the processes of the run; not 0 of them.
        execution: as there.

    Raises:
        PlanError: with every fault of the plan.
        WorkerError: process 0 is gone or runs something else.
    """
    ready = prepare(plan, model, data, execution, group)
    states = ClientStates(ready.fresh)
    kept = from_npz(group.tell(b""))
    states.load({int(client): blob.tobytes() for client, blob in kept.items()
                 if int(client) % group.size == group.index})  # fmt: skip
    site, like = site_of(ready, data, states), plan.algorithm.broadcast(ready.state)
    while (told := group.tell(b"")) != OVER:
        order = Order.from_bytes(told, like)
        attempt_round(ready.resolved, site, order, group, lambda survivors: None, Clock())
        group.exchange(site.report(with_states=True).to_bytes())
        states.settle(group.mine(json.loads(group.tell(b""))))
