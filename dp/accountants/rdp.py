"""Rényi divergence of each event: upper bounds, from published theorems.

`rdp_curve(event, a)` takes orders minus one (a = alpha - 1 > 0) and an event whose bounds are
already those of the neighbouring relation (`dp.relations.shifted`). Releases compose by addition,
also adaptively (Mironov 2017, Proposition 1); coordinates with independent noise likewise.
Each formula is proven or cited in docs/privacy.md under the heading that its function names.
"""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from dp import renyi
from dp.accountants import poisson_binomial
from dp.accountants.conversion import FloatArray
from dp.errors import UnsupportedEventError
from dp.events import (
    ComposedEvent,
    DiscreteGaussianEvent,
    DiscreteGaussianSumEvent,
    Event,
    GaussianEvent,
    LimitedParticipationEvent,
    ListedParticipationEvent,
    MatrixEvent,
    PoissonBinomialEvent,
    PoissonSampledEvent,
    RecordSampledEvent,
    SecretParticipationEvent,
    SelfComposedEvent,
    SkellamEvent,
)

_MIN_SHARE_SIGMA = 0.5
_MOST_SAMPLED_ORDER = 512  # above it, the divergence without sampling
_EXACT_TERMS = 100_000  # terms of tau summed one by one; the rest is bounded by its largest


def rdp_curve(event: Event, a: FloatArray) -> FloatArray:
    """Upper bound on the Rényi divergence of order 1 + a, both directions; float64[len(a)].

    Raises:
        UnsupportedEventError: unknown event, or parameters outside its theorem's conditions.
    """
    published = published_curve(event, a)
    if not renyi.has_exact_bounds(event):
        return published
    smaller: FloatArray = np.minimum(published, renyi.renyi_bounds(event, a).concave)
    return smaller


def published_curve(event: Event, a: FloatArray) -> FloatArray:
    """`rdp_curve` by the published closed form of the event alone (compositions: of its parts).

    Raises:
        UnsupportedEventError: as `rdp_curve`.
    """
    formula = _FORMULAS.get(type(event))
    if formula is None:
        raise UnsupportedEventError(event, "takes an event with a proven Rényi bound")
    return formula(event, np.asarray(a, dtype=np.float64))


def sum_distance(event: DiscreteGaussianSumEvent) -> float:
    """`tau` of Kairouz, Liu, Steinke 2021, Proposition 14, rounded up.

    tau = 10 sum_{k=1}^{shares-1} exp(-2 pi^2 share_sigma^2 k/(k+1)): how far the sum of
    discrete Gaussians is, in log ratio, from a discrete Gaussian of the same variance.
    See docs/privacy.md, "Sums of discrete Gaussians".

    Raises:
        UnsupportedEventError: share_sigma < 1/2, where the theorem says nothing.
    """
    if event.shares == 1:
        return 0.0
    if event.share_sigma < _MIN_SHARE_SIGMA:
        raise UnsupportedEventError(
            event,
            f"share_sigma={event.share_sigma:g} is below 1/2, outside the theorem on sums of "
            "discrete Gaussians; a finer granularity raises it",
        )
    k = np.arange(1.0, min(event.shares - 1, _EXACT_TERMS) + 1.0)
    exponent = 2.0 * np.pi**2 * event.share_sigma**2
    terms = np.exp(-exponent * (k / (k + 1.0)))
    # Terms fall with k, so those left out are at most the last one each.
    left_out = max(0, event.shares - 1 - _EXACT_TERMS) * float(terms[-1])
    return 10.0 * (float(terms.sum()) + left_out) * (1.0 + 2.0**-40)


def sum_bounds(event: DiscreteGaussianSumEvent) -> tuple[float, float, float]:
    """(rho, additive, rho_joint) of the sum event.

    The divergence of order alpha is at most alpha rho + additive, and at most alpha rho_joint:
    the first and the smaller of the second and third bounds of Kairouz, Liu, Steinke 2021.
    """
    tau = sum_distance(event)
    variance = event.shares * event.share_sigma**2
    deviation = math.sqrt(variance)
    rho = event.l2_sq / (2.0 * variance)
    second = event.l2_sq / variance + 2.0 * event.l1 / deviation * tau + tau**2 * event.dim
    third = (math.sqrt(event.l2_sq) / deviation + tau * math.sqrt(event.dim)) ** 2
    return rho, tau * event.dim, min(second, third) / 2.0


