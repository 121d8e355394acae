"""The one place where training meets the masking protocol.

Everything else in `fl` sees integers, client ids and byte streams; what a Params is, how a round
runs and where secret bytes come from is settled here.
"""

import functools
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fl.group import Group
from fl.types import Purpose, RandomBytes, seed_bytes
from secureagg import (
    STAGES,
    ClientSession,
    IdentityKey,
    MisuseError,
    Params,
    ParamsError,
    ProtocolError,
    RosterError,
    RoundCost,
    RoundResult,
    SecureAggError,
    ServerSession,
    TooFewClientsError,
    byte_stream,
    choose_params,
    commit_opening,
    is_present,
    opened_seed,
    outcome,
    roster_hash,
    sign_presence,
    sign_roster,
    spread_round,
    verify_roster,
)

__all__ = [
    "STAGES",
    "ClientSession",
    "IdentityKey",
    "MisuseError",
    "Params",
    "ParamsError",
    "ProtocolError",
    "RosterError",
    "RoundCost",
    "RoundResult",
    "SecureAggError",
    "ServerSession",
    "TooFewClientsError",
    "bind",
    "binding",
    "commit_opening",
    "is_present",
    "masked_sum",
    "opened_seed",
    "roster_hash",
    "round_params",
    "run_params",
    "secret_stream",
    "seeded_stream",
    "sign_presence",
    "sign_roster",
    "survivors_of",
    "verify_roster",
]

Dropouts = Mapping[str, Collection[int]]
SegmentValues = Mapping[str, NDArray[np.uint64]]


def secret_stream() -> RandomBytes:
    """Returns a fresh AES-CTR byte stream, keyed by the operating system."""
    return byte_stream(os.urandom(32))


def seeded_stream(seed: int, purpose: Purpose, *labels: int) -> RandomBytes:
    """Returns the stream of (seed, purpose, labels): for tests and debugging, not private."""
    return byte_stream(seed_bytes(seed, purpose, *labels))


def run_params(
    num_clients: int,
    segments: Mapping[str, tuple[int, int]],
    *,
    corrupt: float,
    dropout: float,
    server: str,
    rounds: int,
    complete_graph: bool,
    security_bits: int,
    correctness_bits: int,
    seed: int | None,
) -> Params:
    """Returns the parameters that every round of a run shares.

    Args:
        num_clients: n invited to each round.
        segments: name -> (length, modulus bits).
        corrupt: fraction of clients that may collude with the server.
        dropout: fraction of clients that may leave.
        server: "semi_honest" or "malicious".
        rounds: of the run; failure probabilities are per run.
        complete_graph: mask with everybody instead of a sparse graph.
        security_bits: see `secureagg.choose_params`.
        correctness_bits: see `secureagg.choose_params`.
        seed: derives session and graph from the run seed; None draws them from the operating
            system, which in a simulation stands for the public beacon.

    Raises:
        ParamsError: no parameters meet the request.
    """
    if seed is None:
        session, graph = os.urandom(32), os.urandom(32)
    else:
        session = seed_bytes(seed, Purpose.SESSION, 0)
        graph = seed_bytes(seed, Purpose.SESSION, 1)
    return choose_params(
        num_clients,
        segments,
        corrupt=corrupt,
        dropout=dropout,
        server=server,
        security_bits=security_bits,
        correctness_bits=correctness_bits,
        rounds=rounds,
        session_id=session,
        graph_seed=None if complete_graph else graph,
    )


@functools.lru_cache(maxsize=4096)
def resized(params: Params, num_clients: int) -> Params:
    """Returns the parameters of the same run for a cohort of another size.

    Raises:
        ParamsError: none meet the request for that size.
    """
    return choose_params(
        num_clients,
        {segment.name: (segment.length, segment.modulus_bits) for segment in params.segments},
        corrupt=params.corrupt,
        dropout=params.dropout,
        server=params.server,
        security_bits=params.security_bits,
        correctness_bits=params.correctness_bits,
        rounds=params.rounds,
        session_id=params.session_id,
        graph_seed=params.graph_seed,
    )


def round_params(params: Params, round_index: int, attempt: int) -> Params:
    """Returns the run's parameters bound to one attempt at one round."""
    return replace(params, round_index=round_index, attempt=attempt)


def survivors_of(params: Params, client_ids: Sequence[int], dropouts: Dropouts) -> tuple[int, ...]:
    """Returns whose vectors the protocol would sum.

    Raises:
        TooFewClientsError: it would abort.
    """
    return outcome(params, dropouts, client_ids=client_ids)


def bind(params: Params, data: bytes) -> Params:
    """Returns the parameters with the session and graph of another process's `binding`."""
    size = len(params.session_id)
    graph = None if params.graph_seed is None else data[size:]
    return replace(params, session_id=data[:size], graph_seed=graph)


def binding(params: Params) -> bytes:
    """Returns what was drawn for these parameters, for the other processes of the run."""
    return params.session_id + (params.graph_seed or b"")


def masked_sum(
    params: Params,
    client_ids: Sequence[int],
    dropouts: Dropouts,
    inputs: Callable[[Sequence[int]], Iterable[tuple[int, SegmentValues]]],
    rand_of: Callable[[int], RandomBytes],
    group: Group,
    before_unmasking: Callable[[tuple[int, ...]], None],
) -> RoundResult | None:
    """Runs the protocol with real clients and a real server, spread over the processes of a run.

    Args:
        params: of this attempt.
        client_ids: the invited, ascending.
        dropouts: stage -> clients that never answer from that stage on.
        inputs: called once with the clients here that mask: yields their segments, in any order.
        rand_of: client id -> the source of its keys and seeds.
        group: the processes.
        before_unmasking: called in process 0 with the survivors.

    Returns:
        The result in process 0, None elsewhere.

    Raises:
        TooFewClientsError: too few remained; nothing was released.
    """
    return spread_round(
        params, client_ids, group.mine(client_ids), inputs,
        dropouts=dropouts, index=group.index, exchange=group.exchange, rand_of=rand_of,
        before_unmasking=before_unmasking,
    )  # fmt: skip
