"""How much noise a plan needs, and the integers that carry it.

The noise multiplier is the smallest at which the worst case of the row named by `against` meets
the target; docs/privacy.md, "Statements" and "Records".
"""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple, TypedDict

import dp
from fl.aggregate import Aggregation, Plain
from fl.encoding import Encoding, PrivateEncoding, UnnoisedEncoding, unnoised_encoding
from fl.errors import PlanError, fault
from fl.privacy import CENTRAL, COINS, Exposure, NotPrivate, Privacy
from fl.statement import worst_case
from fl.types import Mechanism

# Records are rounded one by one: the grid is fine enough that, at a noise multiplier of 1, the
# roundings of all records together add at most 1 % to the variance of the noise.
_STEPS_PER_RECORD = 5.0
_ROUNDING_BIAS, _INFLATION = math.exp(-0.5), 0.01  # of `dp.default_granularity`, as dp's own
_MAX_STEPS = 2.0**40
_MOST_BANDS, _BUFFERS = 64, 4  # of correlated noise, by default: each is a vector that is kept


class _Common(TypedDict):
    """What both kinds of mechanism take."""

    dim: int
    clip_norm: float
    noise_multiplier: float
    num_clients: int
    granularity: float | None
    modulus_bits: int | None
    wrap_probability: float | None


class Summands(NamedTuple):
    """What a round sums.

    Attributes:
        units: vectors summed at most: clients, or records of a cohort.
        clients: of a cohort at most: each adds one noise share.
        denominator: what the sum is divided by; public.
    """

    units: int
    clients: int
    denominator: float


def sized(
    privacy: Privacy | NotPrivate,
    aggregation: Aggregation,
    dim: int,
    summands: Summands,
    exposure: Exposure,
    num_clients: int,
) -> tuple[Encoding | None, float | None, Exposure]:
    """Returns encoding, noise multiplier and the exposure with its mechanism.

    Raises:
        PlanError: no noise meets the target.
    """
    if isinstance(privacy, NotPrivate):
        return _unnoised(privacy, aggregation, summands.clients, dim), None, exposure

    def exposed(noise_multiplier: float) -> Exposure:
        mechanism = _mechanism(privacy, exposure, dim, summands, noise_multiplier, strategy)
        return replace(exposure, mechanism=mechanism)

    try:
        strategy = _strategy(privacy, exposure, num_clients) if privacy.correlated else None
        # A statement with seeded secrets prints no number, but its noise is that of the real run.
        noise_multiplier = dp.smallest_parameter(
            lambda sigma: (
                worst_case(
                    exposed(sigma), privacy.against, privacy.delta, exposure.max_releases
                ).upper
            ),
            epsilon=privacy.epsilon,
        )
        final = exposed(noise_multiplier)
    except dp.DpError as error:
        why = f"{error}" if error.__cause__ is None else f"{error} ({error.__cause__})"
        raise PlanError((_unmet(privacy, why),)) from error
    if final.mechanism is None:
        raise AssertionError("exposed() always sets the mechanism")
    return PrivateEncoding(final.mechanism, summands.denominator), noise_multiplier, final


def _unmet(privacy: Privacy, why: str) -> str:
    if privacy.modulus_bits is None:
        return fault("privacy", why, "a target that some noise meets")
    takes = "enough for the noise that meets the target, or None"
    return fault("modulus_bits", f"{privacy.modulus_bits}: {why}", takes)


def _strategy(privacy: Privacy, exposure: Exposure, num_clients: int) -> dp.matrix.Strategy:
    """How rounds are correlated; round t is row t of the noise, whatever becomes of it."""
    separation = min(exposure.cohort.separation(num_clients), exposure.rounds)
    told = dp.matrix.min_separation(exposure.rounds, separation, exposure.scheduled)
    if privacy.mechanism == "tree":
        return dp.matrix.tree(told)
    if privacy.mechanism == "blt":
        return dp.matrix.blt(told, privacy.buffers or _BUFFERS)
    return dp.matrix.banded(told, privacy.bands or min(separation, _MOST_BANDS))


def _mechanism(
    privacy: Privacy,
    exposure: Exposure,
    dim: int,
    summands: Summands,
    noise_multiplier: float,
    strategy: dp.matrix.Strategy | None,
) -> Mechanism:
    if privacy.mechanism == COINS:
        return dp.poisson_binomial(
            dim=dim,
            clip_norm=privacy.clip_norm,
            noise_multiplier=noise_multiplier,
            num_clients=summands.units,
            shares=exposure.bounds.honest_shares,
            trials=privacy.trials or 1,
            modulus_bits=privacy.modulus_bits,
        )

    def on_grid(granularity: float | None) -> Mechanism:
        common: _Common = {
            "dim": dim,
            "clip_norm": privacy.clip_norm,
            "noise_multiplier": noise_multiplier,
            "num_clients": summands.units,
            "granularity": granularity,
            "modulus_bits": privacy.modulus_bits,
            "wrap_probability": privacy.wrap_probability,
        }
        if strategy is not None:
            return dp.matrix.correlated_gaussian(strategy, **common)
        if privacy.mechanism in CENTRAL:
            return dp.central_gaussian(**common)
        return dp.distributed(
            "skellam" if privacy.mechanism == "skellam" else "discrete_gaussian",
            shares=exposure.bounds.honest_shares,
            **common,
        )

    if privacy.modulus_bits is not None:
        return _finest(on_grid, privacy.clip_norm)
    return on_grid(_granularity(privacy, dim, summands.units))


def _granularity(privacy: Privacy, dim: int, units: int) -> float | None:
    """The grid where no number of bits is asked for; None for dp's own."""
    if privacy.unit == "client":
        return None
    own = dp.default_granularity(
        dim, privacy.clip_norm, rounding_bias=_ROUNDING_BIAS, inflation=_INFLATION
    )
    return min(own, privacy.clip_norm / (_STEPS_PER_RECORD * math.sqrt(units)))


def _finest(on_grid: Callable[[float | None], Mechanism], clip_norm: float) -> Mechanism:
    """The mechanism of the finest grid, to a part in 10^6, that the asked bits hold.

    More noise needs a coarser grid, whose rounding widens the norm bound: a calibration that looks
    for the least noise then meets its target, since it checks what it returns, and may miss a
    smaller one.

    Raises:
        ModulusError: not even a grid of one step per clip_norm fits.
    """
    found = on_grid(clip_norm)
    coarse, fine = 1.0, _MAX_STEPS
    while fine / coarse > 1.0 + 1e-6:
        middle = math.sqrt(coarse * fine)
        try:
            found, coarse = on_grid(clip_norm / middle), middle
        except dp.DpError:  # the bits, or noise beyond the samplers
            fine = middle
    return found


def _unnoised(
    privacy: NotPrivate, aggregation: Aggregation, invited: int, dim: int
) -> UnnoisedEncoding | None:
    if isinstance(aggregation, Plain) or privacy.max_norm is None:
        return None
    max_weight = privacy.max_weight if privacy.weights == "examples" else 1
    return unnoised_encoding(dim, privacy.max_norm, max_weight or 1, invited)
