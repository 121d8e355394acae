"""What was released, as frozen data that states its mathematics; accountants analyse it.

An event never changes its meaning; a new mechanism is a new class. Vector events carry exact
integer bounds, in grid units, on how far one client can move the sum: `l2_sq` (squared
Euclidean norm), `l1`, `linf`, and the length `dim`. They are bounds for one client's vector
against the zero vector; `dp.relations` alone knows what a neighbouring relation makes of them.
See docs/privacy.md, "Neighbouring relations" and "Events".
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass

from dp import _validate
from dp.errors import ParameterError


class NeighboringRelation(enum.Enum):
    """Which pairs of inputs must look alike.

    ADD_REMOVE: one client is absent in one of them.
    ZERO_OUT: one client takes part in both, with the zero vector in one of them.
    REPLACE_ONE: one client's vector is any other in one of them; twice the shift.
    """

    ADD_REMOVE = "add_remove"
    REPLACE_ONE = "replace_one"
    ZERO_OUT = "zero_out"


_SMALLEST, _LARGEST = 1e-100, 1e100  # of noise: squares and ratios of squares stay finite
_MOST_LISTED = 100_000  # numbers of participations
MOST_BIAS = 2**23 - 1  # of coins, in units of 2^-24: a probability stays inside (0, 1)
_MOST = 2**64  # of integer bounds: floats and replace-one have room


def _keep(event: object, **values: float) -> None:
    """Stores values in their working types: numpy's integers wrap, its half floats overflow."""
    for name, value in values.items():
        object.__setattr__(event, name, value)


def _keep_noise(event: object, name: str) -> None:
    value = _validate.real(name, getattr(event, name), _SMALLEST, _LARGEST)
    _keep(event, **{name: value})


def _keep_integers(event: object, *names: str) -> None:
    """Integers >= 1; as bounds, some nonzero integer vector of length dim can meet them."""
    for name in names:
        _keep(event, **{name: _validate.integer(name, getattr(event, name), 1, _MOST)})


@dataclass(frozen=True)
class GaussianEvent:
    """A vector plus N(0, (noise_multiplier * S)^2 I), where one client's l2 norm is at most S."""

    noise_multiplier: float

    def __post_init__(self) -> None:
        _keep_noise(self, "noise_multiplier")


@dataclass(frozen=True)
class LaplaceEvent:
    """A number plus Laplace noise of scale noise_multiplier * S; one client moves it by <= S."""

    noise_multiplier: float

    def __post_init__(self) -> None:
        _keep_noise(self, "noise_multiplier")


@dataclass(frozen=True)
class DiscreteGaussianEvent:
    """An integer vector plus independent N_Z(0, sigma^2) in each coordinate (grid units)."""

    sigma: float
    l2_sq: int
    l1: int
    linf: int
    dim: int

    def __post_init__(self) -> None:
        _keep_noise(self, "sigma")
        _keep_integers(self, "l2_sq", "l1", "linf", "dim")


@dataclass(frozen=True)
class DiscreteGaussianSumEvent:
    """An integer vector plus, per coordinate, the sum of `shares` draws of N_Z(0, share_sigma^2).

    The sum is not a discrete Gaussian; the law is that of the convolution.
    """

    share_sigma: float
    shares: int
    l2_sq: int
    l1: int
    linf: int
    dim: int

    def __post_init__(self) -> None:
        _keep_noise(self, "share_sigma")
        _keep_integers(self, "shares")
        _keep_integers(self, "l2_sq", "l1", "linf", "dim")


@dataclass(frozen=True)
class SkellamEvent:
    """An integer vector plus, per coordinate, the difference of two Poisson(variance / 2).

    Skellam noise is closed under sums: `variance` is the total of the honest shares.
    """

    variance: float
    l2_sq: int
    l1: int
    linf: int
    dim: int

    def __post_init__(self) -> None:
        _keep_noise(self, "variance")
        _keep_integers(self, "l2_sq", "l1", "linf", "dim")


