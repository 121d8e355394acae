"""How much noise a plan needs, and the integers that carry it.

The noise multiplier is the smallest at which the worst case of the row named by `against` meets
the target; docs/privacy.md, "Statements" and "Records".
"""

import math
from dataclasses import replace
from typing import NamedTuple

import dp
from fl.aggregate import Aggregation, Plain
from fl.encoding import Encoding, PrivateEncoding, UnnoisedEncoding, unnoised_encoding
from fl.errors import PlanError, fault
from fl.privacy import CENTRAL, COINS, Distributed, Exposure, NotPrivate, Privacy
from fl.statement import worst_case

# Records are rounded one by one: the grid is fine enough that, at a noise multiplier of 1, the
# roundings of all records together add at most 1 % to the variance of the noise.
_STEPS_PER_RECORD = 5.0
_ROUNDING_BIAS, _INFLATION = math.exp(-0.5), 0.01  # of `dp.default_granularity`, as dp's own


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
) -> tuple[Encoding | None, float | None, Exposure]:
    """Returns encoding, noise multiplier and the exposure with its mechanism.

    Raises:
        PlanError: no noise meets the target.
    """
    if isinstance(privacy, NotPrivate):
        return _unnoised(privacy, aggregation, summands.clients, dim), None, exposure

    def exposed(noise_multiplier: float) -> Exposure:
        mechanism = _mechanism(privacy, exposure, dim, summands, noise_multiplier)
        return replace(exposure, mechanism=mechanism)

    try:
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
        raise PlanError((fault("privacy", why, "a target that some noise meets"),)) from error
    if final.mechanism is None:
        raise AssertionError("exposed() always sets the mechanism")
    return PrivateEncoding(final.mechanism, summands.denominator), noise_multiplier, final


def _mechanism(
    privacy: Privacy, exposure: Exposure, dim: int, summands: Summands, noise_multiplier: float
) -> Distributed | dp.CentralMechanism:
    if privacy.mechanism == COINS:
        return dp.poisson_binomial(
            dim=dim,
            clip_norm=privacy.clip_norm,
            noise_multiplier=noise_multiplier,
            num_clients=summands.units,
            shares=exposure.bounds.honest_shares,
            trials=privacy.trials or 1,
        )
    granularity = None
    if privacy.unit == "record":
        granularity = min(
            dp.default_granularity(
                dim, privacy.clip_norm, rounding_bias=_ROUNDING_BIAS, inflation=_INFLATION
            ),
            privacy.clip_norm / (_STEPS_PER_RECORD * math.sqrt(summands.units)),
        )
    if privacy.mechanism in CENTRAL:
        return dp.central_gaussian(
            dim=dim,
            clip_norm=privacy.clip_norm,
            noise_multiplier=noise_multiplier,
            num_clients=summands.units,
            granularity=granularity,
        )
    return dp.distributed(
        "skellam" if privacy.mechanism == "skellam" else "discrete_gaussian",
        dim=dim,
        clip_norm=privacy.clip_norm,
        noise_multiplier=noise_multiplier,
        num_clients=summands.units,
        shares=exposure.bounds.honest_shares,
        granularity=granularity,
    )


def _unnoised(
    privacy: NotPrivate, aggregation: Aggregation, invited: int, dim: int
) -> UnnoisedEncoding | None:
    if isinstance(aggregation, Plain) or privacy.max_norm is None:
        return None
    max_weight = privacy.max_weight if privacy.weights == "examples" else 1
    return unnoised_encoding(dim, privacy.max_norm, max_weight or 1, invited)
