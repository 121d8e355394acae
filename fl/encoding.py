"""What a client puts into each masked segment, and what the server reads out of their sums.

Integers from here on: under Ideal and Secure no float leaves a client. A private plan has one
segment, the noised update; every client has weight 1. Without privacy, weight and clip count ride
in segments of their own, inside the mask.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

import dp
from fl.types import FloatVector, Mechanism, Purpose, RandomBytes, seed_bytes

UPDATE, WEIGHT, CLIPPED = "update", "weight", "clipped"
# Without noise the grid costs bytes alone: 2^18 steps per max_norm keep rounding far below training
# noise and a cohort of thousands under 32 bits.
_STEPS_PER_NORM = 2**18
_ROUNDING_BIAS, _MAX_TRIES = math.exp(-0.5), 32  # utility alone, at this step size hardly any

Noise = Callable[[], NDArray[np.int64]]  # what the server adds to the sum of a round, once
Streams = Callable[[Purpose], RandomBytes]  # one party's byte source for one purpose and round


class ClientValue(NamedTuple):
    """One client's contribution before encoding.

    Attributes:
        vector: f32[d], within the norm bound, finite.
        weight: 1 in a private plan; else 0..max_weight.
        clipped: whether the bound shortened it.
    """

    vector: FloatVector
    weight: int
    clipped: bool


class RecordValue(NamedTuple):
    """A client's contribution where the unit of privacy is one record.

    Attributes:
        rows: f32[d] of each record that joined, within the norm bound; made as they are read.
    """

    rows: Iterable[FloatVector]


class Mean(NamedTuple):
    """What the server reads out of the sums.

    Attributes:
        vector: float64[d], or None when every weight is 0.
        counts: further sums that were unmasked, by name.
    """

    vector: NDArray[np.float64] | None
    counts: Mapping[str, int]


def rotation_of(encoding: "Encoding", dim: int, seed: int, round_index: int) -> dp.Rotation:
    """Returns the rotation of a round; correlated noise cancels only where all rounds share one."""
    correlated = isinstance(encoding, PrivateEncoding) and isinstance(
        encoding.mechanism, dp.matrix.CorrelatedMechanism
    )
    return round_rotation(dim, seed, 0 if correlated else round_index)


def round_rotation(dim: int, seed: int, round_index: int) -> dp.Rotation:
    """Returns the public rotation of a round; its signs need no secrecy, only independence."""
    return dp.Rotation.from_seed(dim, seed_bytes(seed, Purpose.ROTATION, round_index))


@dataclass(frozen=True)
class PrivateEncoding:
    """The noised update, alone.

    Attributes:
        mechanism: what is added, by the clients or by the server, or the coins that are tossed.
        denominator: what the sum is divided by: the clients invited, or the records expected.
    """

    mechanism: Mechanism
    denominator: float

    @property
    def segments(self) -> dict[str, tuple[int, int]]:
        """Segment name -> (length, modulus bits)."""
        return {UPDATE: (self._sized.dim, self.mechanism.modulus_bits)}

    @property
    def _sized(self) -> dp.Discretizer | dp.PoissonBinomialMechanism:
        """What knows the vector's length and turns sums into floats."""
        if isinstance(self.mechanism, dp.PoissonBinomialMechanism):
            return self.mechanism
        return self.mechanism.discretizer

    def encode(
        self, value: ClientValue | RecordValue, rotation: dp.Rotation, streams: Streams
    ) -> dict[str, NDArray[np.uint64]]:
        """Returns the client's segments: rounded, noised where noise is local, wrapped.

        Every unit is rounded on its own, so that one unit moves the integers by no more than its
        own bound. A vector that cannot be encoded counts as zero, and the client adds its full
        noise share: whether a client answers must not depend on its data.
        """
        rng = streams(Purpose.ENCODING)
        if isinstance(self.mechanism, dp.PoissonBinomialMechanism):
            return {
                UPDATE: dp.wrap(
                    _tossed(self.mechanism, value, rotation, rng), self.mechanism.modulus_bits
                )
            }
        rows = value.rows if isinstance(value, RecordValue) else (value.vector,)
        total = np.zeros(self.mechanism.discretizer.dim, dtype=np.int64)
        for row in rows:
            try:
                total += self.mechanism.discretizer.encode(row, rotation, rng)
            except (dp.NonFiniteError, dp.RoundingError):
                continue
        if isinstance(self.mechanism, dp.DistributedMechanism):
            total += self.mechanism.sample_share(rng)
        return {UPDATE: dp.wrap(total, self.mechanism.modulus_bits)}

    def contribution(
        self, segments: Mapping[str, NDArray[np.uint64]], rotation: dp.Rotation
    ) -> NDArray[np.float64]:
        """Returns what one client's segments add to the sum that `decode` divides; float64[d]."""
        sent = dp.unwrap(segments[UPDATE], self.mechanism.modulus_bits)
        return self._sized.decode(sent, rotation)

    def decode(
        self,
        sums: Mapping[str, NDArray[np.uint64]],
        rotation: dp.Rotation,
        invited: int,
        streams: Streams,
        correlated: Noise | None = None,
    ) -> Mean:
        """Returns sum / denominator, after central noise where the mechanism adds it.

        `correlated` gives the round's noise where that depends on other rounds.

        The denominator is public: dividing by the survivors would make the noise depend on them.
        """
        del invited
        total = dp.unwrap(sums[UPDATE], self.mechanism.modulus_bits)
        if isinstance(self.mechanism, dp.CentralMechanism):
            total = total + self.mechanism.sample_noise(streams(Purpose.CENTRAL_NOISE))
        elif isinstance(self.mechanism, dp.matrix.CorrelatedMechanism):
            if correlated is None:
                raise TypeError("a sum without its noise")  # is never released
            total = total + correlated()
        return Mean(self._sized.decode(total, rotation) / self.denominator, {})


