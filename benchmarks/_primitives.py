"""What secure aggregation's primitives take by themselves: the floor of what the protocol takes."""

import functools
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

import secureagg
from benchmarks._timing import cpu_seconds
from secureagg import prg
from secureagg._packing import pack_bits, unpack_bits, word_dtype
from secureagg.primitives import agreement, is_signed, public_key


@dataclass(frozen=True)
class Rates:
    """CPU seconds of each primitive by itself."""

    agree: float
    base: float
    sign: float
    verify: float
    mask: float
    """One key stream of the segments' length, added to a vector."""


def rates_of(params: secureagg.Params) -> Rates:
    """Measures all of them; takes a second or two."""
    secret = bytes(range(32))
    agree, other, key = agreement(secret), public_key(bytes(32)), secureagg.IdentityKey(secret)
    signature = key.sign(secret)
    return Rates(
        agree=cpu_seconds(lambda: agree(other), times=200),
        base=cpu_seconds(lambda: public_key(secret), times=200),
        sign=cpu_seconds(lambda: key.sign(secret), times=200),
        verify=cpu_seconds(lambda: is_signed(key.public_key, signature, secret), times=100),
        mask=sum(_mask(segment) for segment in params.segments),
    )


def _mask(segment: secureagg.Segment) -> float:
    words = np.zeros(segment.length, dtype=word_dtype(segment.modulus_bits))
    streams = [(bytes([i] * 16), bytes(16), True) for i in range(8)]
    return cpu_seconds(lambda: prg.accumulate(words, streams), times=_times(segment)) / 8


def _times(segment: secureagg.Segment) -> int:
    """Calls within one timing: more of short segments."""
    return min(100, max(1, 3_000_000 // segment.length // 8))


def packing(params: secureagg.Params) -> float:
    """Seconds to pack a client's vector into bits and to unpack it: no primitive, but no choice."""
    total = 0.0
    for segment in params.segments:
        bits, times = segment.modulus_bits, _times(segment)
        words = np.zeros(segment.length, word_dtype(bits))
        packed = pack_bits(words, bits)
        total += cpu_seconds(functools.partial(pack_bits, words, bits), times=times)
        unpack = functools.partial(unpack_bits, packed, segment.length, bits)
        total += cpu_seconds(unpack, times=times)
    return total


def by_primitives(
    params: secureagg.Params, dropouts: Mapping[str, Collection[int]], rates: Rates
) -> tuple[float, float]:
    """(all clients', server's) seconds that the counted primitives take by themselves."""
    counts = secureagg.prediction.count(params, *secureagg.simulate.sets_of(params, dropouts, None))
    n, senders = counts.clients["share_keys"], counts.clients["mask_input"]
    shared, masked = counts.edges["share_keys"], counts.edges["mask_input"]
    client = 2 * n * rates.base + (shared + masked) * rates.agree
    client += (senders + masked) * rates.mask
    server = (senders + counts.cut_edges) * rates.mask + counts.cut_edges * rates.agree
    server += senders * rates.mask / 4  # a vector added, without its key stream
    if params.malicious:
        quorum = counts.clients["unmask"] * params.threshold
        client += (n + counts.edges["check_consistency"]) * rates.sign
        client += (shared + quorum) * rates.verify
        server += (n + counts.edges["check_consistency"]) * rates.verify
    return client, server
