"""choose_params: the sparsest graph and a threshold that keep a run private and alive."""

import math
import os
from collections.abc import Callable, Mapping, Sequence

from secureagg import _tails
from secureagg._tails import Model
from secureagg.errors import ParamsError
from secureagg.params import (
    Params,
    Rate,
    Segment,
    as_int,
    check_rate,
    check_server,
    checked_segments,
    floor_of,
)

_EXACT_DEGREES = 1 << 15
"""Below this the smallest degree is found exactly; beyond it to within a few steps of rounding."""


def choose_params(
    num_clients: int,
    segments: Sequence[Segment] | Mapping[str, tuple[int, int]],
    *,
    corrupt: Rate,
    dropout: Rate,
    server: str,
    security_bits: int = 40,
    correctness_bits: int = 30,
    rounds: int,
    session_id: bytes | None = None,
    graph_seed: bytes | None = None,
    rule: str = "default",
) -> Params:
    """Chooses degree and threshold for a run, for round 0, attempt 0.

    Args:
        num_clients: n.
        segments: Segments, or {name: (length, modulus_bits)}.
        corrupt: fraction of clients that may side with the server.
        dropout: fraction that may be gone at any stage.
        server: "semi_honest" or "malicious".
        security_bits: privacy fails with probability at most 2^-security_bits over the run.
        correctness_bits: so do aborts within the dropout allowed.
        rounds: rounds of the run.
        session_id: None draws 16 fresh bytes.
        graph_seed: None takes the complete graph; else the smallest even degree that leaves a
            threshold, or the complete graph where none below n - 1 does.
        rule: "default" takes the largest threshold, with probabilities over the whole run;
            "published" the papers' conditions for one round and the smallest threshold (with a
            malicious server those of a semi-malicious one). Where that falls short over the run,
            or of this package's conditions, security_bits and correctness_bits of the result say
            what is attained.

    Returns:
        The parameters, with min_survivors = n - floor(dropout n).

    Raises:
        ParamsError: naming the field; where nothing is feasible, which of corrupt, dropout and
            num_clients is to blame.
    """
    if rule not in ("default", "published"):
        raise ParamsError("rule", rule, "'default' or 'published'")
    n = as_int("num_clients", num_clients, 2, 1 << 30)
    as_int("rounds", rounds, 1, (1 << 32) - 1)
    check_server(server)
    malicious = server == "malicious"
    c, dropped = _feasible_counts(n, corrupt, dropout, malicious=malicious)
    bits = (
        as_int("security_bits", security_bits, 0, 256),
        as_int("correctness_bits", correctness_bits, 0, 256),
    )
    union = 1 if rule == "published" else rounds
    low = _tails.smallest_complete_threshold(n, c, malicious=malicious)
    degree, high = n - 1, n - dropped - 1
    if graph_seed is not None:
        model = _model(malicious=malicious, published=rule == "published")
        sparse = _smallest_degree(n, c, dropped, bits, union, model)
        degree, low, high = sparse or (degree, low, high)
    threshold = low if rule == "published" else high
    if rule == "published":
        reached = _tails.failure(n, c, dropped, degree, threshold, rounds, malicious=malicious)
        bits = (_attained(bits[0], reached.privacy), _attained(bits[1], reached.correctness))
    return Params(
        num_clients=n,
        segments=checked_segments(segments),
        degree=degree,
        threshold=threshold,
        min_survivors=n - dropped,
        corrupt=corrupt,
        dropout=dropout,
        rounds=rounds,
        server=server,
        security_bits=bits[0],
        correctness_bits=bits[1],
        session_id=os.urandom(16) if session_id is None else session_id,
        round_index=0,
        attempt=0,
        graph_seed=graph_seed,
    )


def _model(*, malicious: bool, published: bool) -> Model:
    if not malicious:
        return Model.SEMI_HONEST
    return Model.SEMI_MALICIOUS if published else Model.MALICIOUS


def _feasible_counts(n: int, corrupt: Rate, dropout: Rate, *, malicious: bool) -> tuple[int, int]:
    """(c, D) that leave two honest survivors and a threshold of the complete graph."""
    c = floor_of(check_rate("corrupt", corrupt), n)
    dropped = floor_of(check_rate("dropout", dropout), n)
    gone, rule = dropped, "c + D + 2 <= n"
    if malicious:  # floor((n + c) / 2) + 1 <= n - D - 1
        gone, rule = 2 * dropped + 1, "c + 2 D + 3 <= n"
    if c + gone + 2 <= n:
        return c, dropped
    takes = f"{rule}; here c={c}, D={dropped}, n={n}"
    if (2 if not malicious else 3) > n:
        raise ParamsError("num_clients", n, takes)
    field, got = ("corrupt", corrupt) if c >= gone else ("dropout", dropout)
    raise ParamsError(field, got, takes)


def _smallest_degree(
    n: int, c: int, dropped: int, bits: tuple[int, int], rounds: int, model: Model
) -> tuple[int, int, int] | None:
    """(degree, smallest, largest threshold) of the sparsest ring, None if there is none.

    With k + 2 draws instead of k, each end of the threshold range moves by 0, 1 or 2. So a range
    that misses by m stays empty for the next m/2 - 1 even degrees, which are skipped.
    """
    log_union = math.log(rounds)
    events = 2 if model is Model.MALICIOUS else 1  # 3 or 2 of them share 2^-security_bits
    log_privacy = -(bits[0] + events) * math.log(2) - log_union
    log_correctness = -bits[1] * math.log(2) - log_union

    def thresholds(k: int) -> tuple[int, int]:
        return _tails.threshold_range(
            n,
            c,
            dropped,
            k,
            model=model,
            log_privacy=log_privacy,
            log_correctness=log_correctness,
        )

    k = 2
    while k < min(n - 1, _EXACT_DEGREES):
        low, high = thresholds(k)
        if low <= high and _tails.log_disconnected(n, c + dropped, k) <= log_privacy:
            return k, low, high
        k += 2 * max(1, (low - high + 1) // 2)
    return _bisected(thresholds, k // 2, n // 2 - 1)


def _bisected(
    thresholds: Callable[[int], tuple[int, int]], first: int, last: int
) -> tuple[int, int, int] | None:
    """(degree, thresholds) for half degrees in first..last, where the range opens up as they grow.

    So many neighbours connect the ring with certainty enough: (1 - h)^32768 for h honest survivors.
    """
    if first > last or _gap(thresholds(2 * last)) > 0:
        return None
    while first < last:
        middle = (first + last) // 2
        if _gap(thresholds(2 * middle)) > 0:
            first = middle + 1
        else:
            last = middle
    return 2 * last, *thresholds(2 * last)


def _gap(thresholds: tuple[int, int]) -> int:
    return thresholds[0] - thresholds[1]


def _attained(bits: int, probability: float) -> int:
    return bits if probability <= 2.0**-bits else math.floor(-math.log2(probability))
