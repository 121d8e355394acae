"""The clients of one process in one round: what they are asked, answer and keep."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol, TypeVar

import jax
import numpy as np
from numpy.typing import NDArray

from fl.arrays import from_npz, leaves_from_npz, to_npz, tree_to_npz
from fl.encoding import ClientValue, RecordValue
from fl.lanes import LaneSums, Totals, add_metrics
from fl.plan import Plan
from fl.privacy import NotPrivate
from fl.records import RecordRunner
from fl.runners import StateOf, Trained
from fl.states import ClientStates
from fl.streams import streams
from fl.types import Purpose, PyTree

Clocked = Callable[[str], AbstractContextManager[None]]
OVER = b"over"  # told instead of an order, ends the run


class Order(NamedTuple):
    """What process 0 has every process do: one attempt at a round.

    Attributes:
        round_index: from 0.
        attempt: from 0.
        invited: ids, ascending.
        dropouts: stage -> ids that never answer from that stage on.
        broadcast: what the server sends to every client.
    """

    round_index: int
    attempt: int
    invited: tuple[int, ...]
    dropouts: Mapping[str, tuple[int, ...]]
    broadcast: PyTree

    def to_bytes(self) -> bytes:
        """Returns the order as npz."""
        numbers = {
            "round": self.round_index, "attempt": self.attempt, "invited": self.invited,
            **{f"gone {stage}": ids for stage, ids in self.dropouts.items()},
        }  # fmt: skip
        arrays = {name: np.array(value, dtype=np.int64) for name, value in numbers.items()}
        sent = np.frombuffer(tree_to_npz(self.broadcast), dtype=np.uint8)
        return to_npz({**arrays, "broadcast": sent})

    @classmethod
    def from_bytes(cls, data: bytes, like: PyTree) -> "Order":
        """Undoes `to_bytes`; the broadcast gets the structure of `like`."""
        found = from_npz(data)
        leaves = leaves_from_npz(found["broadcast"].tobytes())
        dropouts = {
            name.removeprefix("gone "): tuple(ids.tolist())
            for name, ids in found.items()
            if name.startswith("gone ")
        }
        return cls(
            int(found["round"]), int(found["attempt"]), tuple(found["invited"].tolist()), dropouts,
            jax.tree.unflatten(jax.tree.structure(like), leaves),
        )  # fmt: skip


class Report(NamedTuple):
    """What process 0 learns of the clients elsewhere, beside their sum.

    Attributes:
        zeroed: whose message was not finite; for their own rows.
        trained: how many clients trained.
        metrics: by lane, of a run in the open; empty otherwise: they stay with their owners.
        states: client -> npz of what it keeps if its message is released.
    """

    zeroed: tuple[int, ...]
    trained: int
    metrics: Totals
    states: Mapping[int, bytes]

    def to_bytes(self) -> bytes:
        """Returns the report as npz."""
        text = json.dumps([self.zeroed, self.trained, list(self.metrics.items())])
        arrays = {str(i): np.frombuffer(data, dtype=np.uint8) for i, data in self.states.items()}
        return to_npz({**arrays, "text": np.frombuffer(text.encode(), dtype=np.uint8)})

    @classmethod
    def from_bytes(cls, data: bytes) -> "Report":
        """Undoes `to_bytes`."""
        found = from_npz(data)
        zeroed, trained, metrics = json.loads(found.pop("text").tobytes())
        states = {int(client): blob.tobytes() for client, blob in found.items()}
        totals = {
            lane: {name: (total, count) for name, (total, count) in values.items()}
            for lane, values in metrics
        }
        return cls(tuple(zeroed), trained, totals, states)


class Trains(Protocol):
    """What trains clients, as `fl.runners.Runner` does."""

    def train(
        self, broadcast: PyTree, round_index: int, client_ids: Sequence[int], state_of: StateOf
    ) -> Iterator[Trained]:
        """See `fl.runners.Runner.train`."""


Tap = Callable[[int, int, Mapping[str, NDArray[np.uint64]]], None]


class Site:
    """The clients of one process.

    Args:
        plan: what is run.
        in_the_open: whether floats leave the clients.
        runner: how they train; where records are the unit of privacy, each by itself.
        states: what they keep.
        sizes: int64[num_clients], examples per client.
        tap: for audits: called with round, client and segments of whoever is about to mask here.

    Attributes:
        states: what they keep.
        lanes: their sum of one round, where floats leave them.
    """

    def __init__(
        self,
        plan: Plan,
        runner: Trains | RecordRunner,
        states: ClientStates,
        sizes: NDArray[np.int64],
        *,
        in_the_open: bool,
        tap: Tap | None = None,
    ) -> None:
        self.states = states
        self.lanes = LaneSums()
        self._plan, self._runner, self._sizes = plan, runner, sizes
        self._in_the_open = in_the_open
        self._tap = tap
        self._zeroed: list[int] = []
        self._trained = 0
        self._metrics: Totals = {}

    def train(
        self,
        order: Order,
        client_ids: Sequence[int],
        clock: Clocked,
    ) -> Iterator[tuple[int, ClientValue | RecordValue]]:
        """Trains clients that live here, a chunk at a time, and yields what each contributes."""
        if isinstance(self._runner, RecordRunner):
            self._trained += len(client_ids)
            for client in client_ids:
                coins = streams(self._plan, order.round_index, client)(Purpose.RECORDS)
                rows = self._runner.rows(order.broadcast, order.round_index, client, coins)
                yield client, RecordValue(_clocked(rows, clock))
            return
        chunks = self._runner.train(order.broadcast, order.round_index, client_ids, self.states.of)
        for trained in _clocked(chunks, clock):
            self._note(trained)
            for row, client in enumerate(trained.client_ids.tolist()):
                yield client, self._value(client, row, trained)

    def sends(
        self, round_index: int, client: int, segments: Mapping[str, NDArray[np.uint64]]
    ) -> None:
        """Notes what a client here is about to mask."""
        if self._tap is not None:
            self._tap(round_index, client, segments)

    def _note(self, trained: Trained) -> None:
        self._zeroed += trained.client_ids[~trained.finite].tolist()
        self._trained += len(trained.client_ids)
        for row, client in enumerate(trained.client_ids.tolist()):
            self.states.hold(client, jax.tree.map(lambda leaf, row=row: leaf[row], trained.states))
            if self._in_the_open:
                add_metrics(self._metrics, client, _row(trained.metrics, row))

    def _value(self, client: int, row: int, trained: Trained) -> ClientValue:
        """What a client contributes; a message that is not finite has become zero."""
        privacy = self._plan.privacy
        weight = 1
        if isinstance(privacy, NotPrivate):
            weight = int(self._sizes[client]) if privacy.weights == "examples" else 1
            if not (trained.finite[row] and self._sizes[client]):
                weight = 0
        return ClientValue(trained.vectors[row], weight, bool(trained.clipped[row]))

    def report(self, *, with_states: bool) -> Report:
        """What came of training since the last report."""
        states = dict(self.states.pending()) if with_states else {}
        found = Report(tuple(sorted(self._zeroed)), self._trained, self._metrics, states)
        self._zeroed, self._trained, self._metrics = [], 0, {}
        return found


_Item = TypeVar("_Item")


def _clocked(items: Iterator[_Item], clock: Clocked) -> Iterator[_Item]:
    """Yields the items; the seconds that making them takes are training."""
    while True:
        with clock("train"):
            item = next(items, None)
        if item is None:
            return
        yield item


def _row(metrics: Mapping[str, Any], row: int) -> list[tuple[str, float, float]]:
    return [
        (name, float(total[row]), float(count[row])) for name, (total, count) in metrics.items()
    ]
