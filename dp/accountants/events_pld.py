"""From events to dominating pairs; docs/privacy.md, "Privacy loss distributions", "Sampling".

An event becomes, for each direction of the relation, the pairs that dominate it and the pairs
that some neighbouring inputs really produce. Where no dominating pair is known (integer vectors
of more than one coordinate), the upper end is that of the Rényi accountant.
"""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dp.accountants import conversion, pairs, participation, pld, rdp, spliced
from dp.accountants.pairs import Pair
from dp.errors import ParameterError, UnsupportedEventError
from dp.events import (
    SHARES,
    VECTOR,
    ComposedEvent,
    DiscreteGaussianEvent,
    DiscreteGaussianSumEvent,
    DiscreteLaplaceEvent,
    Event,
    FixedSizeSampledEvent,
    GaussianEvent,
    LaplaceEvent,
    LimitedParticipationEvent,
    MatrixEvent,
    NeighboringRelation,
    PoissonBinomialEvent,
    PoissonSampledEvent,
    RecordSampledEvent,
    SelfComposedEvent,
    SkellamEvent,
)
from dp.intervals import Interval
from dp.relations import shifted

_LARGEST_TABLE = 1 << 20  # outcomes of an integer law
_REPLACE = NeighboringRelation.REPLACE_ONE

_NO_LOWER = "no lower end: how far sums show who took part is not known"

Parts = tuple[tuple[Pair, int], ...]


@dataclass(frozen=True)
class _Release:
    """Pairs of one kind of release: `upper` (None: unknown) and candidates for `lower`.

    Both hold one tuple of pairs per direction; `lower` first by candidate.
    """

    upper: tuple[Parts, Parts] | None
    lower: tuple[tuple[Parts, Parts], ...]


def epsilon(event: Event, delta: float, neighboring: NeighboringRelation) -> Interval:
    """Epsilon at delta.

    Raises:
        UnsupportedEventError: an event, or a relation for it, without proof.
    """
    if participation.has_secret(event):
        return Interval(0.0, _secret_epsilon(event, delta, neighboring), _NO_LOWER)
    return _interval(
        event,
        neighboring,
        lambda directions: pld.epsilon(directions, delta),
        lambda curve: conversion.epsilon_from_curve(curve, delta),
        delta,
    )


def upper_epsilon(event: Event, delta: float, neighboring: NeighboringRelation) -> float:
    """The upper end of `epsilon` alone, at less than half its cost; raises as `epsilon`."""
    if participation.has_secret(event):
        return _secret_epsilon(event, delta, neighboring)
    found = _analysed(event, neighboring, delta)
    if all(release.upper is not None for release, _ in found):
        return pld.upper_epsilon(_uppers(found), delta)
    moved = shifted(event, neighboring)
    return conversion.epsilon_from_curve(lambda a: rdp.rdp_curve(moved, a), delta)


def _analysed(
    event: Event, neighboring: NeighboringRelation, delta: float | None
) -> list[tuple[_Release, int]]:
    """Every kind of release in the event, with its pairs and how often it is made."""
    if not isinstance(neighboring, NeighboringRelation):
        raise ParameterError("neighboring", neighboring, "a NeighboringRelation")
    return [(_release(one, neighboring, delta), count) for one, count in _flat(event, 1)]


def _uppers(found: list[tuple[_Release, int]]) -> list[Parts]:
    return _directions([_times(r.upper, n) for r, n in found if r.upper is not None])


def delta(event: Event, epsilon: float, neighboring: NeighboringRelation) -> Interval:
    """Delta at epsilon; raises as `epsilon`."""
    if participation.has_secret(event):
        return Interval(0.0, _secret_delta(event, epsilon, neighboring), _NO_LOWER)
    return _interval(
        event,
        neighboring,
        lambda directions: pld.delta(directions, epsilon),
        lambda curve: conversion.delta_from_curve(curve, epsilon),
        None,
    )


def _secret_epsilon(event: Event, delta: float, neighboring: NeighboringRelation) -> float:
    """Upper epsilon by the mixture over participations, or by Rényi orders if that is smaller."""
    moved = shifted(event, neighboring)
    try:
        upper = conversion.epsilon_from_curve(lambda a: rdp.rdp_curve(moved, a), delta)
    except UnsupportedEventError:  # some noise has loss distributions only
        upper = math.inf

    def epsilon_of(told: Event | None, left: float) -> float:
        return 0.0 if told is None else upper_epsilon(told, left, neighboring)

    upper = min(upper, participation.cut_epsilon(event, delta, epsilon_of))
    if not _composes_at_once(event):
        return upper

    def curve(epsilon: float) -> float:
        return _secret_delta(event, epsilon, neighboring)

    return min(upper, participation.smallest_epsilon(curve, delta, upper))


