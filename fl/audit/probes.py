"""Looks for bugs that an attack cannot see: noise too small or dependent, inputs beyond the clip.

A probe runs a plan in which every client is the auditor's: in even rounds all send zero, in odd
rounds the first half sends one common vector, too long, and the pipeline has to clip it. What is
released in even rounds is noise and nothing else. docs/privacy.md, "Probing a run".
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

import dp
from dp import detectors
from fl.audit.attack import check_plan
from fl.audit.canaries import Planted
from fl.audit.noise import Release, probe_correlated, probe_independent
from fl.audit.watch import run_watched
from fl.datasets.dataset import FederatedDataset
from fl.encoding import PrivateEncoding, rotation_of
from fl.engine import Attempted
from fl.group import alone
from fl.models import Model
from fl.plan import Plan, Resolved
from fl.prepare import prepare
from fl.runners import Execution
from fl.site import Order
from fl.types import FloatVector, PyTree

_SHARES, _PER_ROUND = 48, 12  # noise shares compared with one another, at most
FloatArray = NDArray[np.float64]


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
        if not isinstance(resolved.encoding, PrivateEncoding):
            raise TypeError("a plan without noise has nothing to probe")  # `probe` refuses it
        self._encoding, self._mechanism = resolved.encoding, resolved.encoding.mechanism
        self._resolved, self._num_clients = resolved, num_clients
        self._loud, self._vector = loud, vector
        self._correlated = isinstance(self._mechanism, dp.matrix.CorrelatedMechanism)
        self._sent: dict[int, FloatArray] = {}  # loud client -> what it sent in this round
        self._releases: list[Release] = []
        self._shares: list[tuple[int, FloatArray]] = []  # round, noise share
        self._members: list[NDArray[np.bool_]] = []

    def sent(
        self, round_index: int, client: int, segments: Mapping[str, NDArray[np.uint64]]
    ) -> None:
        """See `Watch.sent`: who sends zero sends its noise share."""
        loud = round_index % 2 == 1 and client in self._loud
        taken = sum(index == round_index for index, _ in self._shares)
        if not (self._correlated if loud else taken < _PER_ROUND and len(self._shares) < _SHARES):
            return
        given = self._encoding.contribution(segments, self._rotation(round_index))
        vector = np.rint(self._grid(given, round_index))
        if loud:
            self._sent[client] = vector
        else:
            self._shares.append((round_index, vector))

    def attempted(self, order: Order, attempted: Attempted) -> None:
        """See `Watch.attempted`."""
        outcome, index, sent = attempted.outcome, order.round_index, self._sent
        self._sent = {}
        if outcome.mean is None or outcome.mean.vector is None:
            return
        total = self._grid(outcome.mean.vector * self._encoding.denominator, index)
        known = np.zeros(total.shape)
        for client in sent.keys() & set(outcome.survivors):
            known += sent[client]
        loud = sum(client in self._loud for client in outcome.survivors) if index % 2 else 0
        self._releases.append(Release(index, total, len(outcome.survivors), loud, known))

    def released(self, order: Order, before: PyTree, after: PyTree) -> None:
        """See `Watch.released`: who was invited is all that is noted."""
        del before, after
        members = np.zeros(self._num_clients, dtype=np.bool_)
        members[list(order.invited)] = True
        self._members.append(members)

    def detections(self) -> tuple[detectors.Detection, ...]:
        """Runs every detector that has something to look at."""
        mechanism = self._mechanism
        if isinstance(mechanism, dp.matrix.CorrelatedMechanism):
            found = probe_correlated(mechanism, self._releases, self._direction(0))
            return (*found, *self._cohorts())
        found = probe_independent(mechanism, self._releases, self._direction)
        share_variance = mechanism.noise_variance(1) - mechanism.noise_variance(0)
        if share_variance and len(self._shares) > 1:
            shares = np.stack([share for _, share in self._shares])
            variances = [share_variance] * len(shares)
            found.append(detectors.dependent_noise(shares, variances, "clients"))
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
        resolved = self._resolved
        return rotation_of(self._encoding, resolved.messages.dim, resolved.plan.seed, round_index)

    def _direction(self, round_index: int) -> FloatArray:
        turned = self._rotation(round_index).apply(self._vector.astype(np.float64))
        return turned / float(np.linalg.norm(turned))

    def _grid(self, vector: FloatArray, round_index: int) -> FloatArray:
        """A sum as it was before the server rotated it back, grid units."""
        return self._rotation(round_index).apply(vector) / self._mechanism.granularity


def probe(
    plan: Plan,
    model: Model,
    data: FederatedDataset,
    *,
    significance: float,
    execution: Execution = Execution(),
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