def _tossed(
    mechanism: dp.PoissonBinomialMechanism,
    value: ClientValue | RecordValue,
    rotation: dp.Rotation,
    rng: RandomBytes,
) -> NDArray[np.int64]:
    """A client's coins; fair ones in place of a vector that cannot be encoded."""
    if isinstance(value, RecordValue):
        raise TypeError("records toss no coins")  # no plan has both
    try:
        return mechanism.encode(value.vector, rotation, rng)
    except (dp.NonFiniteError, dp.RoundingError):
        return mechanism.encode(np.zeros(mechanism.dim), rotation, rng)


@dataclass(frozen=True)
class UnnoisedEncoding:
    """A weighted update without noise, with its weight and clip bit as hidden segments.

    Attributes:
        discretizer: bounds and rounds the update.
        max_weight: the weight that stands for 1.
        invited: n, which sizes the moduli.
    """

    discretizer: dp.Discretizer
    max_weight: int
    invited: int

    @property
    def segments(self) -> dict[str, tuple[int, int]]:
        """Segment name -> (length, modulus bits)."""
        return {
            UPDATE: (self.discretizer.dim, self._update_bits),
            WEIGHT: (1, (self.invited * self.max_weight).bit_length()),
            CLIPPED: (1, self.invited.bit_length()),
        }

    @property
    def _update_bits(self) -> int:
        return dp.choose_modulus_bits(self.invited, self.discretizer.linf, 0)

    def encode(
        self, value: ClientValue | RecordValue, rotation: dp.Rotation, streams: Streams
    ) -> dict[str, NDArray[np.uint64]]:
        """Returns the client's segments; weights above max_weight count as max_weight."""
        if isinstance(value, RecordValue):
            raise TypeError("records without noise")  # no plan has both
        weight = min(value.weight, self.max_weight)
        scaled = value.vector.astype(np.float64) * (weight / self.max_weight)
        encoded = self.discretizer.encode(scaled, rotation, streams(Purpose.ENCODING))
        return {
            UPDATE: dp.wrap(encoded, self._update_bits),
            WEIGHT: np.array([weight], dtype=np.uint64),
            CLIPPED: np.array([value.clipped], dtype=np.uint64),
        }

    def decode(
        self,
        sums: Mapping[str, NDArray[np.uint64]],
        rotation: dp.Rotation,
        invited: int,
        streams: Streams,
        correlated: Noise | None = None,
    ) -> Mean:
        """Returns sum / total weight."""
        del invited, streams, correlated
        counts = {"clipped_clients": int(sums[CLIPPED][0])}
        weight = int(sums[WEIGHT][0]) / self.max_weight
        if weight == 0:
            return Mean(None, counts)
        total = dp.unwrap(sums[UPDATE], self._update_bits)
        return Mean(self.discretizer.decode(total, rotation) / weight, counts)


Encoding = PrivateEncoding | UnnoisedEncoding


def unnoised_encoding(dim: int, max_norm: float, max_weight: int, invited: int) -> UnnoisedEncoding:
    """Returns the encoding of a plan without privacy.

    Args:
        dim: d.
        max_norm: larger updates are scaled down and counted.
        max_weight: 1 for uniform weights, else the largest number of examples that counts.
        invited: n.
    """
    discretizer = dp.Discretizer(
        dim, max_norm, max_norm / _STEPS_PER_NORM, _ROUNDING_BIAS, _MAX_TRIES
    )
    return UnnoisedEncoding(discretizer, max_weight, invited)