def _composes_at_once(event: Event) -> bool:
    """Whether any number of releases has a closed form or Rényi orders alone."""
    for one, _ in _flat(event, 1):
        if isinstance(one, participation.Secret):
            if not _composes_at_once(one.event):
                return False
        elif not isinstance(one, GaussianEvent) and not (isinstance(one, VECTOR) and one.dim > 1):
            return False
    return True


def _secret_delta(event: Event, epsilon: float, neighboring: NeighboringRelation) -> float:
    shifted(event, neighboring)  # refuses relations for which coins mean nothing

    def delta_of(told: Event | None) -> float:
        if told is None:
            return 0.0
        found = _analysed(told, neighboring, None)
        if all(release.upper is not None for release, _ in found):
            return pld.delta(_uppers(found), epsilon).upper
        moved = shifted(told, neighboring)
        return conversion.delta_from_curve(lambda a: rdp.rdp_curve(moved, a), epsilon)

    return participation.upper_delta(event, delta_of)


def _interval(
    event: Event,
    neighboring: NeighboringRelation,
    by_pairs: Callable[[list[Parts]], Interval],
    by_curve: Callable[[conversion.Curve], float],
    delta: float | None,
) -> Interval:
    """The interval from pairs where there are any, its upper end from orders where not."""
    found = _analysed(event, neighboring, delta)
    candidates = max(len(release.lower) for release, _ in found)
    lowers = [_directions([_candidate(r, k, n) for r, n in found]) for k in range(candidates)]
    if all(release.upper is not None for release, _ in found):
        uppers = _uppers(found)
        best = by_pairs(uppers)
        lower = max(
            [best.lower if lowers[0] == uppers else _lower(by_pairs, one) for one in lowers]
        )
        return Interval(min(lower, best.upper), best.upper, best.note)
    moved = shifted(event, neighboring)
    upper = by_curve(lambda a: rdp.rdp_curve(moved, a))
    lower = max([_lower(by_pairs, one) for one in lowers], default=0.0)
    return Interval(min(lower, upper), upper, "upper end by rdp: vectors of integers")


def _lower(by_pairs: Callable[[list[Parts]], Interval], directions: list[Parts]) -> float:
    return by_pairs(directions).lower if all(directions) else 0.0


def _times(sides: tuple[Parts, Parts], count: int) -> tuple[Parts, Parts]:
    first, second = sides
    return tuple((p, n * count) for p, n in first), tuple((p, n * count) for p, n in second)


def _candidate(release: _Release, k: int, count: int) -> tuple[Parts, Parts]:
    if not release.lower:
        return (), ()
    return _times(release.lower[min(k, len(release.lower) - 1)], count)


def _directions(sides: list[tuple[Parts, Parts]]) -> list[Parts]:
    """The two directions of a composition."""
    return [tuple(part for side in sides for part in side[k]) for k in (0, 1)]


def _flat(event: Event, count: int) -> list[tuple[Event, int]]:
    """Single releases and how often each is made; equal ones together."""
    counts: dict[Event, int] = {}
    stack: list[tuple[Event, int]] = [(event, count)]
    while stack:
        one, times = stack.pop()
        if isinstance(one, SelfComposedEvent):
            stack.append((one.event, times * one.count))
        elif isinstance(one, LimitedParticipationEvent):
            stack.append((one.event, times * min(one.releases, one.participations)))
        elif isinstance(one, ComposedEvent):
            stack.extend((part, times) for part in one.events)
        else:
            counts[one] = counts.get(one, 0) + times
    return list(counts.items())


def _release(event: Event, neighboring: NeighboringRelation, delta: float | None) -> _Release:
    """Pairs of one release."""
    if isinstance(event, PoissonSampledEvent):
        return _poisson(event, neighboring)
    if isinstance(event, FixedSizeSampledEvent):
        return _fixed_size(event, neighboring, delta)
    moved = shifted(event, neighboring)
    if isinstance(moved, (RecordSampledEvent, MatrixEvent, PoissonBinomialEvent)):
        return _Release(None, ())
    if isinstance(moved, VECTOR) and (moved.dim > 1 or isinstance(moved, DiscreteGaussianSumEvent)):
        return _Release(None, _test_vectors(moved))
    if isinstance(moved, (GaussianEvent, LaplaceEvent, *VECTOR)):
        shift = _shift(moved)
        if shift is None:
            return _Release(None, ())
        same = ((pairs.SampledPair(shift, 1.0, "remove"), 1),)
        return _Release((same, same), ((same, same),))
    raise UnsupportedEventError(event, "takes an event of dp.events")


