"""predict_cost: what a round will cost, from counted operations and rates of this machine.

Counts are exact: they follow from graph and dropouts alone, and so do the bytes. Seconds are counts
times rates. The rates of what happens per client and per edge come from two small rounds, as a line
through two numbers of neighbours; those of masks, packing, sharing and signatures from single calls
at the sizes in question. All but the larger round are the fastest of a few.
"""

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from secureagg import masking, shamir
from secureagg.context import Round
from secureagg.cost import RoundCost
from secureagg.messages import HEADER_BYTES, KeyBundle, SealedShares, UnmaskShares
from secureagg.params import Params, Segment
from secureagg.prg import byte_stream
from secureagg.primitives import KEY_BYTES, SIGNATURE_BYTES, IdentityKey, agreement, is_signed
from secureagg.primitives import public_key as public_key_of
from secureagg.recovery import needed_dealers
from secureagg.simulate import Sets, run_round, sets_of

_SMALL, _LARGE = 16, 112  # neighbours in the two rounds
# The large round is run once: a pair's rate grows with how many there are, so their number counts
# more than a second look, and 12,656 pairs once take what 4,160 take three times.
_ROUNDS = {_SMALL: 3, _LARGE: 1}
_REPEATS = 3
_SEED = bytes(range(KEY_BYTES))  # nothing here is secret


@dataclass(frozen=True)
class Counts:
    """How many clients, edges and secrets a round has to do with.

    Attributes:
        clients: by stage, who sends its message.
        edges: by stage, neighbours that those messages (or what they answer) have to do with.
        recovered: secrets rebuilt.
        held: shares there are of each, on average.
        cut_edges: pairs of a survivor and a dropped neighbour in shared.
    """

    clients: Mapping[str, int]
    edges: Mapping[str, int]
    recovered: int
    held: float
    cut_edges: int


@dataclass(frozen=True)
class _Line:
    """Seconds per client by stage: fixed, and for each neighbour."""

    fixed: Mapping[str, float]
    per_edge: Mapping[str, float]

    def seconds(self, counts: Counts) -> dict[str, float]:
        return {
            stage: self.fixed[stage] * counts.clients[stage]
            + self.per_edge[stage] * counts.edges[stage]
            for stage in self.fixed
        }


def predict_cost(
    params: Params,
    dropouts: Mapping[str, Collection[int]],
    *,
    client_ids: Collection[int] | None = None,
) -> RoundCost:
    """Predicts `run_round(...).cost` without running the round.

    Args:
        params: the parameters.
        dropouts: stage to the clients that never answer from that stage on.
        client_ids: the invited ids; None takes 0..num_clients - 1.

    Returns:
        Bytes, exact; seconds of one core, all clients together. Rates are measured on the first
        call for a shape, which takes seconds, and remembered.

    Raises:
        TooFewClientsError: the round would.
        MisuseError: the arguments do not fit.
    """
    round_, sets = sets_of(params, dropouts, client_ids)
    counts = count(params, round_, sets)
    up, down = _bytes(params, round_, sets)
    client, server = _rounds_lines(params.server)
    client_seconds, server_seconds = client.seconds(counts), server.seconds(counts)
    _add_vectors(params, counts, client_seconds, server_seconds)
    _add_sharing(params, counts, client_seconds, server_seconds)
    return RoundCost(params.num_clients, client_seconds, server_seconds, up, down)


def count(params: Params, round_: Round, sets: Sets) -> Counts:
    """Counts the operations of a round in which these sets answer."""
    near = round_.graph.count_neighbours
    advertised, shared = near(sets.advertised), near(sets.shared)
    needed = needed_dealers(round_, sets.shared, sets.survivors)
    clients = {
        "advertise_keys": sets.asked,
        "share_keys": sets.answered,
        "mask_input": sets.survivors,
        "check_consistency": sets.survivors,
        "unmask": sets.revealed,
    }
    edges = {
        "advertise_keys": int(advertised[sets.advertised].sum()),
        "share_keys": int(advertised[sets.answered].sum()),
        "mask_input": int(shared[sets.survivors].sum()),
        "check_consistency": int(sets.signers.sum()),
        "unmask": int(shared[sets.revealed].sum()),
    }
    return Counts(
        clients={stage: int(flags.sum()) for stage, flags in clients.items()},
        edges=edges,
        recovered=int(needed.sum()),
        held=float(near(sets.revealed)[needed].mean()),
        cut_edges=int(near(sets.survivors)[needed & ~sets.survivors].sum()),
    )


