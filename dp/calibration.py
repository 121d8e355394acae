"""Smallest noise that meets a target; one search over any callable.

The search may be coarse, the answer is not: the returned parameter is one at which the upper
end was evaluated and met the target.
"""

import math
from collections.abc import Callable

from dp import _validate
from dp.accountants.query import epsilon_with_failures
from dp.errors import CalibrationError, DpError
from dp.events import Event, NeighboringRelation

_START = 1.0
_LOW, _HIGH = 2.0**-30, 2.0**40
_RELATIVE_WIDTH = 1e-6
_FAR = 10.0  # stands for the logarithm of an epsilon of zero


def calibrate(
    make_event: Callable[[float], Event],
    *,
    epsilon: float,
    delta: float,
    neighboring: NeighboringRelation,
    accountant: str = "pld",
    failure_prob: float = 0.0,
    total_variation: float = 0.0,
) -> float:
    """Smallest parameter, to one part in a million, whose upper epsilon meets the target.

    Args:
        make_event: from the parameter (say, the noise multiplier) to the event. Epsilon must
            fall as the parameter grows. A DpError that it raises counts as "not met there".
        epsilon: target, > 0.
        delta: in (0, 1).
        neighboring: the relation.
        accountant: as `dp.epsilon`.
        failure_prob: as `dp.epsilon_with_failures`.
        total_variation: as `dp.epsilon_with_failures`.

    Returns:
        A parameter at which the upper epsilon was evaluated and is at most `epsilon`.

    Raises:
        CalibrationError: no parameter in [2^-30, 2^40] meets the target, or all do.
        ParameterError: an argument out of range.
        UnsupportedEventError: the accountant does not support the events.

    Example:
        >>> import dp
        >>> sigma = dp.calibrate(
        ...     lambda z: dp.SelfComposedEvent(dp.GaussianEvent(z), 20),
        ...     epsilon=4.0, delta=1e-3,
        ...     neighboring=dp.NeighboringRelation.ZERO_OUT, accountant="rdp",
        ... )
        >>> round(sigma, 2)
        4.04
    """
    delta = _validate.open_unit("delta", delta)

    def upper(parameter: float) -> float:
        spent = epsilon_with_failures(
            make_event(parameter),
            delta,
            neighboring=neighboring,
            accountant=accountant,
            failure_prob=failure_prob,
            total_variation=total_variation,
        )
        return spent.upper

    return smallest_parameter(upper, epsilon=epsilon)


def smallest_parameter(upper_epsilon: Callable[[float], float], *, epsilon: float) -> float:
    """Smallest parameter with upper_epsilon(parameter) <= epsilon; contract as `calibrate`.

    `upper_epsilon` must fall as its argument grows; where it raises a DpError, the target
    counts as not met there.
    """
    target = _validate.positive("epsilon", epsilon)
    failure: list[DpError] = []
    excess: dict[float, float] = {}  # log(spent / target) where it was evaluated

    def meets(parameter: float) -> bool:
        try:
            spent = upper_epsilon(parameter)
        except DpError as error:
            failure[:] = [error]
            spent = math.inf
        excess[parameter] = math.log(spent / target) if spent > 0.0 else -_FAR
        return spent <= target

    low, high = _bracket(meets, target, failure)
    # Regula falsi in logarithms, with halving (Illinois); bisection where it does not help.
    at_low, at_high = excess[low], excess[high]
    side = 0
    while high / low > 1.0 + _RELATIVE_WIDTH:
        width = math.log(high / low)
        share = at_low / (at_low - at_high) if math.isfinite(at_low - at_high) else 0.5
        margin = min(0.5, 0.4 * _RELATIVE_WIDTH / width)
        middle = low * math.exp(width * min(max(share, margin), 1.0 - margin))
        if meets(middle):
            at_low = at_low / 2.0 if side == 1 else at_low
            high, at_high, side = middle, excess[middle], 1
        else:
            at_high = at_high / 2.0 if side == -1 else at_high
            low, at_low, side = middle, excess[middle], -1
    return high


def _bracket(
    meets: Callable[[float], bool], target: float, failure: list[DpError]
) -> tuple[float, float]:
    """(low, high), a factor of two apart, where the target is missed and met."""
    high = _START
    while not meets(high):
        high *= 2.0
        if high > _HIGH:
            last, reason = failure[0] if failure else None, "even the largest misses it"
            raise CalibrationError(target, (_START, _HIGH), reason) from last
    low = high / 2.0
    while meets(low):
        high, low = low, low / 2.0
        if low < _LOW:
            raise CalibrationError(target, (_LOW, _START), "even the smallest meets it")
    return low, high
