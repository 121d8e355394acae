"""Three ways to a mean, one contract: Plain, Ideal, Secure.

`Plain` sums in the open. `Ideal` sums the very integers that the protocol would carry, mod 2^b,
over the very clients that would survive. `Secure` runs the protocol. Ideal and Secure give the
same sums bit for bit, and release or abort alike. Each process of a run sums its own clients; what
travels is one partial sum per process.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fl import secure
from fl._validate import choice_fault, flag_fault, integer_fault, number_fault
from fl.arrays import from_npz, to_npz
from fl.errors import FlError, fault
from fl.group import Group
from fl.privacy import floor_fraction
from fl.types import Purpose, RandomBytes, generator

GRAPHS = ("sparse", "complete")


@dataclass(frozen=True)
class Plain:
    """No masking: the aggregator sees every update. Takes NotPrivate or a central mechanism."""

    def faults(self) -> tuple[str, ...]:
        """Returns what is wrong with the values: there are none."""
        return ()


@dataclass(frozen=True, kw_only=True)
class Masked:
    """What Ideal and Secure share: what the protocol must withstand.

    Attributes:
        corrupt: fraction of every cohort that may collude or add no noise.
        dropout: fraction of every cohort that may leave; below that a round still releases.
        server: "semi_honest" or "malicious": the server that the protocol withstands.
        expected_dropout: for the planned privacy figures; at most dropout, None for the same.
        simulate_dropout: stage -> rate at which clients leave there, drawn from the run seed.
        beyond: let simulate_dropout lose more than `dropout` allows.
        graph: "sparse" or "complete": who masks with whom.
        security_bits: failure to hide at most 2^-security_bits per run.
        correctness_bits: failure to finish within `dropout` at most 2^-correctness_bits per run.
    """

    corrupt: float
    dropout: float
    server: str
    expected_dropout: float | None = None
    simulate_dropout: Mapping[str, float] = field(default_factory=dict)
    beyond: bool = False
    graph: str = "sparse"
    security_bits: int = 40
    correctness_bits: int = 30

    def faults(self) -> tuple[str, ...]:
        """Returns what is wrong with the values."""
        return _masked_faults(self)


@dataclass(frozen=True, kw_only=True)
class Ideal(Masked):
    """The protocol's sum without the protocol: what Secure would compute, computed in the clear.

    The fields are those of `Masked`; `server` is the protocol that it stands for.
    """

    server: str = "semi_honest"


@dataclass(frozen=True, kw_only=True)
class Secure(Masked):
    """Real pairwise masking between real clients and a real server, in one process.

    The fields are those of `Masked`; `server` has no default.
    """


Aggregation = Plain | Ideal | Secure


_FRACTION = "a fraction, at least 0 and below 1"


def _in_unit(value: float) -> bool:
    return 0 <= value < 1


def _masked_faults(masked: Masked) -> tuple[str, ...]:
    found = [
        *number_fault("corrupt", masked.corrupt, _FRACTION, _in_unit),
        *number_fault("dropout", masked.dropout, _FRACTION, _in_unit),
        *choice_fault("graph", masked.graph, GRAPHS),
        *choice_fault("server", masked.server, ("semi_honest", "malicious")),
        *integer_fault("security_bits", masked.security_bits, 0, 128),
        *integer_fault("correctness_bits", masked.correctness_bits, 0, 128),
        *flag_fault("beyond", masked.beyond),
    ]
    if masked.expected_dropout is not None:
        found += number_fault("expected_dropout", masked.expected_dropout, _FRACTION, _in_unit)
    if not found and (masked.expected_dropout or 0.0) > masked.dropout:
        found.append(
            fault(
                "expected_dropout", masked.expected_dropout, f"at most dropout ({masked.dropout})"
            )
        )
    return (*found, *_rate_faults(masked.simulate_dropout))


def _rate_faults(rates: object) -> tuple[str, ...]:
    if not isinstance(rates, Mapping):
        return (fault("simulate_dropout", rates, "{stage: rate}"),)
    found: list[str] = []
    for stage, rate in rates.items():
        found += choice_fault("simulate_dropout", stage, secure.STAGES)
        found += number_fault(f"simulate_dropout[{stage}]", rate, _FRACTION, _in_unit)
    return tuple(found)


def draw_dropouts(
    masked: Masked, client_ids: Sequence[int], seed: int, round_index: int
) -> dict[str, tuple[int, ...]]:
    """Draws who leaves at which stage of a round, from the run seed.

    Every client that is still there leaves a stage with that stage's rate. Unless `beyond`, a
    random part of those who would leave stays, so that at most floor(dropout n) are lost.
    """
    rng = generator(seed, Purpose.DROPOUT, round_index)
    leaves_at: dict[int, str] = {}
    for stage in secure.STAGES:
        rate = masked.simulate_dropout.get(stage, 0.0)
        coins = rng.random(len(client_ids))
        for client, coin in zip(client_ids, coins.tolist(), strict=True):
            if coin < rate:
                leaves_at.setdefault(client, stage)
    limit = floor_fraction(masked.dropout, len(client_ids))
    gone = np.array(sorted(leaves_at), dtype=np.int64)
    if not masked.beyond and len(gone) > limit:
        gone = rng.permutation(gone)[:limit]
    return {
        stage: tuple(sorted(c for c in gone.tolist() if leaves_at[c] == stage))
        for stage in secure.STAGES
    }


def lost_before_masking(dropouts: secure.Dropouts) -> frozenset[int]:
    """Returns the clients that are gone before they would send a masked vector."""
    before = secure.STAGES[: secure.STAGES.index("mask_input")]
    return frozenset(client for stage in before for client in dropouts.get(stage, ()))


class Aggregated(NamedTuple):
    """The sums of one attempt.

    Attributes:
        sums: segment name -> uint64[length], mod 2^b.
        survivors: whose vectors are in them, ascending.
        cost: what the protocol cost, where it ran.
        attestation: what witnesses signed of it, as `secureagg.Attestation` writes it; with a
            malicious server only.
    """

    sums: secure.SegmentValues
    survivors: tuple[int, ...]
    cost: secure.RoundCost | None
    attestation: bytes | None = None


def modular_sum(
    segments: Mapping[str, tuple[int, int]],
    values: Iterable[tuple[int, secure.SegmentValues]],
) -> dict[str, NDArray[np.uint64]]:
    """Returns the sums of (client, segments) mod 2^b, one vector in memory at a time."""
    sums = {name: np.zeros(length, dtype=np.uint64) for name, (length, _) in segments.items()}
    for _, vectors in values:
        for name, vector in vectors.items():
            sums[name] += vector  # mod 2^64, of which 2^b is a divisor
    return _reduced(segments, sums)


def _reduced(
    segments: Mapping[str, tuple[int, int]], sums: dict[str, NDArray[np.uint64]]
) -> dict[str, NDArray[np.uint64]]:
    for name, (_, bits) in segments.items():
        sums[name] &= np.uint64((1 << bits) - 1)
    return sums


class Attempt(NamedTuple):
    """One attempt at a round, as an aggregation sees it.

    Attributes:
        params: of the protocol; None under Plain.
        client_ids: the invited, ascending.
        dropouts: stage -> clients that never answer from that stage on.
        values: called once with the clients here whose segments are summed: yields them, in any
            order.
        rand_of: client id -> the source of its keys in the protocol.
        group: the processes.
        before_release: called in process 0 with the survivors, before there is a sum.
    """

    params: secure.Params | None
    client_ids: Sequence[int]
    dropouts: secure.Dropouts
    values: Callable[[Sequence[int]], Iterable[tuple[int, secure.SegmentValues]]]
    rand_of: Callable[[int], RandomBytes]
    group: Group
    before_release: Callable[[tuple[int, ...]], None]


def expected_survivors(attempt: Attempt) -> tuple[int, ...]:
    """Returns whose updates will be summed, before anything runs.

    Raises:
        TooFewClientsError: the attempt will abort.
    """
    if attempt.params is None:
        return tuple(attempt.client_ids)
    return secure.survivors_of(attempt.params, attempt.client_ids, attempt.dropouts)


def _foretold(attempt: Attempt) -> tuple[int, ...] | None:
    try:
        return expected_survivors(attempt)
    except secure.TooFewClientsError:
        return None


def _protocol(
    params: secure.Params, attempt: Attempt, expected: tuple[int, ...] | None
) -> Aggregated | None:
    def before_unmasking(survivors: tuple[int, ...]) -> None:
        if expected is None:
            return  # it will abort: nothing is unmasked
        if survivors != expected:
            raise FlError(f"survivors: got {survivors}; takes those foretold, {expected}")
        # On record before the server could unmask anything: a crash may over-count, never under.
        attempt.before_release(survivors)

    result = secure.masked_sum(
        params, attempt.client_ids, attempt.dropouts, attempt.values, attempt.rand_of,
        attempt.group, before_unmasking,
    )  # fmt: skip
    if result is None:
        return None
    signed = None if result.attestation is None else result.attestation.to_bytes()
    return Aggregated(result.sums, result.survivors, result.cost, signed)


def aggregate(
    aggregation: Aggregation, segments: Mapping[str, tuple[int, int]], attempt: Attempt
) -> Aggregated | None:
    """Sums one attempt at a round; all processes of the run call it in step.

    Args:
        aggregation: how.
        segments: name -> (length, modulus bits).
        attempt: what is summed.

    Returns:
        The sums in process 0, None elsewhere.

    Raises:
        TooFewClientsError: in process 0: too few remain; nothing is released.
    """
    group = attempt.group
    survivors = _foretold(attempt)
    if isinstance(aggregation, Secure) and attempt.params is not None:
        return _protocol(attempt.params, attempt, survivors)
    if survivors is None:
        if group.index == 0:
            expected_survivors(attempt)  # raises
        return None
    sums = modular_sum(segments, attempt.values(group.mine(survivors)))
    parts = group.exchange(b"" if group.index == 0 else to_npz(sums))
    if group.index != 0:
        return None
    attempt.before_release(survivors)
    for part in parts[1:]:
        for name, more in from_npz(part).items():
            sums[name] += more
    return Aggregated(_reduced(segments, sums), survivors, None)
