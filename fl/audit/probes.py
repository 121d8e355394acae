"""Looks for bugs that an attack cannot see: noise too small or used twice, inputs beyond the clip.

A probe runs a plan in which every client is the auditor's: in even rounds all send zero, in odd
rounds the first half sends one common vector, too long, and the pipeline has to clip it. What is
released in even rounds is noise and nothing else. docs/privacy.md, "Probing a run".
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

import dp
from dp import detectors
from dp.samplers import BIAS_UNIT
from fl.audit.attack import check_plan
from fl.audit.canaries import Planted
from fl.audit.watch import run_watched
from fl.datasets.dataset import FederatedDataset
from fl.encoding import PrivateEncoding, round_rotation
from fl.engine import Attempted
from fl.group import alone
from fl.models import Model
from fl.plan import Plan, Resolved
from fl.prepare import prepare
from fl.privacy import Exposure
from fl.runners import Execution
from fl.site import Order
from fl.types import FloatVector, PyTree

_AUTO = Execution()
_SHARES, _PER_ROUND = 48, 12  # noise shares compared with one another, at most
FloatArray = NDArray[np.float64]


class Law(NamedTuple):
    """What is claimed of noise, in grid units.

    Attributes:
        granularity: one grid unit.
        norm: the furthest that one client moves the sum, or its mean where coins are tossed.
        share_variance: of one client's noise in one coordinate, or coins; 0 where the server adds
            the noise.
        central_variance: of the server's.
    """

    granularity: float
    norm: float
    share_variance: float
    central_variance: float

    def variance(self, clients: int) -> float:
        """Of the noise in one coordinate of a sum over that many clients."""
        return clients * self.share_variance + self.central_variance


@dataclass(frozen=True)
class Probe:
    """What a probe found.

    Attributes:
        detections: one per detector that applies to the plan.
        significance: of all of them together.
    """

    detections: tuple[detectors.Detection, ...]
    significance: float

    @property
    def alarms(self) -> tuple[detectors.Detection, ...]:
        """The detections that refute the plan; in an honest run none, with 1 - significance."""
        share = self.significance / max(1, len(self.detections))
        return tuple(found for found in self.detections if found.p_value <= share)


def law_of(exposure: Exposure) -> Law | None:
    """Returns what the statement's mechanism claims, or None where detectors have no law for it."""
    mechanism = exposure.mechanism
    if isinstance(mechanism, dp.PoissonBinomialMechanism):
        moved = mechanism.unit * mechanism.trials * BIAS_UNIT  # a mean, by one unit of bias
        share = mechanism.unit**2 * mechanism.trials / 4.0
        return Law(mechanism.granularity, moved * math.sqrt(mechanism.l2_sq), share, 0.0)
    if not isinstance(mechanism, (dp.DistributedMechanism, dp.CentralMechanism)):
        return None  # no noise, or noise that is correlated between rounds
    size = mechanism.discretizer
    share = central = 0.0
    if isinstance(mechanism, dp.CentralMechanism):
        central = _gaussian_variance(mechanism.sigma)
    elif mechanism.name == "discrete_gaussian":
        share = _gaussian_variance(mechanism.share_sigma)
    else:
        share = mechanism.share_variance
    return Law(size.granularity, math.sqrt(size.l2_sq), share, central)


def _gaussian_variance(sigma: float) -> float:
    """Variance of the discrete Gaussian, a little below sigma^2 where sigma is small."""
    if sigma > 8.0:
        return sigma * sigma
    x = np.arange(-100, 101)
    mass = np.exp(-0.5 * (x / sigma) ** 2)
    return float((mass * x * x).sum() / mass.sum())


