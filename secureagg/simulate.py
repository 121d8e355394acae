"""A whole round in one process, with real sessions that exchange bytes, and its outcome."""

import os
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from secureagg import masking
from secureagg.adversaries import Wire, honest
from secureagg.attestation import Attestation
from secureagg.context import Round, check_ids, open_round
from secureagg.cost import Meter, RoundCost
from secureagg.errors import FaultyClientOrServerError, MisuseError, TooFewClientsError
from secureagg.graph import Flags
from secureagg.masking import Vectors
from secureagg.messages import Kind
from secureagg.once import MemoryOnce
from secureagg.params import STAGES, Params
from secureagg.prg import RandomBytes
from secureagg.primitives import KEY_BYTES, IdentityKey
from secureagg.recovery import needed_dealers
from secureagg.server_session import ServerSession
from secureagg.session import ClientSession

Inputs = Mapping[int, Vectors] | Callable[[int], Vectors]
Dropouts = Mapping[str, Collection[int]]

_NOBODY: Dropouts = {}


@dataclass(frozen=True)
class RoundResult:
    """What a round released and cost.

    Attributes:
        sums: uint64 [length] by segment: the survivors' sum mod 2^modulus_bits.
        survivors: ascending ids.
        cost: CPU seconds and bytes by role and stage.
        quorum: with a malicious server, threshold witnesses' signatures over who shared and who
            survived, by id; empty otherwise.
        suspicions: by the id of who has them: boxes of shares that were no good.
        faulty: clients that dealt bad shares, see `Aggregate`.
        attestation: with a malicious server, what proves who is in the sum; None otherwise.
    """

    sums: dict[str, NDArray[np.uint64]]
    survivors: tuple[int, ...]
    cost: RoundCost
    quorum: Mapping[int, bytes] = field(default_factory=dict)
    suspicions: Mapping[int, tuple[FaultyClientOrServerError, ...]] = field(default_factory=dict)
    faulty: tuple[int, ...] = ()
    attestation: Attestation | None = None


def run_round(
    params: Params,
    inputs: Inputs,
    *,
    dropouts: Dropouts = _NOBODY,
    client_ids: Collection[int] | None = None,
    rand: RandomBytes = os.urandom,
    wire: Wire = honest,
) -> RoundResult:
    """Runs one round: every invited client and the server, in this process.

    Args:
        params: the parameters.
        inputs: by client id, for every invited id: integer arrays in [0, 2^b) by segment, or a
            bare array where there is one segment. Or a callable from id to that, asked when the
            client masks; then `client_ids` says who is invited.
        dropouts: stage to the clients that never answer from that stage on.
            "check_consistency" has no effect with a semi-honest server.
        client_ids: the invited ids, num_clients of them; None takes the keys of `inputs`.
        rand: os.urandom's meaning; asked for 32 bytes per invited client in ascending order. With
            a malicious server twice: identity seed first, then session secret.
        wire: what happens to messages on their way, see `secureagg.adversaries`.

    Returns:
        Sums, survivors and cost.

    Raises:
        MisuseError: the arguments do not fit; an input is missing or out of range.
        TooFewClientsError: too few clients are left; nothing is released.
        ProtocolError: what a client or the server has to say about a message that `wire` changed.
    """
    ids = _invited(params, inputs, client_ids)
    gone = gone_by_stage(params, dropouts, ids)
    vectors_of = _checked_inputs(params, inputs)
    round_, clients = _join(params, ids, rand)
    server, meter = ServerSession.in_round(round_), Meter(params.stages)
    outbound: Mapping[int, bytes] = dict.fromkeys(round_.ids, b"")
    for stage in params.stages:
        for client_id, message in _delivered(outbound, wire):
            if client_id in gone[stage]:
                continue
            session = clients[client_id]
            if message and message[1] == Kind.NEIGHBOUR_SHARES:
                meter.client(stage, partial(session.set_inputs, vectors_of(client_id)))
            step = partial(session.receive, message) if message else session.start
            answer = meter.client(stage, step)
            for sender, sent in wire(client_id, answer) if answer else ():
                meter.upload(stage, sent)
                meter.server(stage, partial(server.receive, sender, sent))
            session.acknowledge()
        outbound = meter.server(stage, server.close_stage)
        for message in outbound.values():
            meter.download(stage, message)
    result = server.result
    suspicions = {i: c.suspicions for i, c in clients.items() if c.suspicions}
    return RoundResult(
        result.sums,
        result.survivors,
        meter.total(len(ids)),
        result.quorum,
        suspicions,
        result.faulty,
        server.attestation,
    )


def _delivered(outbound: Mapping[int, bytes], wire: Wire) -> Iterator[tuple[int, bytes]]:
    """What arrives of the server's messages; b"" is the call to start."""
    for client_id, message in outbound.items():
        yield from wire(client_id, message) if message else [(client_id, message)]


def _join(
    params: Params, ids: frozenset[int], rand: RandomBytes
) -> tuple[Round, dict[int, ClientSession]]:
    """The round and a session for each client, their secrets drawn in ascending order of ids."""
    identities: dict[int, IdentityKey | None] = {}
    secrets, roster = {}, {}
    for i in sorted(ids):
        identity = IdentityKey.generate(rand) if params.malicious else None
        identities[i], roster[i] = identity, identity.public_key if identity else b""
        secrets[i] = rand(KEY_BYTES)
    round_ = open_round(params, roster)
    return round_, {
        i: ClientSession.in_round(
            round_, i, identities[i], once=MemoryOnce(), rand=partial(_given, secrets[i])
        )
        for i in round_.ids
    }


