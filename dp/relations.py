"""What a neighbouring relation makes of an event; docs/privacy.md, "Neighbouring relations"."""

import dataclasses
import math

from dp.errors import ParameterError, UnsupportedEventError
from dp.events import (
    PARTICIPATION,
    SAMPLED,
    SHARES,
    VECTOR,
    ComposedEvent,
    Event,
    GaussianEvent,
    LaplaceEvent,
    LimitedParticipationEvent,
    ListedParticipationEvent,
    MatrixEvent,
    NeighboringRelation,
    PoissonBinomialEvent,
    SecretParticipationEvent,
    SelfComposedEvent,
    l1_bound,
)


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
    if isinstance(event, (SelfComposedEvent, *PARTICIPATION)):
        return dataclasses.replace(event, event=shifted(event.event, neighboring))
    if isinstance(event, ComposedEvent):
        return ComposedEvent(tuple(shifted(part, neighboring) for part in event.events))
    if isinstance(event, GaussianEvent):
        return GaussianEvent(event.noise_multiplier / 2)
    if isinstance(event, LaplaceEvent):
        return LaplaceEvent(event.noise_multiplier / 2)
    if isinstance(event, MatrixEvent):
        return MatrixEvent(event.sigma, 4 * event.l2_sq)
    if isinstance(event, PoissonBinomialEvent):
        return dataclasses.replace(event, replaced=True)
    if isinstance(event, SAMPLED):
        raise UnsupportedEventError(
            event, 'replace-one is not a scaled event under sampling; takes accountant="pld"'
        )
    if isinstance(event, VECTOR):
        # Slack bounds are drawn tight first: twice a slack bound may be met by integer vectors
        # that are no difference of two inputs, and a lower end must not count those.
        linf = min(event.linf, math.isqrt(event.l2_sq), event.l1)
        l1 = min(event.l1, l1_bound(event.dim, event.l2_sq))
        return dataclasses.replace(event, l2_sq=4 * event.l2_sq, l1=2 * l1, linf=2 * linf)
    raise UnsupportedEventError(event, "takes an event of dp.events")


def _refuse_absence(event: Event) -> None:
    """Noise of shares leaves with the client that adds it: there is no add-remove."""
    if isinstance(event, ComposedEvent):
        for part in event.events:
            _refuse_absence(part)
    elif isinstance(event, (SecretParticipationEvent, ListedParticipationEvent)):
        reason = "an absent client tosses no coins; takes zero-out or replace-one"
        raise UnsupportedEventError(event, reason)
    elif isinstance(event, (SelfComposedEvent, LimitedParticipationEvent, *SAMPLED)):
        _refuse_absence(event.event)
    elif isinstance(event, SHARES):
        raise UnsupportedEventError(
            event, "an absent client's noise share is absent too; takes zero-out or replace-one"
        )
