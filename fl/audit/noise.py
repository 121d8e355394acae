"""What the detectors of `dp.detectors` say of the sums that a probe saw.

docs/privacy.md, "Probing a run". All vectors are in grid units, before the server rotates back.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

import dp
from dp import detectors

FloatArray = NDArray[np.float64]
Independent = dp.DistributedMechanism | dp.PoissonBinomialMechanism | dp.CentralMechanism


@dataclass(frozen=True)
class Release:
    """What the auditor knows of a round that released a sum.

    Attributes:
        index: of the round.
        total: the noised sum, float64[d].
        clients: that are in it.
        loud: those of them that sent the common vector.
        sent: the sum of what the loud sent, float64[d], integers, where the noise is correlated.
    """

    index: int
    total: FloatArray
    clients: int
    loud: int
    sent: FloatArray


def probe_independent(
    mechanism: Independent, releases: Sequence[Release], direction: Callable[[int], FloatArray]
) -> list[detectors.Detection]:
    """Detections where rounds have noise of their own.

    Args:
        mechanism: what is claimed.
        releases: of a run; without loud clients a sum is noise and nothing else.
        direction: round -> the common vector as it is summed, of norm 1.
    """
    silent = [release for release in releases if not release.loud]
    loud = [release for release in releases if release.loud]
    found: list[detectors.Detection] = []
    if silent:
        noise = np.stack([release.total for release in silent])
        variances = [mechanism.noise_variance(release.clients) for release in silent]
        found.append(detectors.too_little_noise(noise, variances))
        if len(noise) > 1:
            found.append(detectors.dependent_noise(noise, variances, "rounds"))
    if loud:
        projection = sum(float(release.total @ direction(release.index)) for release in loud)
        bound = mechanism.reach * sum(release.loud for release in loud)
        variance = sum(mechanism.noise_variance(release.clients) for release in loud)
        found.append(detectors.beyond_bound(projection, bound, variance))
    return found


def probe_correlated(
    mechanism: dp.matrix.CorrelatedMechanism, releases: Sequence[Release], direction: FloatArray
) -> list[detectors.Detection]:
    """Detections where the noise of a round depends on that of others.

    What was sent is taken off, which leaves the errors; whitening makes independent noise of them.
    The clip is tested along the whitened sums, weighted so that longer inputs show best.

    Args:
        mechanism: what is claimed.
        releases: of a run; used up to the first round that released nothing.
        direction: the common vector as it is summed, of norm 1; all rounds share one rotation.
    """
    rows = [release for row, release in enumerate(releases) if release.index == row]
    if not rows:
        return []
    totals = np.stack([release.total for release in rows])
    errors = np.rint(totals - np.stack([release.sent for release in rows])).astype(np.int64)
    matrix, unit_variances, slack = mechanism.strategy.whitening(errors)
    noise, variances = matrix @ errors, unit_variances * mechanism.noise_variance
    claimed, moved = variances.tolist(), slack.tolist()
    found = [detectors.too_little_noise(noise, claimed, moved)]
    if len(rows) > 1:
        found.append(detectors.dependent_noise(noise, claimed, "rounds", moved))
    reach = mechanism.reach * np.array([float(release.loud) for release in rows])
    if reach.any():
        weights = matrix @ reach / variances
        weights /= np.linalg.norm(weights)
        bound = float(np.abs(weights @ matrix) @ reach)
        bound += float(np.abs(weights) @ slack) * float(np.abs(direction).sum())
        projection = float(weights @ (matrix @ (totals @ direction)))
        found.append(detectors.beyond_bound(projection, bound, float(weights**2 @ variances)))
    return found
