"""A run that an auditor watches: the loop, the store and the protocol are those of every run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fl.books import Books
from fl.datasets.dataset import FederatedDataset
from fl.engine import Attempted, InProcess
from fl.group import alone
from fl.models import Model
from fl.prepare import Prepared
from fl.round import Clock
from fl.site import Order, Site, Trains
from fl.statement import Statement
from fl.states import ClientStates
from fl.store import Store
from fl.train import begin, conclude
from fl.types import PyTree


class Watch(Protocol):
    """What an auditor is shown of a run."""

    def sent(
        self, round_index: int, client: int, segments: Mapping[str, NDArray[np.uint64]]
    ) -> None:
        """Takes what a client is about to mask; the auditor reads that of its own clients."""

    def attempted(self, order: Order, attempted: Attempted) -> None:
        """Takes what the server read in a round."""

    def released(self, order: Order, before: PyTree, after: PyTree) -> None:
        """Takes the parameters before and after a round."""


class _Watched:
    """An engine in this process that shows every attempt, and changes nothing."""

    def __init__(self, engine: InProcess, watch: Watch) -> None:
        self._engine, self._watch = engine, watch
        self.order: Order | None = None

    def attempt(self, order: Order, books: Books, clock: Clock) -> Attempted:
        attempted = self._engine.attempt(order, books, clock)
        self._watch.attempted(order, attempted)
        self.order = order
        return attempted

    def settle(self, survivors: Sequence[int]) -> None:
        self._engine.settle(survivors)

    def close(self) -> None:
        self._engine.close()


def run_watched(
    ready: Prepared,
    model: Model,
    data: FederatedDataset,
    runner: Trains,
    watch: Watch,
    *,
    out: Path | None = None,
    job: Mapping[str, Any] | None = None,
) -> tuple[Statement, dict[str, Any]]:
    """Runs a plan in this process to its end.

    Args:
        ready: the plan.
        model: as `fl.train`.
        data: as `fl.train`.
        runner: trains the clients, in place of the plan's own.
        watch: is shown the run.
        out: as `fl.train`.
        job: strings and numbers to keep with the run.

    Returns:
        The statement from what happened, and the summary.

    Raises:
        StoreError: `out` holds a run already.
    """
    resolved, engines = ready.resolved, []

    def engine_of(store: Store) -> _Watched:
        site = Site(
            resolved.plan, runner, ClientStates(ready.fresh, store.client_state), data.sizes,
            in_the_open=False, tap=watch.sent,
        )  # fmt: skip
        engines.append(_Watched(InProcess(resolved, site, alone()), watch))
        return engines[0]

    training = begin(ready, model, data, engine_of, out=out, resume=False, job=job)
    engine = engines[0]
    try:
        before = training.state.params
        while training.step() is not None:
            if engine.order is not None:  # a round may not have started
                watch.released(engine.order, before, training.state.params)
            engine.order, before = None, training.state.params
    finally:
        said = training.statement()
        summary = conclude(training, out)
    return said, summary