def _gaussian(event: GaussianEvent, a: FloatArray) -> FloatArray:
    """Exact: alpha / (2 noise_multiplier^2) (Mironov 2017, Proposition 7)."""
    result: FloatArray = (1.0 + a) / (2.0 * event.noise_multiplier**2)
    return result


def _discrete_gaussian(event: DiscreteGaussianEvent | MatrixEvent, a: FloatArray) -> FloatArray:
    """Order times l2^2 / (2 sigma^2) (Canonne, Kamath, Steinke 2020).

    Of a matrix event over all rounds, adaptive ones too: docs/privacy.md, "Correlated noise".
    """
    result: FloatArray = (1.0 + a) * (event.l2_sq / (2.0 * event.sigma**2))
    return result


def _discrete_gaussian_sum(event: DiscreteGaussianSumEvent, a: FloatArray) -> FloatArray:
    """The smallest of the three bounds of Kairouz, Liu, Steinke 2021, Proposition 14."""
    rho, additive, rho_joint = sum_bounds(event)
    result: FloatArray = np.minimum((1.0 + a) * rho + additive, (1.0 + a) * rho_joint)
    return result


def _skellam(event: SkellamEvent, a: FloatArray) -> FloatArray:
    """Agarwal, Kairouz, Liu 2021, their Rényi bound, which holds at integer orders.

    Between integers the cumulant a D_{1+a} is convex in a and zero at a = 0, so the chord
    between its bounds at the integers on both sides is a bound (docs/privacy.md, "Skellam").
    """
    below = np.floor(a)
    cumulant = (below + 1.0 - a) * _skellam_cumulant(event, below)
    cumulant = cumulant + (a - below) * _skellam_cumulant(event, below + 1.0)
    result: FloatArray = cumulant / a
    return result


def _skellam_cumulant(event: SkellamEvent, a: FloatArray) -> FloatArray:
    """(alpha - 1) times the bound of order alpha = 1 + a, at integers a >= 0."""
    mu, l2_sq, l1 = event.variance, float(event.l2_sq), float(event.l1)
    fine = ((2.0 * a + 1.0) * l2_sq + 6.0 * l1) / (4.0 * mu) / mu
    coarse = 3.0 * l1 / (2.0 * mu)
    result: FloatArray = a * ((1.0 + a) * (l2_sq / (2.0 * mu)) + np.minimum(fine, coarse))
    return result


def _self_composed(event: SelfComposedEvent, a: FloatArray) -> FloatArray:
    result: FloatArray = float(event.count) * rdp_curve(event.event, a)
    return result


def _composed(event: ComposedEvent, a: FloatArray) -> FloatArray:
    total = np.zeros_like(a)
    for part in event.events:
        total = total + rdp_curve(part, a)
    return total


def _poisson_sampled(event: PoissonSampledEvent, a: FloatArray) -> FloatArray:
    """As `_record_sampled`, for noise that does not depend on the cohort."""
    if isinstance(event.event, (DiscreteGaussianSumEvent, SkellamEvent)):
        raise UnsupportedEventError(event, "noise shares grow with the cohort and show its size")
    return _record_sampled(RecordSampledEvent(event.sampling_prob, event.event), a)


def _record_sampled(event: RecordSampledEvent, a: FloatArray) -> FloatArray:
    """The binomial expansion at integer orders, chords between them; never above the unsampled.

    docs/privacy.md, "Sampled records".
    """
    unsampled = rdp_curve(event.event, a)
    if event.sampling_prob == 1.0:
        return unsampled
    cumulants = _sampled_cumulants(event)
    below = np.minimum(np.floor(a), len(cumulants) - 2.0).astype(np.int64)
    chord = (below + 1.0 - a) * cumulants[below] + (a - below) * cumulants[below + 1]
    inside = a <= len(cumulants) - 1.0
    return np.where(inside, np.minimum(chord / a, unsampled), unsampled)


