"""What a guarantee says beyond one (epsilon, delta): curves, groups, colluders, conversions.

Every figure is a bound with its proof or citation in docs/privacy.md, "Curves". Central-limit
approximations are not bounds and are not here.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from dp import _validate
from dp.accountants import Zcdp, delta, epsilon
from dp.errors import ParameterError, UnsupportedEventError
from dp.events import (
    VECTOR,
    ComposedEvent,
    Event,
    GaussianEvent,
    LaplaceEvent,
    LimitedParticipationEvent,
    MatrixEvent,
    NeighboringRelation,
    SelfComposedEvent,
)
from dp.intervals import Interval

FloatArray = NDArray[np.float64]


def epsilon_curve(
    event: Event,
    deltas: Sequence[float],
    *,
    neighboring: NeighboringRelation,
    accountant: str,
) -> list[Interval]:
    """`dp.epsilon` at each delta."""
    return [epsilon(event, d, neighboring=neighboring, accountant=accountant) for d in deltas]


def delta_curve(
    event: Event,
    epsilons: Sequence[float],
    *,
    neighboring: NeighboringRelation,
    accountant: str,
) -> list[Interval]:
    """`dp.delta` at each epsilon."""
    return [delta(event, e, neighboring=neighboring, accountant=accountant) for e in epsilons]


def trade_off(
    event: Event,
    type_one: Sequence[float],
    *,
    neighboring: NeighboringRelation,
    accountant: str,
    epsilons: Sequence[float],
) -> FloatArray:
    """Smallest type II error that any test with these type I errors can have: lower bounds.

    The mechanism is (e, delta(e))-DP for each e given, so the trade-off function is at least
    max_e max(0, 1 - delta - e^e alpha, e^-e (1 - delta - alpha)) (Wasserman, Zhou 2010; Dong,
    Roth, Su 2022, Proposition 2.5). More epsilons make it tighter, none make it wrong.

    Args:
        event: what was released.
        type_one: errors alpha in [0, 1] of tests that tell two neighbours apart.
        neighboring: the relation.
        accountant: as `dp.delta`.
        epsilons: at which delta is evaluated, each in [0, 700].

    Returns:
        float64[len(type_one)], rounded down.

    Raises:
        ParameterError, UnsupportedEventError: as `dp.delta`, or no epsilons.
    """
    alpha = np.array([_validate.real("type_one", a, 0.0, 1.0) for a in type_one])
    if not len(epsilons):
        raise ParameterError("epsilons", epsilons, "at least one")
    best = np.zeros_like(alpha)
    for value in epsilons:
        e = _validate.real("epsilons", value, 0.0, 700.0)
        spent = delta(event, e, neighboring=neighboring, accountant=accountant).upper
        steep = 1.0 - spent - math.exp(e) * alpha * (1.0 + 2.0**-50)
        flat = math.exp(-e) * (1.0 - spent - alpha) * (1.0 - 2.0**-50)
        best = np.maximum(best, np.maximum(steep, flat) - 2.0**-50)
    return best


def group_event(event: Event, size: int) -> Event:
    """The event for groups of `size` clients that change together.

    Their vectors move the sum by at most `size` times the bounds of one (triangle inequality);
    noise and relation stay. Exact for what events state, and far below the generic rule
    (k epsilon, k e^((k-1) epsilon) delta).

    Raises:
        ParameterError: size < 1.
        UnsupportedEventError: an event that states no shift, such as a sampled one: more than
            one of the group may be in a sample.
    """
    size = _validate.integer("size", size, 1)
    if isinstance(event, SelfComposedEvent):
        return SelfComposedEvent(group_event(event.event, size), event.count)
    if isinstance(event, ComposedEvent):
        return ComposedEvent(tuple(group_event(part, size) for part in event.events))
    if isinstance(event, LimitedParticipationEvent):  # rounds in which some of them take part
        rounds = min(event.releases, size * event.participations)
        return LimitedParticipationEvent(group_event(event.event, size), event.releases, rounds)
    if isinstance(event, (GaussianEvent, LaplaceEvent)):
        return dataclasses.replace(event, noise_multiplier=event.noise_multiplier / size)
    if isinstance(event, VECTOR):
        return dataclasses.replace(
            event, l2_sq=size**2 * event.l2_sq, l1=size * event.l1, linf=size * event.linf
        )
    if isinstance(event, MatrixEvent):
        return MatrixEvent(event.sigma, size**2 * event.l2_sq)
    raise UnsupportedEventError(event, "states no shift that a group could multiply")


def epsilon_by_colluders(
    event_of: Callable[[int], Event],
    min_survivors: int,
    delta: float,
    *,
    neighboring: NeighboringRelation,
    accountant: str,
    releases: int = 1,
    colluders: Sequence[int] | None = None,
) -> dict[int, Interval]:
    """Epsilon against the server with c clients, for each c; the last is the local epsilon.

    With min_survivors - 1 colluders only the client's own share protects it.

    Args:
        event_of: from the honest shares that count to the event, as `DistributedMechanism.event`.
        min_survivors: survivors of every release at least.
        delta: in (0, 1).
        neighboring: the relation.
        accountant: as `dp.epsilon`.
        releases: that one client takes part in.
        colluders: numbers of colluders, each below min_survivors; default: all of them.

    Returns:
        {c: interval}, in the order of `colluders`.

    Raises:
        ParameterError: an argument out of range.
        UnsupportedEventError: no proof for so few shares.
    """
    survivors = _validate.integer("min_survivors", min_survivors, 1)
    releases = _validate.integer("releases", releases, 1)
    counts = range(survivors) if colluders is None else colluders
    found = {}
    for given in counts:
        c = _validate.integer("colluders", given, 0, survivors - 1)
        event = SelfComposedEvent(event_of(survivors - c), releases)
        found[c] = epsilon(event, delta, neighboring=neighboring, accountant=accountant)
    return found


def gdp_parameter(event: Event) -> float:
    """Mu of the Gaussian differential privacy of a composition of Gaussian events, exact.

    Unsampled Gaussian releases of multipliers z_i are mu-GDP with mu^2 = sum 1 / z_i^2 (Dong,
    Roth, Su 2022, Corollary 3.3), rounded up. For the shift that the events state: replace-one
    doubles it.

    Raises:
        UnsupportedEventError: anything else; the central limit of other events is no bound.
    """
    return math.sqrt(_gdp_square(event)) * (1.0 + 2.0**-40)


def _gdp_square(event: Event) -> float:
    if isinstance(event, GaussianEvent):
        return 1.0 / event.noise_multiplier**2
    if isinstance(event, SelfComposedEvent):
        return event.count * _gdp_square(event.event)
    if isinstance(event, LimitedParticipationEvent):
        return min(event.releases, event.participations) * _gdp_square(event.event)
    if isinstance(event, ComposedEvent):
        return math.fsum(_gdp_square(part) for part in event.events)
    raise UnsupportedEventError(event, "only Gaussian releases are Gaussian-DP with a proven mu")


def zcdp_of_gdp(mu: float) -> Zcdp:
    """mu-GDP implies mu^2 / 2 - zCDP: it post-processes N(0, 1) against N(mu, 1)."""
    mu = _validate.positive("mu", mu)
    return Zcdp(0.0, mu * mu / 2.0 * (1.0 + 2.0**-51))


def zcdp_of_pure(epsilon: float) -> Zcdp:
    """(epsilon, 0)-DP implies epsilon^2 / 2 - zCDP (Bun, Steinke 2016, Proposition 3.3)."""
    epsilon = _validate.positive("epsilon", epsilon)
    return Zcdp(0.0, epsilon * epsilon / 2.0 * (1.0 + 2.0**-51))