def _given(secret: bytes, size: int) -> bytes:
    """A byte source with `secret` and nothing else in it."""
    return secret[:size]


def outcome(
    params: Params, dropouts: Dropouts, *, client_ids: Collection[int] | None = None
) -> tuple[int, ...]:
    """Tells who would survive `run_round`, without any cryptography.

    Args:
        params: the parameters.
        dropouts: stage to the clients that never answer from that stage on.
        client_ids: the invited ids; None takes 0..num_clients - 1.

    Returns:
        The survivors, ascending.

    Raises:
        TooFewClientsError: `run_round` would raise it, with the same numbers.
        MisuseError: the arguments do not fit.
    """
    round_, sets = sets_of(params, dropouts, client_ids)
    return tuple(sorted(round_.members(sets.survivors)))


@dataclass(frozen=True)
class Sets:
    """Who does what in a round, as [n] flags over roster positions.

    Attributes:
        asked: sends its keys.
        advertised: of those, is sent its neighbours' keys.
        answered: of those, sends shares.
        shared: of those, is sent shares.
        survivors: of those, sends its masked vector.
        signers: witnesses among those that sign; nobody with a semi-honest server.
        informed: survivors that are sent what they unmask by.
        revealed: of those, sends shares to unmask.
    """

    asked: Flags
    advertised: Flags
    answered: Flags
    shared: Flags
    survivors: Flags
    signers: Flags
    informed: Flags
    revealed: Flags


def sets_of(
    params: Params, dropouts: Dropouts, client_ids: Collection[int] | None
) -> tuple[Round, Sets]:
    """What `outcome` finds out on its way. The round stands for any identity keys.

    Raises:
        TooFewClientsError: `run_round` would raise it, with the same numbers.
        MisuseError: the arguments do not fit.
    """
    ids = range(params.num_clients) if client_ids is None else client_ids
    # who survives does not hang on the identity keys
    round_ = open_round(replace(params, server="semi_honest"), dict.fromkeys(ids, b""))
    gone = {
        stage: round_.flags(out)
        for stage, out in gone_by_stage(params, dropouts, frozenset(ids)).items()
    }
    asked = ~gone["advertise_keys"]
    advertised = _core(round_, asked)
    answered = advertised & ~gone["share_keys"]
    shared = _core(round_, answered)
    survivors = shared & ~gone["mask_input"]
    _check(round_, int(survivors.sum()), params.required_survivors)
    signers, informed = np.zeros_like(shared), survivors
    if params.malicious:
        witnesses = np.zeros_like(shared)
        witnesses[round_.graph.witnesses] = True
        signers = survivors & witnesses & ~gone["check_consistency"]
        _check(round_, int(signers.sum()), params.threshold, "witnesses' signatures")
        informed = survivors & (signers | ~witnesses)
    revealed = informed & ~gone["unmask"]
    _check_shares(round_, shared, survivors, revealed)
    found = Sets(asked, advertised, answered, shared, survivors, signers, informed, revealed)
    return round_, found


def _core(round_: Round, answered: Flags) -> Flags:
    alive = round_.graph.core(answered, round_.params.threshold)
    _check(round_, int(alive.sum()), round_.params.required_survivors)
    return alive


def _check_shares(round_: Round, shared: Flags, survivors: Flags, revealed: Flags) -> None:
    needed = needed_dealers(round_, shared, survivors)
    have = int(round_.graph.count_neighbours(revealed)[needed].min())
    _check(round_, have, round_.params.threshold, "shares of one secret")


def _check(round_: Round, have: int, need: int, what: str = "clients") -> None:
    if have < need:
        raise TooFewClientsError(round_.index, have, need, what)


def _invited(params: Params, inputs: Inputs, client_ids: Collection[int] | None) -> frozenset[int]:
    if isinstance(inputs, Mapping):
        ids = frozenset(inputs)
        if client_ids is not None and frozenset(client_ids) != ids:
            raise MisuseError("run_round", "inputs and client_ids name different clients")
    elif client_ids is None:
        raise MisuseError("run_round", "callable inputs take client_ids")
    else:
        ids = frozenset(client_ids)
    if len(ids) != params.num_clients:
        takes = f"takes num_clients={params.num_clients}"
        raise MisuseError("run_round", f"inputs for {len(ids)} clients, {takes}")
    check_ids(ids)
    return ids


def _checked_inputs(params: Params, inputs: Inputs) -> Callable[[int], Vectors]:
    """Checks a mapping's inputs at once, so that a bad one costs nobody a round."""
    if not isinstance(inputs, Mapping):
        return inputs
    for vectors in inputs.values():
        masking.check_vectors(params, vectors)
    return inputs.__getitem__


def gone_by_stage(params: Params, dropouts: Dropouts, ids: frozenset[int]) -> dict[str, set[int]]:
    """Who has left by each stage."""
    if unknown := [stage for stage in dropouts if stage not in STAGES]:
        raise MisuseError("dropouts", f"stages {unknown}, takes some of {STAGES}")
    out: set[int] = set()
    gone = {}
    for stage in params.stages:
        out = out | set(dropouts.get(stage, ()))
        gone[stage] = out
    if strangers := sorted(set().union(*dropouts.values()) - ids, key=repr):
        raise MisuseError("dropouts", f"clients {strangers} are not invited")
    return gone