@dataclass(frozen=True)
class PoissonBinomialEvent:
    """Per coordinate the number of successes among `trials` coins from each of `shares` clients.

    Every client's coins have probability 1/2 + k 2^-24 with an integer k of its own in each
    coordinate, |k| <= linf; the vector of one client has sum k^2 <= l2_sq, its neighbour k = 0.
    There is no other noise: all coins are independent, and those of the others hide the client's.

    Attributes:
        trials: coins of one client in each coordinate, m.
        shares: honest clients in the sum, the client itself among them.
        linf: bound on |k| for every client, below 2^23.
        l2_sq: bound on sum k^2 of one client.
        dim: coordinates.
        replaced: the neighbour may be any vector within the same bounds (replace-one).
    """

    trials: int
    shares: int
    linf: int
    l2_sq: int
    dim: int
    replaced: bool = False

    def __post_init__(self) -> None:
        _keep_integers(self, "trials", "shares", "linf", "l2_sq", "dim")
        _validate.integer("linf", self.linf, 1, MOST_BIAS)
        if not isinstance(self.replaced, bool):
            raise ParameterError("replaced", self.replaced, "a bool")


@dataclass(frozen=True)
class DiscreteLaplaceEvent:
    """An integer vector plus, per coordinate, the law proportional to exp(-|x| / scale)."""

    scale: float
    l2_sq: int
    l1: int
    linf: int
    dim: int

    def __post_init__(self) -> None:
        _keep_noise(self, "scale")
        _keep_integers(self, "l2_sq", "l1", "linf", "dim")


@dataclass(frozen=True)
class MatrixEvent:
    """All rounds of correlated noise together: C x + N_Z(0, sigma^2 I) in integers, row by row.

    The rows of x are the rounds' sums, each chosen after the rows of C x + noise before it were
    seen; C is lower triangular in blocks of rounds. `l2_sq` bounds the squared l2 norm by which
    one client, in all rounds it takes part in, moves C x, whatever was seen before.
    """

    sigma: float
    l2_sq: int

    def __post_init__(self) -> None:
        _keep_noise(self, "sigma")
        _keep(self, l2_sq=_validate.integer("l2_sq", self.l2_sq, 1, 2**128))


@dataclass(frozen=True)
class PoissonSampledEvent:
    """`event` on a cohort that each client joins independently with `sampling_prob`.

    Holds only where cohort and its size stay secret and where the noise does not depend on the
    cohort: central noise. Noise shares grow with the cohort and show its size, so events of
    shares are refused by every accountant.
    """

    sampling_prob: float
    event: Event

    def __post_init__(self) -> None:
        _keep(self, sampling_prob=_validate.positive("sampling_prob", self.sampling_prob, 1.0))
        _check_noised(self.event)


@dataclass(frozen=True)
class FixedSizeSampledEvent:
    """`event` on a random cohort of `sample` out of `population` clients; sizes are public.

    The other conditions of `PoissonSampledEvent` hold; add-remove is refused.
    """

    population: int
    sample: int
    event: Event

    def __post_init__(self) -> None:
        _keep_integers(self, "population")
        _keep(self, sample=_validate.integer("sample", self.sample, 1, self.population))
        _check_noised(self.event)


@dataclass(frozen=True)
class RecordSampledEvent:
    """`event` on the records that each joins independently with `sampling_prob`, by secret coins.

    The unit is one record of a client that takes part and adds its noise whatever the coins are:
    the law of the noise does not depend on them, also where it is made of the clients' shares.
    The coins are known to the record's own client alone. docs/privacy.md, "Sampled records".
    """

    sampling_prob: float
    event: Event

    def __post_init__(self) -> None:
        _keep(self, sampling_prob=_validate.positive("sampling_prob", self.sampling_prob, 1.0))
        _check_noised(self.event)


@dataclass(frozen=True)
class SelfComposedEvent:
    """`count` adaptive releases, each described by `event`."""

    event: Event
    count: int

    def __post_init__(self) -> None:
        check_event("event", self.event)
        _keep_integers(self, "count")


@dataclass(frozen=True)
class ComposedEvent:
    """Adaptive releases described by `events`, in order."""

    events: tuple[Event, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.events, tuple) or not self.events:
            raise ParameterError("events", self.events, "a non-empty tuple of events")
        for event in self.events:
            check_event("events", event)


@dataclass(frozen=True)
class LimitedParticipationEvent:
    """`releases` adaptive releases, at most `participations` of them with the client's vector.

    Which ones may be public and chosen on the way.
    """

    event: Event
    releases: int
    participations: int

    def __post_init__(self) -> None:
        _check_unsampled(self.event)
        _keep_integers(self, "releases", "participations")


