"""One attempt at a round, from training to the mean that the server reads.

All processes of a run go through it in step; charges and releases are committed by what the caller
passes in, in process 0.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from fl import secure
from fl.aggregate import Attempt, aggregate
from fl.encoding import Encoding, Mean, Noise, RecordValue, rotation_of
from fl.group import Group
from fl.plan import Plan, Resolved
from fl.site import Order, Site
from fl.streams import SERVER, streams
from fl.types import PARTS, Purpose, RandomBytes


class Outcome(NamedTuple):
    """What one attempt at a round gave.

    Attributes:
        mean: what the server read, or None where nothing was released.
        survivors: whose updates are in it, ascending.
        cost: bytes and CPU seconds of the protocol, where it ran.
        reason: why nothing was released, or None.
        attestation: as `Aggregated`.
    """

    mean: Mean | None
    survivors: tuple[int, ...]
    cost: secure.RoundCost | None
    reason: str | None
    attestation: bytes | None = None


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


Release = Callable[[tuple[int, ...]], None]


def attempt_round(
    resolved: Resolved,
    site: Site,
    order: Order,
    group: Group,
    release: Release,
    clock: Clock,
    correlated: Noise | None = None,
) -> Outcome | None:
    """Trains, encodes, sums and reads one attempt; all processes of the run call it in step.

    Args:
        resolved: the plan with everything derived.
        site: the clients of this process.
        order: what is asked of them.
        group: the processes.
        release: called in process 0 with the survivors, before there is a sum.
        clock: takes the seconds of this process.
        correlated: in process 0, where noise depends on other rounds: gives that of this round
            once the release is on record.

    Returns:
        The outcome in process 0, None elsewhere.
    """
    if resolved.encoding is None:
        return _in_the_open(site, order, group, release, clock)
    return _masked(resolved, resolved.encoding, site, order, group, release, clock, correlated)


def _in_the_open(
    site: Site, order: Order, group: Group, release: Release, clock: Clock
) -> Outcome | None:
    lanes = site.lanes
    lanes.clear()
    for client, value in site.train(order, group.mine(order.invited), clock):
        if isinstance(value, RecordValue):
            raise TypeError("records without noise")  # no plan has both
        with clock("decode"):
            lanes.add(client, value.vector, value.weight)
    parts = group.exchange(b"" if group.index == 0 else lanes.to_bytes())
    if group.index != 0:
        return None
    release(order.invited)
    with clock("decode"):
        for part in parts[1:]:
            lanes.merge(part)
        return Outcome(Mean(lanes.mean(), {}), order.invited, None, None)


def _masked(
    resolved: Resolved,
    encoding: Encoding,
    site: Site,
    order: Order,
    group: Group,
    release: Release,
    clock: Clock,
    correlated: Noise | None,
) -> Outcome | None:
    plan, index = resolved.plan, order.round_index
    params = resolved.params_for(len(order.invited))
    params = params and secure.round_params(params, index, order.attempt)
    attempt = Attempt(
        params, order.invited, order.dropouts,
        lambda ids: encoded(resolved, encoding, site, order, ids, clock),
        rand_of(plan, order.round_index, order.attempt), group, release,
    )  # fmt: skip
    try:
        with clock("protocol"):
            summed = aggregate(plan.aggregation, encoding.segments, attempt)
    except secure.TooFewClientsError as error:
        return Outcome(None, (), None, str(error))
    if summed is None:
        return None
    with clock("decode"):
        mean = decoded(resolved, encoding, order, summed.sums, correlated)
    return Outcome(mean, summed.survivors, summed.cost, None, summed.attestation)


def encoded(
    resolved: Resolved,
    encoding: Encoding,
    site: Site,
    order: Order,
    client_ids: Sequence[int],
    clock: Clock,
) -> Iterator[tuple[int, secure.SegmentValues]]:
    """Trains clients that live here and yields the segments of each, as they are masked."""
    plan, index = resolved.plan, order.round_index
    rotation = rotation_of(encoding, resolved.messages.dim, plan.seed, index)
    for client, value in site.train(order, client_ids, clock):
        with clock("encode"):
            segments = encoding.encode(value, rotation, streams(plan, index, client))
        site.sends(index, client, segments)
        yield client, segments


def decoded(
    resolved: Resolved,
    encoding: Encoding,
    order: Order,
    sums: secure.SegmentValues,
    correlated: Noise | None,
) -> Mean:
    """Returns what the server reads out of the sums of a round; `correlated` as `decode`."""
    plan, index = resolved.plan, order.round_index
    rotation = rotation_of(encoding, resolved.messages.dim, plan.seed, index)
    coins = streams(plan, index, SERVER)
    return encoding.decode(sums, rotation, len(order.invited), coins, correlated)


def rand_of(plan: Plan, round_index: int, attempt: int) -> Callable[[int], RandomBytes]:
    """Client id -> the source of its keys and masks, which depend on the attempt."""
    if not plan.seeded_secrets:
        fresh = secure.secret_stream()
        return lambda client: fresh
    labels = (round_index, attempt)
    return lambda client: secure.seeded_stream(plan.seed, Purpose.PROTOCOL, *labels, client)
