"""One round spread over N processes, each with its own clients; process 0 holds the ServerSession.

Control messages go to process 0. Masked vectors are added where they arise, so that N partial sums
travel instead of one vector per client. The messages are those of `run_round`, and so is the sum.
"""

import json
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import asdict
from functools import partial

from secureagg._codec import Reader, blobs
from secureagg.adder import Adder
from secureagg.context import Round, open_round
from secureagg.cost import Meter, RoundCost
from secureagg.errors import MisuseError, SecureAggError
from secureagg.masking import Vectors
from secureagg.once import MemoryOnce
from secureagg.params import Params
from secureagg.prg import RandomBytes
from secureagg.primitives import IdentityKey
from secureagg.server_session import ServerSession
from secureagg.session import ClientSession
from secureagg.simulate import Dropouts, RoundResult, gone_by_stage

Exchange = Callable[[bytes], list[bytes]]
"""All N processes call it in step. Process 0 gets everybody's bytes, in the order of processes;
everybody gets those of process 0 as entry 0. Nobody reads other entries."""

_ABORTED, _GOES_ON = b"\x00", b"\x01"


def spread_round(
    params: Params,
    client_ids: Collection[int],
    mine: Collection[int],
    inputs: Callable[[tuple[int, ...]], Iterable[tuple[int, Vectors]]],
    *,
    dropouts: Dropouts,
    index: int,
    exchange: Exchange,
    rand_of: Callable[[int], RandomBytes],
    before_unmasking: Callable[[tuple[int, ...]], None],
) -> RoundResult | None:
    """Runs one process's part of a round; all N processes call it in step.

    Args:
        params: the parameters, alike everywhere.
        client_ids: the invited ids, num_clients of them.
        mine: those of them that live here; the processes' parts cover all, each once.
        inputs: called once, at mask_input, with the ids here that have not left by then: their
            integer arrays in [0, 2^b) by segment, behind the id, in any order.
        dropouts: stage to the clients that never answer from that stage on.
        index: this process, from 0.
        exchange: moves bytes between the processes.
        rand_of: client id to its source of randomness: with a malicious server it gives an
            identity seed first, then a session secret, 32 bytes each.
        before_unmasking: called in process 0 with the survivors, before anything is unmasked.

    Returns:
        In process 0 as `run_round`, without suspicions; None elsewhere.

    Raises:
        TooFewClientsError: in process 0: too few clients are left; nothing is released.
        MisuseError: the arguments do not fit.
    """
    here = _Here(params, frozenset(client_ids), mine, dropouts, exchange, rand_of)
    server = _Server(here, exchange, before_unmasking) if index == 0 else None
    outbound: Mapping[int, bytes] = dict.fromkeys(sorted(here.clients), b"")
    for stage in params.stages:
        if stage == "mask_input":
            part = here.mask(outbound, inputs)
            sent: dict[int, bytes] = {}
        else:
            part, sent = None, here.answers(stage, outbound)
        if server is not None:
            outbound = server.close(stage, sent, part)
            continue
        exchange(blobs(sent) if part is None else part.to_bytes())
        answer = exchange(b"")[0]
        if answer[:1] == _ABORTED:
            return None
        outbound = {i: m for i, m in Reader(answer[1:]).blobs().items() if i in here.clients}
    costs = exchange(json.dumps(asdict(here.meter.total(len(here.round.ids)))).encode())
    return None if server is None else server.result(costs)


