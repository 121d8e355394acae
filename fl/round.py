"""One attempt at a round, from trained messages to the mean that the server reads.

Nothing here keeps state: charges and releases are committed by what the caller passes in.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fl import secure
from fl.aggregate import aggregate, foretold
from fl.encoding import ClientValue, Mean, RecordValue, Streams, round_rotation
from fl.errors import FlError
from fl.plan import Plan, Resolved
from fl.privacy import NotPrivate
from fl.records import RecordRunner
from fl.runners import Trained
from fl.types import PARTS, FloatVector, Purpose, PyTree, RandomBytes

Values = Callable[[int], ClientValue | RecordValue]  # client id -> its contribution
_SERVER = 2**32  # client ids are below, so the server's seeded streams are its own


class Outcome(NamedTuple):
    """What one attempt at a round gave.

    Attributes:
        mean: what the server read, or None where nothing was released.
        survivors: whose updates are in it, ascending.
        cost: bytes and CPU seconds of the protocol, where it ran.
        reason: why nothing was released, or None.
    """

    mean: Mean | None
    survivors: tuple[int, ...]
    cost: secure.RoundCost | None
    reason: str | None


class Clock:
    """Wall-clock seconds by part; a part inside another counts once, for itself."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = dict.fromkeys(PARTS, 0.0)
        self._running: list[str] = []

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """Adds the seconds spent inside to `part`, and takes them from the part around it."""
        start = time.perf_counter()
        self._running.append(part)
        try:
            yield
        finally:
            spent = time.perf_counter() - start
            self._running.pop()
            self.seconds[part] += spent
            if self._running:
                self.seconds[self._running[-1]] -= spent


def invited(resolved: Resolved, num_clients: int, round_index: int) -> list[int]:
    """Returns the ids of a round, ascending; drawn anew at every call where cohorts are secret."""
    cohort, plan = resolved.plan.cohort, resolved.plan
    coins = streams(plan, round_index, _SERVER)(Purpose.COHORT) if cohort.secret else None
    ids: list[int] = cohort.members(round_index, num_clients, plan.seed, coins).tolist()
    return ids


def streams(plan: Plan, round_index: int, party: int) -> Streams:
    """Returns one party's byte sources for a round: fresh secrets, or derived from the seed.

    Seeded noise does not depend on the attempt, so that a resumed run gives the same model.
    """

    def source(purpose: Purpose) -> RandomBytes:
        if plan.seeded_secrets:
            return secure.seeded_stream(plan.seed, purpose, round_index, party)
        return secure.secret_stream()

    return source


def client_values(plan: Plan, trained: Trained, sizes: NDArray[np.int64]) -> Values:
    """Returns client id -> what it contributes; a message that is not finite has become zero."""
    rows = {int(client): row for row, client in enumerate(trained.client_ids)}
    by_examples = isinstance(plan.privacy, NotPrivate) and plan.privacy.weights == "examples"

    def value(client: int) -> ClientValue:
        row = rows[client]
        weight = int(sizes[client]) if by_examples else 1
        if isinstance(plan.privacy, NotPrivate) and not (trained.finite[row] and sizes[client]):
            weight = 0
        return ClientValue(trained.vectors[row], weight, bool(trained.clipped[row]))

    return value


def record_values(
    plan: Plan, runner: RecordRunner, broadcast: PyTree, round_index: int, clock: Clock
) -> Values:
    """Returns client id -> the messages of its records that join, trained as they are read."""

    def value(client: int) -> RecordValue:
        coins = streams(plan, round_index, client)(Purpose.RECORDS)
        return RecordValue(clocked(runner.rows(broadcast, round_index, client, coins), clock))

    return value


def clocked(rows: Iterator[FloatVector], clock: Clock) -> Iterator[FloatVector]:
    """Yields the rows; the seconds that making them takes are training."""
    while True:
        with clock("train"):
            row = next(rows, None)
        if row is None:
            return
        yield row


def float_mean(values: Values, client_ids: Sequence[int], dim: int) -> Mean:
    """Returns the weighted mean in the open; None as vector where every weight is 0."""
    total, weights = np.zeros(dim, dtype=np.float64), 0
    for client in client_ids:
        value = values(client)
        if isinstance(value, RecordValue):
            raise TypeError("records without noise")  # no plan has both
        total += value.weight * value.vector.astype(np.float64)
        weights += value.weight
    return Mean(total / weights if weights else None, {})


def attempt_round(
    resolved: Resolved,
    values: Values,
    client_ids: Sequence[int],
    dropouts: secure.Dropouts,
    round_index: int,
    attempt: int,
    commit_release: Callable[[tuple[int, ...]], None],
    clock: Clock,
) -> Outcome:
    """Encodes, sums and reads one attempt.

    Args:
        resolved: the plan with everything derived.
        values: client id -> its contribution; asked only for clients that send.
        client_ids: the invited, ascending.
        dropouts: stage -> clients that never answer from that stage on.
        round_index: from 0.
        attempt: from 0; keys and masks depend on it.
        commit_release: called with the survivors before there is a sum.
        clock: takes the seconds.
    """
    if resolved.encoding is None:
        commit_release(tuple(client_ids))
        with clock("decode"):
            mean = float_mean(values, client_ids, resolved.messages.dim)
        return Outcome(mean, tuple(client_ids), None, None)
    encoding, plan = resolved.encoding, resolved.plan
    rotation = round_rotation(resolved.messages.dim, plan.seed, round_index)

    def encoded(client: int) -> secure.SegmentValues:
        with clock("encode"):
            return encoding.encode(values(client), rotation, streams(plan, round_index, client))

    params = resolved.params_for(len(client_ids))
    params = params and secure.round_params(params, round_index, attempt)
    rand = (
        secure.seeded_stream(plan.seed, Purpose.PROTOCOL, round_index, attempt)
        if plan.seeded_secrets
        else secure.secret_stream()
    )
    survivors = foretold(params, client_ids, dropouts)
    if survivors is not None:
        # On record before the server could unmask anything: a crash may over-count, never under.
        commit_release(survivors)
    try:
        with clock("protocol"):
            summed = aggregate(
                plan.aggregation, encoding.segments, params, client_ids, dropouts, encoded, rand
            )
    except secure.TooFewClientsError as error:
        return Outcome(None, (), None, str(error))
    if summed.survivors != survivors:
        raise FlError(f"survivors: got {summed.survivors}; takes those on record, {survivors}")
    with clock("decode"):
        mean = encoding.decode(
            summed.sums, rotation, len(client_ids), streams(plan, round_index, _SERVER)
        )
    return Outcome(mean, summed.survivors, summed.cost, None)