def _shift(event: Any, size: int | None = None) -> pairs.Shift | None:
    """Noise of one coordinate and its largest shift; None where its table would be too large.

    For symmetric log-concave laws every set that matters is a half-line, so the pair grows with
    the shift (docs/privacy.md, "Privacy loss distributions").
    """
    if isinstance(event, GaussianEvent):
        return pairs.GaussianShift(1.0 / event.noise_multiplier)
    if isinstance(event, LaplaceEvent):
        return pairs.LaplaceShift(event.noise_multiplier)
    size = _largest_coordinate(event) if size is None else size
    if isinstance(event, DiscreteGaussianEvent) and 40.0 * event.sigma + size < _LARGEST_TABLE:
        return pairs.discrete_gaussian_shift(event.sigma, size)
    if isinstance(event, DiscreteLaplaceEvent) and 700.0 * event.scale + size < _LARGEST_TABLE:
        return pairs.discrete_laplace_shift(event.scale, size)
    if isinstance(event, SkellamEvent) and event.variance <= 1e8 and size < _LARGEST_TABLE:
        return pairs.skellam_shift(event.variance, size)
    return None


def _largest_coordinate(event: Any) -> int:
    return min(int(event.linf), math.isqrt(event.l2_sq), int(event.l1))


def _test_vectors(event: Any) -> tuple[tuple[Parts, Parts], ...]:
    """Feasible integer vectors: as many equal coordinates as the bounds allow, small or large."""
    found = []
    for size in sorted({1, _largest_coordinate(event)}):
        shift = _shift(event, size)
        if shift is None:
            continue
        copies = min(event.dim, event.l1 // size, event.l2_sq // size**2)
        parts = ((pairs.SampledPair(shift, 1.0, "remove"), copies),)
        found.append((parts, parts))
    return tuple(found)


def _sampled_shift(event: Event, inner: Event) -> pairs.Shift:
    """The noise of a sampled event.

    Raises:
        UnsupportedEventError: noise shares, vectors of integers, or tables too large.
    """
    if isinstance(inner, SHARES):
        reason = "noise shares grow with the cohort, which shows its size: no amplification"
        raise UnsupportedEventError(event, reason)
    if isinstance(inner, VECTOR) and inner.dim > 1:
        raise UnsupportedEventError(event, "no dominating pair for sampled vectors of integers")
    shift = _shift(inner)
    if shift is None:
        raise UnsupportedEventError(event, "the noise is too wide for its table")
    return shift


def _poisson(event: PoissonSampledEvent, neighboring: NeighboringRelation) -> _Release:
    q = event.sampling_prob
    shift = _sampled_shift(event, event.event)
    if q == 1.0:
        return _release(event.event, neighboring, None)
    if neighboring is _REPLACE:
        half = spliced.Opposed(_places(event.event, "opposite"))
        same = ((spliced.SplicedPair(half, half, q), 1),)
        return _Release((same, same), ((same, same),))
    return _Release(_both_ways(shift, q), (_both_ways(shift, q),))


def _both_ways(shift: pairs.Shift, q: float) -> tuple[Parts, Parts]:
    remove = pairs.SampledPair(shift, q, "remove")
    add = pairs.SampledPair(shift, q, "add")
    return ((remove, 1),), ((add, 1),)


def _fixed_size(
    event: FixedSizeSampledEvent, neighboring: NeighboringRelation, delta: float | None
) -> _Release:
    if neighboring is NeighboringRelation.ADD_REMOVE:
        reason = "sizes are public under sampling of a fixed size; takes REPLACE_ONE or ZERO_OUT"
        raise UnsupportedEventError(event, reason)
    if delta is not None and delta > 1.0 / event.population:
        warnings.warn(
            f"delta={delta!r} is above 1/population: publishing one client whole is allowed by it",
            stacklevel=2,
        )
    if event.sample == event.population:
        return _release(event.event, neighboring, delta)
    shift = _sampled_shift(event, shifted(event.event, neighboring))
    exact = event.sample / event.population
    q, down = min(1.0, exact * (1.0 + 2.0**-50)), exact * (1.0 - 2.0**-50)
    single: spliced.Half = spliced.Single(shift)
    if neighboring is _REPLACE:
        same = ((spliced.SplicedPair(single, single, q), 1),)
        return _Release((same, same), (_both_ways(shift, down),))
    places = _places(event.event, "aside")
    aside: spliced.Half = spliced.Opposed(places)
    upper = spliced.SplicedPair(aside, single, q), spliced.SplicedPair(single, aside, q)
    lower = spliced.HalfLines(places, down, False), spliced.HalfLines(places, down, True)
    candidates = _both_ways(shift, down), (((lower[0], 1),), ((lower[1], 1),))
    return _Release((((upper[0], 1),), ((upper[1], 1),)), candidates)


def _places(inner: Any, arrangement: spliced.Arrangement) -> spliced.Places:
    """The noise of a sampled event, for which `_sampled_shift` found a table."""
    if isinstance(inner, GaussianEvent):
        return spliced.GaussianPlaces(1.0 / inner.noise_multiplier, arrangement)
    if isinstance(inner, LaplaceEvent):
        return spliced.LaplacePlaces(inner.noise_multiplier, arrangement)
    size = _largest_coordinate(inner)
    if isinstance(inner, DiscreteGaussianEvent):
        return spliced.discrete_gaussian_places(inner.sigma, size, arrangement)
    return spliced.discrete_laplace_places(inner.scale, size, arrangement)
