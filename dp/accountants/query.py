"""Epsilon and delta of an event, as intervals that contain the truth.

"pld" has two certified ends; the lower end of "rdp" and "zcdp" is 0.
"""

import math
from collections.abc import Callable, Mapping

from dp import _validate
from dp.accountants import conversion, events_pld, rdp, zcdp
from dp.errors import FailureBudgetError, ParameterError, UnsupportedEventError
from dp.events import Event, NeighboringRelation
from dp.intervals import Interval
from dp.relations import shifted

_MAX_EPSILON = 700.0  # exp stays finite in double precision
_MAX_STEPS = 100


def _rdp_curve_of(event: Event) -> conversion.Curve:
    return lambda a: rdp.rdp_curve(event, a)


def _zcdp_curve_of(event: Event) -> conversion.Curve:
    line = zcdp.zcdp_bound(event)
    return lambda a: line.xi + (1.0 + a) * line.rho


_ACCOUNTANTS: Mapping[str, Callable[[Event], conversion.Curve]] = {
    "rdp": _rdp_curve_of,
    "zcdp": _zcdp_curve_of,
}


def curve_of(event: Event, neighboring: NeighboringRelation, accountant: str) -> conversion.Curve:
    """Divergence bound of `event` for inputs that neighbour by `neighboring`.

    Raises:
        ParameterError: unknown accountant or relation.
        UnsupportedEventError: "pld", which has no curve of orders, or an event without proof.
    """
    if accountant == "pld":
        raise UnsupportedEventError(event, '"pld" has no Rényi curve; takes "rdp" or "zcdp"')
    if accountant not in _ACCOUNTANTS:
        raise ParameterError("accountant", accountant, f"one of {sorted([*_ACCOUNTANTS, 'pld'])}")
    return _ACCOUNTANTS[accountant](shifted(event, neighboring))


def epsilon(
    event: Event, delta: float, *, neighboring: NeighboringRelation, accountant: str = "pld"
) -> Interval:
    """Epsilon of `event` at `delta`.

    Args:
        event: what was released.
        delta: in (0, 1).
        neighboring: the relation; there is no default.
        accountant: "pld" (two certified ends), "rdp" or "zcdp" (lower end 0).

    Returns:
        lower <= truth <= upper. Upper is infinite when nothing finite is proven. With "pld",
        `note` says when the upper end is that of "rdp".

    Raises:
        ParameterError: delta, relation or accountant out of range.
        UnsupportedEventError: the accountant has no proof for this event.

    Example:
        >>> import dp
        >>> event = dp.SelfComposedEvent(dp.GaussianEvent(noise_multiplier=4.04), count=20)
        >>> spent = dp.epsilon(event, 1e-3, neighboring=dp.NeighboringRelation.ZERO_OUT)
        >>> round(spent.upper, 2)
        3.56
    """
    delta = _validate.open_unit("delta", delta)
    if accountant == "pld":
        return events_pld.epsilon(event, delta, neighboring)
    curve = curve_of(event, neighboring, accountant)
    return Interval(0.0, conversion.epsilon_from_curve(curve, delta))


def delta(
    event: Event, epsilon: float, *, neighboring: NeighboringRelation, accountant: str = "pld"
) -> Interval:
    """Delta of `event` at `epsilon` >= 0; same contract as `epsilon`."""
    epsilon = _validate.real("epsilon", epsilon, 0.0, float("inf"))
    if accountant == "pld":
        return events_pld.delta(event, epsilon, neighboring)
    curve = curve_of(event, neighboring, accountant)
    return Interval(0.0, conversion.delta_from_curve(curve, epsilon))


def epsilon_with_failures(
    event: Event,
    delta: float,
    *,
    neighboring: NeighboringRelation,
    accountant: str = "pld",
    failure_prob: float = 0.0,
    total_variation: float = 0.0,
) -> Interval:
    """Epsilon at `delta` when part of delta pays for failures; docs/privacy.md, "Failures".

    Delta is split into a slice for the mechanism and a reserve that covers

        failure_prob + total_variation (1 + e^epsilon)

    at the epsilon that is returned; the reserve grows until it does.

    The lower end is 0: how much of the failures happens is not known.

    Args:
        event: what was released.
        delta: in (0, 1), for everything together.
        neighboring: the relation.
        accountant: as `epsilon`.
        failure_prob: probability, over all rounds, that the protocol protects nothing.
        total_variation: sum over all releases of the distance between the noise drawn and the
            noise accounted (`dp.samplers.total_variation`).

    Raises:
        FailureBudgetError: no split of delta covers its own reserve.
        ParameterError, UnsupportedEventError: as `epsilon`.
    """
    delta = _validate.open_unit("delta", delta)
    failure_prob = _validate.probability("failure_prob", failure_prob)
    total_variation = _validate.probability("total_variation", total_variation)
    if accountant == "pld":

        def upper_at(rest: float) -> float:
            return events_pld.upper_epsilon(event, rest, neighboring)

    else:
        curve = curve_of(event, neighboring, accountant)

        def upper_at(rest: float) -> float:
            return conversion.epsilon_from_curve(curve, rest)

    return Interval(0.0, with_failures(upper_at, delta, failure_prob, total_variation))


def with_failures(
    upper_at: Callable[[float], float], delta: float, failure_prob: float, total_variation: float
) -> float:
    """Upper epsilon at `delta` with failures, from the upper epsilon of the ideal at any delta."""
    reserve = failure_prob + 2.0 * total_variation
    for _ in range(_MAX_STEPS):
        if reserve >= delta:
            raise FailureBudgetError(delta, reserve)
        # The slice is rounded down, so that slice + reserve <= delta in exact arithmetic.
        upper = upper_at((delta - reserve) * (1.0 - 2.0**-50))
        needed = _reserve(upper, failure_prob, total_variation)
        if needed <= reserve:
            return upper
        reserve = 2.0 * needed - failure_prob  # doubles the part that depends on epsilon
    raise FailureBudgetError(delta, reserve)


def _reserve(upper: float, failure_prob: float, total_variation: float) -> float:
    """failure_prob + total_variation (1 + e^upper), rounded up."""
    if total_variation == 0.0:
        return failure_prob
    if upper > _MAX_EPSILON:
        return float("inf")
    return (failure_prob + total_variation * (1.0 + math.exp(upper))) * (1.0 + 2.0**-50)
