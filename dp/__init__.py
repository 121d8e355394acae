"""Differential privacy for aggregation: bounded integers, exact noise, certified accounting.

NumPy and the standard library only. What each part promises, and why it holds, is in
docs/privacy.md; the names of the papers' symbols are in docs/notation.md.
"""

from dp.accountants import (
    Zcdp,
    delta,
    epsilon,
    epsilon_with_failures,
    rdp_curve,
    zcdp_bound,
)
from dp.calibration import calibrate, smallest_parameter
from dp.clipping import clip_l2
from dp.discretize import (
    MAX_MODULUS_BITS,
    Discretizer,
    Rotation,
    choose_modulus_bits,
    default_granularity,
    unwrap,
    wrap,
)
from dp.errors import (
    CalibrationError,
    DpError,
    FailureBudgetError,
    LedgerError,
    LedgerMismatchError,
    ModulusError,
    NonFiniteError,
    ParameterError,
    ReleaseLimitError,
    RepeatedChargeError,
    RepeatedReleaseError,
    RoundingError,
    SurvivorsError,
    UnsupportedEventError,
)
from dp.events import (
    ComposedEvent,
    DiscreteGaussianEvent,
    DiscreteGaussianSumEvent,
    Event,
    GaussianEvent,
    Interval,
    NeighboringRelation,
    SelfComposedEvent,
    SkellamEvent,
    event_from_dict,
    event_to_dict,
)
from dp.ledger import Ledger
from dp.mechanisms import (
    CentralMechanism,
    DistributedMechanism,
    central_gaussian,
    distributed,
)
from dp.random import RandomBytes
from dp.samplers import discrete_gaussian, skellam, total_variation

__all__ = [
    "MAX_MODULUS_BITS",
    "CalibrationError",
    "CentralMechanism",
    "ComposedEvent",
    "DiscreteGaussianEvent",
    "DiscreteGaussianSumEvent",
    "Discretizer",
    "DistributedMechanism",
    "DpError",
    "Event",
    "FailureBudgetError",
    "GaussianEvent",
    "Interval",
    "Ledger",
    "LedgerError",
    "LedgerMismatchError",
    "ModulusError",
    "NeighboringRelation",
    "NonFiniteError",
    "ParameterError",
    "RandomBytes",
    "ReleaseLimitError",
    "RepeatedChargeError",
    "RepeatedReleaseError",
    "Rotation",
    "RoundingError",
    "SelfComposedEvent",
    "SkellamEvent",
    "SurvivorsError",
    "UnsupportedEventError",
    "Zcdp",
    "calibrate",
    "central_gaussian",
    "choose_modulus_bits",
    "clip_l2",
    "default_granularity",
    "delta",
    "discrete_gaussian",
    "distributed",
    "epsilon",
    "epsilon_with_failures",
    "event_from_dict",
    "event_to_dict",
    "rdp_curve",
    "skellam",
    "smallest_parameter",
    "total_variation",
    "unwrap",
    "wrap",
    "zcdp_bound",
]