class _Here:
    """The clients of one process.

    Attributes:
        round: the round's context.
        clients: sessions by id.
        meter: what they cost.
    """

    def __init__(
        self,
        params: Params,
        ids: frozenset[int],
        mine: Collection[int],
        dropouts: Dropouts,
        exchange: Exchange,
        rand_of: Callable[[int], RandomBytes],
    ) -> None:
        if not ids >= set(mine):
            raise MisuseError("spread_round", "mine holds clients that are not invited")
        self._gone = gone_by_stage(params, dropouts, ids)
        rands = {i: rand_of(i) for i in sorted(mine)}
        identities = {i: IdentityKey.generate(r) if params.malicious else None
                      for i, r in rands.items()}  # fmt: skip
        roster = dict.fromkeys(ids, b"")
        if params.malicious:
            keys = {i: identity.public_key for i, identity in identities.items() if identity}
            everybody = [Reader(part).blobs() for part in exchange(blobs(keys)) if part]
            roster = {i: key for part in everybody for i, key in part.items()}
            # only process 0 is sure to have heard from all
            roster = Reader(exchange(blobs(roster))[0]).blobs()
        self.round: Round = open_round(params, roster)
        self.clients = {
            i: ClientSession.in_round(self.round, i, identities[i], once=MemoryOnce(), rand=rand)
            for i, rand in rands.items()
        }
        self.meter = Meter(params.stages)

    def answers(self, stage: str, outbound: Mapping[int, bytes]) -> dict[int, bytes]:
        """What the clients that are still there send at a stage."""
        sent = {}
        for client_id, message in outbound.items():
            if client_id in self._gone[stage]:
                continue
            session = self.clients[client_id]
            step = partial(session.receive, message) if message else session.start
            answer = self.meter.client(stage, step)
            session.acknowledge()
            if answer:
                self.meter.upload(stage, answer)
                sent[client_id] = answer
        return sent

    def mask(
        self,
        outbound: Mapping[int, bytes],
        inputs: Callable[[tuple[int, ...]], Iterable[tuple[int, Vectors]]],
    ) -> Adder:
        """Masks and adds, one client's vector in memory at a time."""
        adder, stage = Adder(self.round, outbound), "mask_input"
        there = {i: m for i, m in outbound.items() if i not in self._gone[stage]}
        for client_id, vectors in inputs(tuple(sorted(there))):
            if client_id not in there:
                raise MisuseError("spread_round", f"an input of {client_id}, not asked for")
            session, message = self.clients[client_id], there.pop(client_id)
            self.meter.client(stage, partial(session.set_inputs, vectors))
            answer = self.meter.client(stage, partial(session.receive, message))
            session.acknowledge()
            if answer is not None:
                self.meter.upload(stage, answer)
                self.meter.server(stage, partial(adder.receive, client_id, answer))
        if there:
            raise MisuseError("spread_round", f"no input of {sorted(there)}")
        return adder


class _Server:
    """The ServerSession, and what reaches it from every process."""

    def __init__(
        self,
        here: _Here,
        exchange: Exchange,
        before_unmasking: Callable[[tuple[int, ...]], None],
    ) -> None:
        self._here, self._exchange, self._before = here, exchange, before_unmasking
        self._session = ServerSession.in_round(here.round)

    def close(self, stage: str, sent: Mapping[int, bytes], part: Adder | None) -> dict[int, bytes]:
        """Takes a stage's messages from all processes and hands out the answers.

        Returns:
            The answers to the clients here.
        """
        meter, session = self._here.meter, self._session
        others = self._exchange(b"")[1:]
        try:
            if part is None:
                parts = [sent, *(Reader(data).blobs() for data in others)]
                for client_id, message in sorted(i for p in parts for i in p.items()):
                    meter.server(stage, partial(session.receive, client_id, message))
            else:
                adders = [part, *(Adder.from_bytes(data, self._here.round) for data in others)]
                for adder in adders:
                    meter.server(stage, partial(session.receive_sum, adder))
            outbound = meter.server(stage, session.close_stage)
            if part is not None:
                self._before(tuple(sorted(i for adder in adders for i in adder.marks)))
        except SecureAggError:
            self._exchange(_ABORTED)
            raise
        for message in outbound.values():
            meter.download(stage, message)
        mine = self._here.clients
        self._exchange(_GOES_ON + blobs({i: m for i, m in outbound.items() if i not in mine}))
        return {i: m for i, m in outbound.items() if i in mine}

    def result(self, costs: list[bytes]) -> RoundResult:
        """What the round released and cost, all processes together."""
        found, count = self._session.result, len(self._here.round.ids)
        mine = self._here.meter.total(count)
        total = {name: dict(values) for name, values in asdict(mine).items() if name != _COUNT}
        for data in costs[1:]:
            for name, values in json.loads(data).items():
                for stage in values if name != _COUNT else ():
                    total[name][stage] += values[stage]
        return RoundResult(
            found.sums, found.survivors, RoundCost(count, **total), found.quorum,
            faulty=found.faulty, attestation=self._session.attestation,
        )  # fmt: skip


_COUNT = "num_clients"