class Probing:
    """Keeps what a probe needs of a run; a `fl.audit.watch.Watch`.

    Args:
        resolved: the plan.
        num_clients: of the data.
        loud: the clients that send the vector in odd rounds.
        vector: it, f32[d] of norm 1.
    """

    def __init__(
        self, resolved: Resolved, num_clients: int, loud: range, vector: FloatVector
    ) -> None:
        self._resolved, self._num_clients = resolved, num_clients
        self._law, self._loud, self._vector = law_of(resolved.exposure), loud, vector
        self._silent: list[tuple[FloatArray, float]] = []  # noise, its variance
        self._shares: list[tuple[int, FloatArray]] = []  # round, noise share
        self._projection = self._bound = self._variance = 0.0
        self._members: list[NDArray[np.bool_]] = []

    def sent(
        self, round_index: int, client: int, segments: Mapping[str, NDArray[np.uint64]]
    ) -> None:
        """See `Watch.sent`: who sends zero sends its noise share."""
        encoding, law = self._resolved.encoding, self._law
        quiet = round_index % 2 == 0 or client not in self._loud
        taken = sum(index == round_index for index, _ in self._shares)
        if law is None or not law.share_variance or not quiet or taken >= _PER_ROUND:
            return
        if isinstance(encoding, PrivateEncoding) and len(self._shares) < _SHARES:
            sent = encoding.contribution(segments, self._rotation(round_index))
            self._shares.append((round_index, self._grid(sent, round_index, law)))

    def attempted(self, order: Order, attempted: Attempted) -> None:
        """See `Watch.attempted`."""
        outcome, encoding, law = attempted.outcome, self._resolved.encoding, self._law
        if law is None or not isinstance(encoding, PrivateEncoding) or outcome.mean is None:
            return
        total, index = outcome.mean.vector, order.round_index
        if total is None:
            return
        noise = self._grid(total * encoding.denominator, index, law)
        variance = law.variance(len(outcome.survivors))
        if index % 2 == 0:
            self._silent.append((noise, variance))
            return
        direction = self._rotation(index).apply(self._vector.astype(np.float64))
        direction /= np.linalg.norm(direction)
        self._projection += float(noise @ direction)
        self._bound += law.norm * sum(client in self._loud for client in outcome.survivors)
        self._variance += variance

    def released(self, order: Order, before: PyTree, after: PyTree) -> None:
        """See `Watch.released`: who was invited is all that is noted."""
        del before, after
        members = np.zeros(self._num_clients, dtype=np.bool_)
        members[list(order.invited)] = True
        self._members.append(members)

    def detections(self) -> tuple[detectors.Detection, ...]:
        """Runs every detector that has something to look at."""
        found: list[detectors.Detection] = []
        if self._silent:
            noise = np.stack([noise for noise, _ in self._silent])
            variances = [variance for _, variance in self._silent]
            found.append(detectors.too_little_noise(noise, variances))
            if len(noise) > 1:
                found.append(detectors.repeated_noise(noise, variances, "rounds"))
        if self._law is not None and len(self._shares) > 1:
            shares = [share for _, share in self._shares]
            variances = [self._law.share_variance] * len(shares)
            found.append(detectors.repeated_noise(np.stack(shares), variances, "clients"))
        if self._variance:
            found.append(detectors.beyond_bound(self._projection, self._bound, self._variance))
        return (*found, *self._cohorts())

    def _cohorts(self) -> Sequence[detectors.Detection]:
        cohort = self._resolved.plan.cohort
        if not cohort.secret or cohort.prob is None or len(self._members) < 2:
            return ()
        members = np.stack(self._members)
        sizes = members.sum(axis=1).tolist()
        return (
            detectors.regular_sizes(sizes, members.shape[1], cohort.prob),
            detectors.repeated_cohorts(members, cohort.prob),
        )

    def _rotation(self, round_index: int) -> dp.Rotation:
        return round_rotation(self._resolved.messages.dim, self._resolved.plan.seed, round_index)

    def _grid(self, vector: FloatArray, round_index: int, law: Law) -> FloatArray:
        """A sum as it was before the server rotated it back, grid units."""
        return self._rotation(round_index).apply(vector) / law.granularity


def probe(
    plan: Plan,
    model: Model,
    data: FederatedDataset,
    *,
    significance: float,
    execution: Execution = _AUTO,
) -> Probe:
    """Runs the plan with clients of the auditor alone, and looks for bugs in noise and cohorts.

    Args:
        plan: a private plan whose unit is the client; two rounds or more look for more.
        model: as `fl.train`.
        data: how many clients there are; no example is read but those of the test set.
        significance: chance that an honest run alarms at all.
        execution: as `fl.train`.

    Raises:
        PlanError: with every fault of the plan.
    """
    check_plan(plan, significance)
    ready = prepare(plan, model, data, execution, alone())
    resolved = ready.resolved
    loud = range((data.num_clients + 1) // 2)
    vector = np.full(resolved.messages.dim, resolved.messages.dim**-0.5, dtype=np.float32)
    silence: dict[int, FloatVector | None] = dict.fromkeys(range(data.num_clients))
    loudness = {**silence, **dict.fromkeys(loud, vector)}
    runner = Planted(
        ready.runner, lambda index: loudness if index % 2 else silence, resolved.max_norm or 1.0,
        resolved.messages.dim,
    )  # fmt: skip
    seen = Probing(resolved, data.num_clients, loud, vector)
    run_watched(ready, model, data, runner, seen)
    return Probe(seen.detections(), significance)
