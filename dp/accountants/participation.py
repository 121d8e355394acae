"""A secret number of participations: a mixture over how many releases hold the client's vector.

Given the coins both inputs agree on the releases that count, so by joint convexity

    delta(epsilon) <= sum_j P[j participations] delta_j(epsilon),

with delta_j that of j releases, whatever the noise of a release tells of its cohort.
docs/privacy.md, "Limited participation".
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dp import _special
from dp.accountants.conversion import FloatArray
from dp.errors import UnsupportedEventError
from dp.events import (
    ComposedEvent,
    Event,
    LimitedParticipationEvent,
    ListedParticipationEvent,
    SecretParticipationEvent,
    SelfComposedEvent,
)

Secret = SecretParticipationEvent | ListedParticipationEvent
DeltaOf = Callable[[Event | None], float]
EpsilonOf = Callable[[Event | None, float], float]

_GROUPS = 64  # of numbers of participations
_NEGLIGIBLE = 1e-30  # chance of more participations, below which they are one group
_UP = 1.0 + 2.0**-36  # of a binomial tail, whose relative error is below 1e-12
_WIDTH = 1e-7  # relative width of the search for epsilon


@dataclass(frozen=True)
class Groups:
    """P[at least first[i]] <= tails[i]; group i reaches up to last[i] participations."""

    last: tuple[int, ...]
    tails: FloatArray


def has_secret(event: Event) -> bool:
    """Whether the number of participations in some part is secret."""
    if isinstance(event, ComposedEvent):
        return any(has_secret(part) for part in event.events)
    if isinstance(event, (SelfComposedEvent, LimitedParticipationEvent)):
        return has_secret(event.event)
    return isinstance(event, Secret)


def upper_delta(event: Event, delta_of: DeltaOf) -> float:
    """Sum over numbers of participations of their chance times `delta_of` what is left.

    Args:
        event: with secret numbers of participations in it.
        delta_of: upper delta of an event without; None: nothing is released.

    Raises:
        UnsupportedEventError: a secret inside a repetition, or more than one.
    """
    known, secret = _parts(event)
    groups = _groups(secret)
    deltas = [delta_of(_with_count(known, secret.event, count)) for count in groups.last]
    masses = -np.diff(groups.tails, append=0.0)
    return min(1.0, float(masses @ np.maximum.accumulate(deltas)) * (1.0 + 2.0**-40))


def cut_epsilon(event: Event, delta: float, epsilon_of: EpsilonOf) -> float:
    """The smallest, over a few k, of epsilon for k participations when more than k are given up.

    delta(epsilon) <= P[more than k] + delta_k(epsilon): looser than `upper_delta`, and only a few
    compositions.

    Args:
        event: as `upper_delta`.
        delta: in (0, 1).
        epsilon_of: upper epsilon, at a delta, of an event without secrets; None: nothing.
    """
    known, secret = _parts(event)
    groups = _groups(secret)
    beyond = np.append(groups.tails[1:], 0.0)
    enough = np.flatnonzero(beyond < 0.9 * delta)[:3].tolist()
    return min(
        epsilon_of(
            _with_count(known, secret.event, groups.last[i]),
            (delta - float(beyond[i])) * (1.0 - 2.0**-50),
        )
        for i in enough
    )


def smallest_epsilon(curve: Callable[[float], float], delta: float, start: float) -> float:
    """An epsilon with curve(epsilon) <= delta, near the smallest; the curve falls.

    `start` is tried first; infinity where nothing below 1e12 will do.
    """
    if curve(0.0) <= delta:
        return 0.0
    low, high = 0.0, start
    at_low, at_high = math.inf, _excess(curve, high, delta)
    while at_high > 0.0:
        low, at_low, high = high, at_high, 2.0 * high
        if high > 1e12:
            return math.inf
        at_high = _excess(curve, high, delta)
    side = 0
    while high - low > _WIDTH * high + 1e-12:
        share = at_low / (at_low - at_high) if math.isfinite(at_low) else 0.5
        middle = low + (high - low) * min(max(share, 0.02), 0.98)
        at_middle = _excess(curve, middle, delta)
        if at_middle > 0.0:
            low, at_low = middle, at_middle
            at_high, side = (at_high / 2.0 if side > 0 else at_high), 1
        else:
            high, at_high = middle, at_middle
            at_low, side = (at_low / 2.0 if side < 0 else at_low), -1
    return high


def _excess(curve: Callable[[float], float], epsilon: float, delta: float) -> float:
    value = curve(epsilon)
    return (math.log(value) if value > 0.0 else -800.0) - math.log(delta)


def _parts(event: Event) -> tuple[list[Event], Secret]:
    """(parts without a secret, the secret)."""
    if isinstance(event, Secret):
        return [], event
    reason = "a secret number of participations is stated once, for all releases together"
    if not isinstance(event, ComposedEvent):
        raise UnsupportedEventError(event, reason)
    hidden = [part for part in event.events if has_secret(part)]
    if len(hidden) != 1:  # their coins need not be independent
        raise UnsupportedEventError(event, reason)
    known, secret = _parts(hidden[0])
    return [*(part for part in event.events if part is not hidden[0]), *known], secret


def _with_count(known: list[Event], event: Event, count: int) -> Event | None:
    """What is released when the client takes part `count` times."""
    told = [*known, SelfComposedEvent(event, count)] if count else known
    return ComposedEvent(tuple(told)) if told else None


@functools.lru_cache(maxsize=32)
def _groups(event: Secret) -> Groups:
    """Groups of consecutive numbers of participations, fine where they are likely.

    The last one holds everything that is left, up to the most participations there can be.
    """
    if isinstance(event, ListedParticipationEvent):
        most = len(event.probabilities) - 1
        low, high = 0, most
    else:
        most = min(event.releases, event.participations)
        low, high = _likely(event.releases, event.sampling_prob)
        low, high = min(low, most), min(high, most)
    spread = np.linspace(low, high, min(_GROUPS, high - low + 1))
    last = np.unique(np.append(np.floor(spread), most)).astype(np.int64)
    first = np.concatenate([[0], last[:-1] + 1])
    tails = _tails(event, first)
    tails[0] = 1.0
    return Groups(tuple(last.tolist()), np.minimum.accumulate(np.minimum(tails, 1.0)))


def _tails(event: Secret, first: np.ndarray) -> FloatArray:
    """P[at least first participations], rounded up."""
    if isinstance(event, ListedParticipationEvent):
        chances = np.array(event.probabilities)
        # What the list leaves out of 1 is taken to be the largest number.
        missing = max(0.0, 1.0 - math.fsum(event.probabilities)) + 2.0**-52
        sums = np.cumsum(chances[::-1])[::-1] * (1.0 + 2.0**-36) + missing
        return np.asarray(sums[first])
    return _special.binom_tail(first, event.releases, event.sampling_prob) * _UP


def _likely(trials: int, prob: float) -> tuple[int, int]:
    """Numbers outside which Binomial(trials, prob) lies with a negligible chance, by Chernoff."""
    if prob == 1.0:
        return trials, trials
    target = -math.log(_NEGLIGIBLE)
    mean = trials * prob

    def rate(k: float) -> float:
        return float(
            _special.deviance(np.array(k), np.array(mean))
            + _special.deviance(np.array(trials - k), np.array(trials - mean))
        )

    def edge(inside: float, outside: float) -> float:
        for _ in range(60):
            middle = (inside + outside) / 2.0
            if rate(middle) > target:
                outside = middle
            else:
                inside = middle
        return outside

    tiny = 1e-9 * max(1.0, mean)
    low = edge(mean, tiny) if mean > tiny else 0.0
    high = edge(mean, trials - 1e-9) if mean < trials - 1e-9 else trials
    return math.floor(low), min(trials, math.ceil(high))