def _bytes(params: Params, round_: Round, sets: Sets) -> tuple[dict[str, int], dict[str, int]]:
    """Upload and download by stage."""
    near = round_.graph.count_neighbours
    n, head = params.num_clients, HEADER_BYTES
    bundle = KeyBundle.len_bytes(signed=params.malicious)
    advertised, shared = near(sets.advertised), near(sets.shared)
    entry = 4 + SealedShares.len_bytes()
    statuses = int(sets.survivors.sum()) * (head + (n + 3) // 4)
    unmask = [head + UnmaskShares.len_bytes(m=m) for m in shared[sets.revealed].tolist()]
    up = {
        "advertise_keys": int(sets.asked.sum()) * (head + bundle),
        "share_keys": int((head + entry * advertised[sets.answered]).sum()),
        "mask_input": int(sets.survivors.sum()) * (head + masking.vector_bytes(params)),
        "check_consistency": int(sets.signers.sum()) * (head + SIGNATURE_BYTES),
        "unmask": sum(unmask),
    }
    quorum = int(sets.informed.sum()) * (head + params.threshold * (4 + SIGNATURE_BYTES))
    down = {
        "advertise_keys": int((head + (4 + bundle) * advertised[sets.advertised]).sum()),
        "share_keys": int((head + (n + 7) // 8 + entry * shared[sets.shared]).sum()),
        "mask_input": statuses,
        "check_consistency": quorum,
        "unmask": 0,
    }
    return {s: up[s] for s in params.stages}, {s: down[s] for s in params.stages}


@lru_cache(maxsize=2)
def _rounds_lines(server: str) -> tuple[_Line, _Line]:
    """Clients' and server's seconds per client and neighbour, with vectors and thresholds of 1."""
    costs = {k: _small_round(server, k) for k in (_SMALL, _LARGE)}
    lines = []
    for role in (0, 1):
        small, large = costs[_SMALL][role], costs[_LARGE][role]
        slope = {s: max(0.0, (large[s] - small[s]) / (_LARGE - _SMALL)) for s in small}
        fixed = {s: max(0.0, small[s] - _SMALL * slope[s]) for s in small}
        lines.append(_Line(fixed, slope))
    if server == "malicious":  # the edges of this stage are signatures, not neighbours
        sign, verify = _signature_seconds()
        for line, rate in zip(lines, (sign, verify), strict=True):
            per_edge, fixed = dict(line.per_edge), dict(line.fixed)
            per_edge["check_consistency"] = rate
            fixed["check_consistency"] = max(0.0, fixed["check_consistency"] - rate)
            lines[lines.index(line)] = _Line(fixed, per_edge)
    return lines[0], lines[1]


def _small_round(server: str, k: int) -> tuple[dict[str, float], dict[str, float]]:
    """Seconds per client by stage, for clients and server, in the complete graph of k + 1."""
    params = Params(
        num_clients=k + 1,
        segments=(Segment("x", 1, 32),),
        degree=k,
        threshold=1,
        min_survivors=2,
        corrupt=0,
        dropout=0,
        rounds=1,
        server=server,
        security_bits=0,
        correctness_bits=0,
        session_id=b"cost",
        round_index=0,
        attempt=0,
    )
    vectors = {i: np.zeros(1, dtype=np.uint32) for i in range(k + 1)}
    runs = [run_round(params, vectors, rand=byte_stream(_SEED)).cost for _ in range(_ROUNDS[k])]
    client, server_side = (
        {s: min(seconds[s] for seconds in found) / (k + 1) for s in params.stages}
        for found in ([r.client_seconds for r in runs], [r.server_seconds for r in runs])
    )
    return client, server_side


def _add_vectors(
    params: Params, counts: Counts, client: dict[str, float], server: dict[str, float]
) -> None:
    """Adds what vectors of the real length take, beyond the one word of the small rounds."""
    copied, packed, added, streams = _vector_seconds(params.segments)
    senders, edges = counts.clients["mask_input"], counts.edges["mask_input"]
    client["mask_input"] += senders * (2 * copied + packed) + (senders + edges) * streams
    server["mask_input"] += senders * added
    server["unmask"] += senders * streams
    server["unmask"] += counts.cut_edges * (streams + _edge_seconds())


def _add_sharing(
    params: Params, counts: Counts, client: dict[str, float], server: dict[str, float]
) -> None:
    """Adds what thresholds above 1 take: polynomials, the quorum, rebuilding, the surplus."""
    dealers, t = max(1, counts.clients["share_keys"]), params.threshold
    k = max(1, round(counts.edges["share_keys"] / dealers))
    client["share_keys"] += dealers * max(0.0, _split_seconds(k, t) - _split_seconds(k, 1))
    if params.malicious:
        client["unmask"] += counts.clients["unmask"] * (t - 1) * _signature_seconds()[1]
    complete = params.degree == params.num_clients - 1
    rows = min(counts.recovered, t + 1) if complete else counts.recovered
    held, n = round(counts.held), params.num_clients
    server["unmask"] += _combine_seconds(t, rows, counts.recovered, t + 1 if complete else n)
    if held > t:
        points = held + 1 if complete else n
        server["unmask"] += _surplus_seconds(held, t, counts.recovered, points)


def _fastest(call: Callable[[], object], times: int = 1) -> float:
    """Seconds of one call: the fastest of a few runs of `times` calls."""
    best = float("inf")
    for _ in range(_REPEATS):
        begin = time.process_time()
        for _ in range(times):
            call()
        best = min(best, (time.process_time() - begin) / times)
    return best


@lru_cache(maxsize=1)
def _signature_seconds() -> tuple[float, float]:
    """(sign, verify)."""
    key, data = IdentityKey(_SEED), bytes(120)
    signature = key.sign(data)
    verify = _fastest(lambda: is_signed(key.public_key, signature, data), 100)
    return _fastest(lambda: key.sign(data), 100), verify


@lru_cache(maxsize=1)
def _edge_seconds() -> float:
    """An agreement, and the derivation and set-up of a mask of one word."""
    agree, other = agreement(_SEED), public_key_of(_SEED[::-1])
    words = (np.zeros(1, dtype=np.uint32),)
    keys = {0: other, 1: other}

    def masks() -> None:
        info = masking.pairwise_mask_info(bytes(32), 0, 1, keys)
        masking.add_masks(words, [(agree(other), info, True)])

    return _fastest(masks, 100)


@lru_cache(maxsize=64)
def _vector_seconds(segments: tuple[Segment, ...]) -> tuple[float, float, float, float]:
    """(copy, pack, unpack and add, one mask) beyond those of one word."""
    shapes = [(s.length, s.modulus_bits) for s in segments]
    whole, word = _vector_rates(tuple(shapes)), _vector_rates(((1, 32),))
    copied, packed, added, stream = (max(0.0, a - b) for a, b in zip(whole, word, strict=True))
    return copied, packed, added, stream


@lru_cache(maxsize=64)
def _vector_rates(shapes: tuple[tuple[int, int], ...]) -> tuple[float, float, float, float]:
    params = _Shape(tuple(Segment(str(i), *shape) for i, shape in enumerate(shapes)))
    words = masking.zero_words(params)
    packed = masking.pack_vector(params, words)
    masks = [(bytes([i] * KEY_BYTES), b"info", i % 2 == 0) for i in range(16)]

    def add() -> None:
        for total, part in zip(words, masking.unpack_vector(params, packed), strict=True):
            np.add(total, part, out=total)

    times = max(1, min(50, 2_000_000 // len(packed)))
    return (
        _fastest(lambda: [array.copy() for array in words], times),
        _fastest(lambda: masking.pack_vector(params, words), times),
        _fastest(add, times),
        _fastest(lambda: masking.add_masks(words, masks), max(1, times // 16)) / len(masks),
    )


@dataclass(frozen=True)
class _Shape:
    """The one field of Params that packing asks for."""

    segments: tuple[Segment, ...]


@lru_cache(maxsize=64)
def _split_seconds(k: int, t: int) -> float:
    xs = np.arange(1, k + 1)
    return _fastest(lambda: shamir.split((_SEED, _SEED), xs, t, byte_stream(_SEED)), 3)


@lru_cache(maxsize=64)
def _combine_seconds(t: int, rows: int, secrets: int, points: int) -> float:
    """Rebuilding `secrets` secrets from t shares of `rows` different sets of holders."""
    xs = _holders(rows, t, points)
    shares = np.ones((len(xs), t, shamir.LIMBS), dtype=np.uint32)
    sampled = _fastest(lambda: shamir.combine(xs, shares)) * rows / len(xs)
    if secrets == rows:
        return sampled
    same = np.repeat(xs[:1], len(xs), axis=0)
    return sampled + _fastest(lambda: shamir.combine(same, shares)) * (secrets - rows) / len(xs)


@lru_cache(maxsize=64)
def _surplus_seconds(m: int, t: int, secrets: int, points: int) -> float:
    xs = _holders(secrets, m, points)
    shares = np.ones((len(xs), m, shamir.LIMBS), dtype=np.uint32)
    rand = byte_stream(_SEED)
    return _fastest(lambda: shamir.consistent(xs, shares, t, rand)) * secrets / len(xs)


def _holders(rows: int, m: int, points: int) -> NDArray[np.int64]:
    """[G, m] sets of holders out of `points`, different ones if there are as many.

    G makes calls long against their overhead, and short to wait for; it is at most `rows`.
    """
    sampled = min(rows, max(8, 200_000 // m))
    starts = np.arange(sampled) * points // sampled
    return (starts[:, None] + np.arange(m)) % points + 1
