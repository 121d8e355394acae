"""Zero-concentrated differential privacy: two numbers per event.

An event is (xi, rho)-zCDP if its Rényi divergence of every order alpha > 1 is at most
xi + alpha rho (Bun, Steinke 2016, Definition 8.1). Both numbers add under composition.
"""

from dataclasses import dataclass

from dp._shifted import skellam_curvature
from dp.accountants import rdp
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
    SecretParticipationEvent,
    SelfComposedEvent,
    SkellamEvent,
)


@dataclass(frozen=True)
class Zcdp:
    """Divergence of every order alpha > 1 is at most xi + alpha rho (both in nats)."""

    xi: float
    rho: float


def zcdp_bound(event: Event) -> Zcdp:
    """(xi, rho) of an event whose bounds are already those of the neighbouring relation.

    Raises:
        UnsupportedEventError: unknown event, or parameters outside its theorem's conditions.
    """
    if isinstance(event, SelfComposedEvent):
        part = zcdp_bound(event.event)
        return Zcdp(event.count * part.xi, event.count * part.rho)
    if isinstance(event, (LimitedParticipationEvent, SecretParticipationEvent)):
        return zcdp_bound(SelfComposedEvent(event.event, min(event.releases, event.participations)))
    if isinstance(event, ListedParticipationEvent):  # the most there can be: no line is below it
        return zcdp_bound(SelfComposedEvent(event.event, max(1, len(event.probabilities) - 1)))
    if isinstance(event, ComposedEvent):
        parts = [zcdp_bound(part) for part in event.events]
        return Zcdp(sum(part.xi for part in parts), sum(part.rho for part in parts))
    if isinstance(event, GaussianEvent):
        return Zcdp(0.0, 0.5 / event.noise_multiplier**2)
    if isinstance(event, (DiscreteGaussianEvent, MatrixEvent)):
        return Zcdp(0.0, event.l2_sq / (2.0 * event.sigma**2))
    if isinstance(event, DiscreteGaussianSumEvent):
        return Zcdp(0.0, rdp.sum_bounds(event)[2])
    if isinstance(event, SkellamEvent):
        return _skellam(event)
    raise UnsupportedEventError(event, "takes an event with a proven zCDP bound")


def _skellam(event: SkellamEvent) -> Zcdp:
    """The line above the curvature bound: alpha rho at integer orders, rho = l2^2 log(I_0 / I_1).

    The chord between integers adds at most rho, at orders in (1, 2); docs/privacy.md,
    "Skellam" and "Curvature".
    """
    rho = float(event.l2_sq) * skellam_curvature(event.variance) / 2.0 * (1.0 + 2.0**-50)
    return Zcdp(rho, rho)
