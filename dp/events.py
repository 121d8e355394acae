"""What was released, as frozen data that states its mathematics; accountants analyse it.

An event never changes its meaning; a new mechanism is a new class. Vector events carry exact
integer bounds, in grid units, on how far one client can move the sum: `l2_sq` (squared
Euclidean norm), `l1`, `linf`, and the length `dim`. They are bounds for one client's vector
against the zero vector; `shifted` alone knows what a neighbouring relation makes of them.
See docs/privacy.md, "Neighbouring relations" and "Events".
"""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dp import _validate
from dp.errors import LedgerMismatchError, ParameterError, UnsupportedEventError


class NeighboringRelation(enum.Enum):
    """Which pairs of inputs must look alike.

    ADD_REMOVE: one client is absent in one of them.
    ZERO_OUT: one client takes part in both, with the zero vector in one of them.
    REPLACE_ONE: one client's vector is any other in one of them; twice the shift.
    """

    ADD_REMOVE = "add_remove"
    REPLACE_ONE = "replace_one"
    ZERO_OUT = "zero_out"


@dataclass(frozen=True)
class Interval:
    """An interval that contains the true value: lower <= truth <= upper.

    `note` says where an end does not come from the accountant that was asked for; it takes no
    part in comparisons.
    """

    lower: float
    upper: float
    note: str = dataclasses.field(default="", compare=False)

    def __post_init__(self) -> None:
        if not 0.0 <= self.lower <= self.upper:  # also refuses NaN
            raise ParameterError(
                "Interval", (self.lower, self.upper), "0 <= lower <= upper, without NaN"
            )


_SMALLEST, _LARGEST = 1e-100, 1e100  # of noise: squares and ratios of squares stay finite
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
        _check_single(self.event)


@dataclass(frozen=True)
class FixedSizeSampledEvent:
    """`event` on a uniformly random cohort of `sample` out of `population` clients.

    The same conditions as `PoissonSampledEvent`. Sizes are public, so add-remove is refused.
    """

    population: int
    sample: int
    event: Event

    def __post_init__(self) -> None:
        _keep_integers(self, "population")
        _keep(self, sample=_validate.integer("sample", self.sample, 1, self.population))
        _check_single(self.event)


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
        _check_single(self.event)


@dataclass(frozen=True)
class SelfComposedEvent:
    """`count` adaptive releases, each described by `event`."""

    event: Event
    count: int

    def __post_init__(self) -> None:
        _check_event("event", self.event)
        _keep_integers(self, "count")


@dataclass(frozen=True)
class ComposedEvent:
    """Adaptive releases described by `events`, in order."""

    events: tuple[Event, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.events, tuple) or not self.events:
            raise ParameterError("events", self.events, "a non-empty tuple of events")
        for event in self.events:
            _check_event("events", event)


Event = (
    GaussianEvent
    | DiscreteGaussianEvent
    | DiscreteGaussianSumEvent
    | SkellamEvent
    | LaplaceEvent
    | DiscreteLaplaceEvent
    | PoissonSampledEvent
    | FixedSizeSampledEvent
    | RecordSampledEvent
    | SelfComposedEvent
    | ComposedEvent
)

_VECTOR = (DiscreteGaussianEvent, DiscreteGaussianSumEvent, SkellamEvent, DiscreteLaplaceEvent)
_SINGLE = (GaussianEvent, LaplaceEvent, *_VECTOR)
_SHARES = (SkellamEvent, DiscreteGaussianSumEvent)
_SAMPLED = (PoissonSampledEvent, FixedSizeSampledEvent, RecordSampledEvent)
_CLASSES = {c.__name__: c for c in (*_SINGLE, *_SAMPLED, SelfComposedEvent, ComposedEvent)}


def _check_event(field: str, value: object) -> None:
    if type(value) not in _CLASSES.values():
        raise ParameterError(field, value, "an event of dp.events")


def _check_single(value: object) -> None:
    if type(value) not in _SINGLE:
        raise ParameterError("event", value, "one release: no sampling or composition inside")


