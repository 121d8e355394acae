"""Shared type names of the training core, and the run seed's derivation tree.

Shapes: K clients in flight, S steps, B batch, d parameters, N examples.
"""

import hashlib
from collections.abc import Callable, Mapping
from enum import IntEnum
from typing import Any, TypeAlias

import jax
import numpy as np
from numpy.typing import NDArray

import dp

PyTree: TypeAlias = Any
Batch: TypeAlias = Mapping[str, jax.Array]  # fields [B, ...] and "mask": f32[B]
MetricSums: TypeAlias = Mapping[str, tuple[jax.Array, jax.Array]]  # name -> (sum, count)
PARTS = ("train", "encode", "protocol", "decode")  # of a round, as its seconds are told apart

RandomBytes: TypeAlias = Callable[[int], bytes]  # os.urandom's meaning
FloatVector: TypeAlias = NDArray[np.float32]
Mechanism: TypeAlias = (
    dp.DistributedMechanism
    | dp.PoissonBinomialMechanism
    | dp.CentralMechanism
    | dp.matrix.CorrelatedMechanism
)


class Purpose(IntEnum):
    """What a derived stream is for; two purposes never share a stream."""

    PARAMS = 1
    TRAINING = 2
    BATCHES = 3
    COHORT = 4
    DROPOUT = 5
    ROTATION = 6
    ENCODING = 7
    CENTRAL_NOISE = 8
    PROTOCOL = 9
    SESSION = 10
    RECORDS = 11


def jax_key(seed: int, purpose: Purpose, round_index: int = 0) -> jax.Array:
    """Returns the JAX key of (seed, purpose, round); fold in the client id for one client."""
    key = jax.random.key(seed % 2**32)
    key = jax.random.fold_in(key, seed >> 32)
    return jax.random.fold_in(jax.random.fold_in(key, int(purpose)), round_index)


def generator(seed: int, purpose: Purpose, *labels: int) -> np.random.Generator:
    """Returns numpy's generator of (seed, purpose, labels): for what nobody claims secret."""
    return np.random.default_rng([seed, int(purpose), *labels])


def seed_bytes(seed: int, purpose: Purpose, *labels: int) -> bytes:
    """Returns 32 bytes derived from (seed, purpose, labels); no more secret than the seed."""
    text = "/".join(str(part) for part in ("fl", seed, int(purpose), *labels))
    return hashlib.sha256(text.encode()).digest()