@functools.lru_cache(maxsize=256)
def _sampled_cumulants(event: RecordSampledEvent) -> FloatArray:
    """Upper bounds on (alpha - 1) D_alpha at alpha = 1, 2, ..., _MOST_SAMPLED_ORDER."""
    q, orders = event.sampling_prob, np.arange(2.0, _MOST_SAMPLED_ORDER + 1.0)
    moments = (orders - 1.0) * rdp_curve(event.event, orders - 1.0)  # log E[L^l], l >= 2
    # log(E[L^l] - 1): all terms are positive, so that small ones keep their precision.
    gains = moments + np.log(-np.expm1(-moments))
    gamma = np.cumsum(np.log(np.arange(1.0, _MOST_SAMPLED_ORDER + 1.0)))  # log k!, k >= 1
    log_factorial = np.concatenate([[0.0], gamma])
    cumulants = np.zeros(_MOST_SAMPLED_ORDER)
    for alpha in range(2, _MOST_SAMPLED_ORDER + 1):
        chosen = np.arange(2, alpha + 1)
        logs = log_factorial[alpha] - log_factorial[chosen] - log_factorial[alpha - chosen]
        logs = logs + chosen * math.log(q) + (alpha - chosen) * math.log1p(-q)
        logs = logs + gains[: alpha - 1]
        cumulants[alpha - 1] = np.logaddexp(0.0, np.logaddexp.reduce(logs))
    cumulants *= 1.0 + 2.0**-35  # exponents of at most 2^13, each to 2^-52 of it
    cumulants.setflags(write=False)
    return cumulants


def _limited(event: LimitedParticipationEvent, a: FloatArray) -> FloatArray:
    result: FloatArray = float(min(event.releases, event.participations)) * rdp_curve(
        event.event, a
    )
    return result


def _secret(event: SecretParticipationEvent, a: FloatArray) -> FloatArray:
    """Log E exp(a J D) / a for the binomial J, and at most `participations` D.

    docs/privacy.md, "Limited participation".
    """
    divergence = rdp_curve(event.event, a)
    q, cumulant = event.sampling_prob, a * divergence
    rest = math.log1p(-q) if q < 1.0 else -math.inf
    each = np.where(
        cumulant < 1.0,
        np.log1p(q * np.expm1(np.minimum(cumulant, 1.0))),
        np.logaddexp(rest, math.log(q) + cumulant),
    )
    most = float(min(event.releases, event.participations))
    result: FloatArray = np.minimum(float(event.releases) * each / a, most * divergence)
    return result


def _listed(event: ListedParticipationEvent, a: FloatArray) -> FloatArray:
    """As `_secret`, summed over the list."""
    cumulant = a * rdp_curve(event.event, a)
    chances = np.array(event.probabilities)
    chances[-1] += max(0.0, 1.0 - math.fsum(event.probabilities))
    counts = np.arange(float(chances.size))
    largest = cumulant * counts[-1]
    result = np.empty_like(cumulant)
    for i, one in enumerate(cumulant):
        if largest[i] < 1.0:  # all terms are positive, so that small ones keep their precision
            result[i] = np.log1p(chances @ np.expm1(one * counts))
        else:
            result[i] = largest[i] + np.log(chances @ np.exp(one * (counts - counts[-1])))
    bounded: FloatArray = np.minimum(np.maximum(result, 0.0), largest) / a
    return bounded


# A table instead of a chain of isinstance tests; each formula takes the type that is its key.
_FORMULAS: Mapping[type, Callable[[Any, FloatArray], FloatArray]] = {
    GaussianEvent: _gaussian,
    DiscreteGaussianEvent: _discrete_gaussian,
    DiscreteGaussianSumEvent: _discrete_gaussian_sum,
    SkellamEvent: _skellam,
    MatrixEvent: _discrete_gaussian,
    PoissonBinomialEvent: poisson_binomial.divergence_bound,
    PoissonSampledEvent: _poisson_sampled,
    RecordSampledEvent: _record_sampled,
    LimitedParticipationEvent: _limited,
    SecretParticipationEvent: _secret,
    ListedParticipationEvent: _listed,
    SelfComposedEvent: _self_composed,
    ComposedEvent: _composed,
}