def shifted(event: Event, neighboring: NeighboringRelation) -> Event:
    """The event whose bounds are those of the difference of two neighbouring inputs.

    Replace-one doubles the shift here and nowhere else (docs/privacy.md, "Neighbouring
    relations"): x - x' has at most twice the norms of x - 0.

    Raises:
        ParameterError: `neighboring` is not a NeighboringRelation.
        UnsupportedEventError: the event is not one of this module.
    """
    if not isinstance(neighboring, NeighboringRelation):
        raise ParameterError("neighboring", neighboring, "a NeighboringRelation")
    if neighboring is NeighboringRelation.ADD_REMOVE:
        _refuse_absence(event)
    if neighboring is not NeighboringRelation.REPLACE_ONE:
        return event
    if isinstance(event, SelfComposedEvent):
        return SelfComposedEvent(shifted(event.event, neighboring), event.count)
    if isinstance(event, ComposedEvent):
        return ComposedEvent(tuple(shifted(part, neighboring) for part in event.events))
    if isinstance(event, GaussianEvent):
        return GaussianEvent(event.noise_multiplier / 2)
    if isinstance(event, LaplaceEvent):
        return LaplaceEvent(event.noise_multiplier / 2)
    if isinstance(event, _SAMPLED):
        raise UnsupportedEventError(
            event, 'replace-one is not a scaled event under sampling; takes accountant="pld"'
        )
    if isinstance(event, _VECTOR):
        # Slack bounds are drawn tight first: twice a slack bound may be met by integer vectors
        # that are no difference of two inputs, and a lower end must not count those.
        linf = min(event.linf, math.isqrt(event.l2_sq), event.l1)
        l1 = min(event.l1, event.l2_sq, isqrt_product(event.dim, event.l2_sq))
        return dataclasses.replace(event, l2_sq=4 * event.l2_sq, l1=2 * l1, linf=2 * linf)
    raise UnsupportedEventError(event, "takes an event of dp.events")


def _refuse_absence(event: Event) -> None:
    """Noise of shares leaves with the client that adds it: there is no add-remove."""
    for part in event.events if isinstance(event, ComposedEvent) else (event,):
        single = part.event if isinstance(part, (SelfComposedEvent, *_SAMPLED)) else part
        if isinstance(single, (ComposedEvent, SelfComposedEvent)):
            _refuse_absence(single)
        elif isinstance(single, _SHARES):
            raise UnsupportedEventError(
                event, "an absent client's noise share is absent too; takes zero-out or replace-one"
            )


def event_to_dict(event: Event) -> dict[str, object]:
    """Plain data (str, int, float, list, dict) from which `event_from_dict` rebuilds the event."""
    _check_event("event", event)
    fields: dict[str, object] = {"type": type(event).__name__}
    for field in dataclasses.fields(event):
        value = getattr(event, field.name)
        if isinstance(value, tuple):
            fields[field.name] = [event_to_dict(part) for part in value]
        elif type(value) in _CLASSES.values():
            fields[field.name] = event_to_dict(value)
        else:
            fields[field.name] = value
    return fields


def event_from_dict(data: Mapping[str, object]) -> Event:
    """The event written by `event_to_dict`.

    Raises:
        LedgerMismatchError: unknown event, or fields that are not those of the event.
        ParameterError: a field outside its range.
    """
    if not isinstance(data, Mapping):
        raise LedgerMismatchError(f"event: got {type(data).__name__}, takes fields by name")
    kind = data.get("type")
    cls = _CLASSES.get(kind) if isinstance(kind, str) else None
    if cls is None:
        raise LedgerMismatchError(f"type={kind!r}: takes one of {sorted(_CLASSES)}")
    given = {name: value for name, value in data.items() if name != "type"}
    if set(given) != {field.name for field in dataclasses.fields(cls)}:
        raise LedgerMismatchError(f"{kind}: fields {sorted(given)} are not its fields")
    # Any: each class checks the types of its own fields when it is made.
    made: dict[str, Any] = {name: _rebuilt(value) for name, value in given.items()}
    return cls(**made)


def _rebuilt(value: object) -> object:
    """A field of `event_from_dict`: nested events, tuples of events, or the value itself."""
    if isinstance(value, Mapping):
        return event_from_dict(value)
    if isinstance(value, list):
        return tuple(_rebuilt(part) for part in value)
    return value


def isqrt_product(first: int, second: int) -> int:
    """floor(sqrt(first * second)) in exact integers; an l1 bound from an l2 bound."""
    return math.isqrt(first * second)
