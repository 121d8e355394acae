"""What a round and a run give to the caller."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from fl import secure
from fl.statement import Statement
from fl.types import PyTree


class Cost(NamedTuple):
    """What a round cost.

    Attributes:
        seconds: wall-clock seconds of train, encode, protocol and decode in process 0, for all the
            clients that live there.
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
        client_metrics: mean, worst and deciles over the clients' own examples, where the plan asks
            for them and the round was evaluated; outside the guarantee of a private plan.
    """

    index: int
    params: PyTree
    metrics: Mapping[str, float]
    survivors: tuple[int, ...]
    epsilon: float | None
    epsilon_worst_case: float | None
    cost: Cost
    reason: str | None
    client_metrics: Mapping[str, float] = dataclasses.field(default_factory=dict)


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