@dataclass(frozen=True)
class SecretParticipationEvent:
    """Each of `releases` releases holds the client's vector with `sampling_prob`, by a secret coin.

    Coins are independent of one another and of all data; after `participations` of them the
    client stays away. `event` is a release with the client in it. The noise may show who took
    part: shares are allowed. Also for cohorts of a fixed size drawn anew for every release.
    """

    event: Event
    releases: int
    sampling_prob: float
    participations: int

    def __post_init__(self) -> None:
        _check_unsampled(self.event)
        _keep_integers(self, "releases", "participations")
        _keep(self, sampling_prob=_validate.positive("sampling_prob", self.sampling_prob, 1.0))


@dataclass(frozen=True)
class ListedParticipationEvent:
    """As `SecretParticipationEvent`, probabilities[j] being the chance of j participations.

    They sum to 1 within 1e-9, and what is missing counts as the largest number.
    """

    event: Event
    probabilities: tuple[float, ...]

    def __post_init__(self) -> None:
        _check_unsampled(self.event)
        takes = f"a tuple of 1 to {_MOST_LISTED} chances that sum to 1"
        if not isinstance(self.probabilities, tuple) or not self.probabilities:
            raise ParameterError("probabilities", self.probabilities, takes)
        chances = [_validate.real("probabilities", p, 0.0, 1.0) for p in self.probabilities]
        total = math.fsum(chances)
        if len(chances) > _MOST_LISTED or abs(total - 1.0) > 1e-9:
            raise ParameterError("probabilities", f"{len(chances)} that sum to {total}", takes)
        object.__setattr__(self, "probabilities", tuple(chances))


Event = (
    GaussianEvent
    | DiscreteGaussianEvent
    | DiscreteGaussianSumEvent
    | SkellamEvent
    | PoissonBinomialEvent
    | LaplaceEvent
    | DiscreteLaplaceEvent
    | MatrixEvent
    | PoissonSampledEvent
    | FixedSizeSampledEvent
    | RecordSampledEvent
    | LimitedParticipationEvent
    | SecretParticipationEvent
    | ListedParticipationEvent
    | SelfComposedEvent
    | ComposedEvent
)

VECTOR = (DiscreteGaussianEvent, DiscreteGaussianSumEvent, SkellamEvent, DiscreteLaplaceEvent)
_NOISED = (GaussianEvent, LaplaceEvent, *VECTOR)  # a vector plus noise that it does not move
_SINGLE = (*_NOISED, PoissonBinomialEvent)
SHARES = (SkellamEvent, DiscreteGaussianSumEvent, PoissonBinomialEvent)
SAMPLED = (PoissonSampledEvent, FixedSizeSampledEvent, RecordSampledEvent)
PARTICIPATION = (LimitedParticipationEvent, SecretParticipationEvent, ListedParticipationEvent)
EVENT_CLASSES = {
    c.__name__: c
    for c in (
        *_SINGLE, *SAMPLED, *PARTICIPATION, MatrixEvent, SelfComposedEvent, ComposedEvent,
    )
}  # fmt: skip


def check_event(field: str, value: object) -> None:
    """Raises ParameterError unless `value` is an event."""
    if type(value) not in EVENT_CLASSES.values():
        raise ParameterError(field, value, "an event of dp.events")


def _check_noised(value: object) -> None:
    """What may be sampled: the theorems are about noise that the vector does not move."""
    if type(value) not in _NOISED:
        takes = "one release of a vector plus noise: no sampling or composition inside"
        raise ParameterError("event", value, takes)


def _check_unsampled(value: object) -> None:
    """Releases that one client takes part in for certain: nothing is sampled twice."""
    if isinstance(value, ComposedEvent):
        for part in value.events:
            _check_unsampled(part)
    elif isinstance(value, SelfComposedEvent):
        _check_unsampled(value.event)
    elif type(value) not in _SINGLE:
        raise ParameterError("event", value, "releases without sampling or participation inside")


def l1_bound(dim: int, l2_sq: int) -> int:
    """Bound on the l1 norm of an integer vector: sqrt(dim) l2, and for integers also l2^2."""
    return min(l2_sq, math.isqrt(dim * l2_sq))
