"""The server's side of a run across organisations: drives the protocol over whatever carries bytes.

A stage is a barrier: whoever has not answered when its time is up has dropped out, and an answer
that comes later is discarded. What is wrong with an answer is logged with the member's name, and
the round goes on without it.
"""

import logging
import os
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Protocol

from fl import secure
from fl.arrays import tree_to_bytes
from fl.books import Books
from fl.console import round_line
from fl.engine import Attempted
from fl.engines import wire
from fl.engines.terms import Terms
from fl.engines.wire import Hello, Limits, Reply, Status, Step
from fl.round import Clock, Outcome, decoded
from fl.site import Order
from fl.store import Store

LOG = logging.getLogger("fl.server")
Parts = tuple[bytes, bytes]  # control, bulk
_OVERHEAD = 1024  # bytes of a masked vector's message beside the vector, at most
_LOOK_SECONDS = 1.0  # between looks at who is there
_PATIENCE = 3  # greetings without an answer until a connected node is asked more rarely,
_RARELY = 8  # in one round of so many: the organisation's process behind it may be down


class Transport(Protocol):
    """Carries bytes to nodes and back."""

    def node_ids(self) -> Sequence[int]:
        """Returns the nodes that can be reached now."""

    def exchange(
        self, stage: str, requests: Mapping[int, Parts], timeout: float
    ) -> Iterable[tuple[int, Parts]]:
        """Sends one request to each node and waits for their answers.

        Args:
            stage: "hello" or one of the protocol's.
            requests: by node.
            timeout: seconds after which it returns with what has come.

        Returns:
            (node, answer), in any order; a node may have none or several.
        """


class Coordinator:
    """An `fl.engine.Engine` whose clients live in organisations' own processes.

    Args:
        terms: the plan that all have signed.
        names: of the members, for the log.
        transport: to their nodes.
        store: of the run.
        timeouts: stage -> seconds.
        join_timeout: seconds to wait for members that are missing before a round.
    """

    def __init__(
        self,
        terms: Terms,
        names: Sequence[str],
        transport: Transport,
        store: Store,
        timeouts: Mapping[str, float],
        join_timeout: float,
    ) -> None:
        self._terms, self._names, self._transport = terms, names, transport
        self._store, self._timeouts, self._join_timeout = store, timeouts, join_timeout
        self._node_of: dict[int, int] = {}
        self._silent: dict[int, int] = {}  # node -> rounds since its last answer to a greeting
        self._complete = False
        self._released = _last_releases(store)
        self._place = (0, 0)
        segments = terms.encoding.segments.values()
        vector = sum((length * bits + 7) // 8 for length, bits in segments)
        self._limits = Limits(wire.control_limit(len(terms.roster)), _OVERHEAD + vector)
        self._log_caught()

    def _log_caught(self) -> None:
        rows = self._store.stages()
        finished = {(row["round"], row["attempt"]) for row in self._store.rounds()}
        if rows and (rows[-1]["round"], rows[-1]["attempt"]) not in finished:
            LOG.warning(
                "round %d, attempt %d was caught at %s: it is abandoned, and charged where a"
                " masked vector may have been sent",
                rows[-1]["round"], rows[-1]["attempt"], rows[-1]["stage"],
            )  # fmt: skip

    def settle(self, survivors: Sequence[int]) -> None:
        """See `Engine.settle`: clients are told when they are asked next."""
        self._released |= dict.fromkeys(survivors, self._place)

    def close(self) -> None:
        """See `Engine.close`: organisations end by themselves."""

    def attempt(self, order: Order, books: Books, clock: Clock) -> Attempted:
        """See `Engine.attempt`."""
        self._place = (order.round_index, order.attempt)
        with clock("protocol"):
            self._meet(order.invited)
            try:
                outcome = _Attempt(self, order, books).run()
            except (secure.TooFewClientsError, secure.ProtocolError) as error:
                LOG.warning("%s", round_line(order.round_index, str(error)))
                outcome = Outcome(None, (), None, str(error))
        return Attempted(outcome, (), ())

    def _meet(self, invited: Sequence[int]) -> None:
        """Finds out which node stands for whom.

        Everybody is waited for before the first round, and later as many as must survive.
        """
        deadline, greeted = time.monotonic() + self._join_timeout, set[int]()
        while True:
            greeted |= self._greet(greeted)
            here = len(self._node_of.keys() & set(invited))
            need = self._terms.params.required_survivors if self._complete else len(invited)
            if here >= need or time.monotonic() >= deadline:
                break
            time.sleep(min(_LOOK_SECONDS, max(0.0, deadline - time.monotonic())))
        self._silent = {node: n + (node not in greeted) for node, n in self._silent.items()}
        self._complete = True

    def _greet(self, already: Collection[int]) -> set[int]:
        """Asks nodes that stand for nobody yet who they are; returns whom it asked."""
        nodes = set(self._transport.node_ids())
        self._node_of = {i: node for i, node in self._node_of.items() if node in nodes}
        self._silent = {node: count for node, count in self._silent.items() if node in nodes}
        mute = {node for node, n in self._silent.items() if n >= _PATIENCE and n % _RARELY}
        new = nodes - mute - set(self._node_of.values()) - set(already)
        nonces = {node: os.urandom(wire.NONCE_BYTES) for node in sorted(new)}
        if not nonces:
            return new
        asked = {node: Hello(self._terms.session, nonce).parts() for node, nonce in nonces.items()}
        for node in new:
            self._silent[node] = self._silent.get(node, 0) + 1
        for node, answer in self._transport.exchange("hello", asked, self._join_timeout):
            if node not in nonces:
                LOG.warning("node %d: an answer that nobody asked for", node)
                continue
            self._silent.pop(node, None)
            try:
                self._welcome(node, nonces[node], wire.read_reply(*answer, self._limits))
            except ValueError as error:
                LOG.warning("node %d is refused: %s", node, error)
        return new

    def _welcome(self, node: int, nonce: bytes, reply: Reply) -> None:
        member, signature = wire.read_presence(reply)
        key = self._terms.roster.get(member)
        if key is None:
            raise ValueError(f"member {member} is not in the roster")
        if not secure.is_present(key, signature, self._terms.session, member, nonce):
            raise ValueError(f"it does not hold the key that the roster lists for {member}")
        LOG.info("node %d is %s", node, self.name(member))
        self._node_of[member] = node

    def name(self, member: int) -> str:
        """Returns what the log calls a member."""
        return f"member {member} ({self._names[member]})"

    def first_message(self, member: int) -> bytes:
        """Returns what a member is told where an attempt begins: which of its states counts."""
        return wire.settled(self._released.get(member)) if self._terms.keeps_state else b""

    def ask(
        self, order: Order, stage: str, messages: Mapping[int, bytes], broadcast: bytes
    ) -> list[tuple[int, Reply]]:
        """Asks members for one stage and waits at its barrier.

        Returns:
            (member, answer), in the order in which they came.
        """
        requests = {
            self._node_of[member]: Step(
                self._terms.session, stage, order.round_index, order.attempt, message, broadcast
            ).parts()
            for member, message in messages.items()
            if member in self._node_of
        }
        place = (order.round_index, order.attempt, stage)
        sent = sum(len(control) + len(bulk) for control, bulk in requests.values())
        self._store.begin_stage(*place, len(requests), sent)
        start = time.perf_counter()
        member_of = {node: member for member, node in self._node_of.items() if node in requests}
        found, size = [], 0
        for node, answer in self._transport.exchange(stage, requests, self._timeouts[stage]):
            size += len(answer[0]) + len(answer[1])
            if node not in member_of:
                LOG.warning("%s: an answer of node %d, which was not asked", stage, node)
                continue
            try:
                found.append((member_of[node], wire.read_reply(*answer, self._limits)))
            except ValueError as error:
                LOG.warning("%s: %s is refused: %s", stage, self.name(member_of[node]), error)
        seconds = time.perf_counter() - start
        self._store.close_stage(place, len({member for member, _ in found}), seconds, size)
        return found


def _last_releases(store: Store) -> dict[int, tuple[int, int]]:
    """Member -> round and attempt of the last round, of those on record, that has its update."""
    ended = {
        (row["round"], row["attempt"]) for row in store.rounds() if row["status"] == "released"
    }
    return {
        member: (index, attempt)
        for index, attempt, survivors in store.releases()
        if (index, attempt) in ended
        for member in survivors
    }


class _Attempt:
    """One attempt at a round, from keys to the sum."""

    def __init__(self, engine: Coordinator, order: Order, books: Books) -> None:
        self._engine, self._order, self._books = engine, order, books
        terms = engine._terms
        self._terms = terms
        params = terms.params_of(order.round_index, order.attempt)
        self._session = secure.ServerSession(params, terms.roster_of(list(order.invited)))
        self._stages = params.stages
        self._up = dict.fromkeys(params.stages, 0)
        self._down = dict.fromkeys(params.stages, 0)
        self._seconds = dict.fromkeys(params.stages, 0.0)

    def run(self) -> Outcome:
        order, session = self._order, self._session
        place = (order.round_index, order.attempt)
        outbound: Mapping[int, bytes] = {i: self._engine.first_message(i) for i in order.invited}
        for stage in self._stages:
            masking = stage == "mask_input"
            if masking:  # on record before anybody can send a masked vector
                self._books.charge(*place, sorted(outbound))
            outbound = self._stage(
                stage, outbound, tree_to_bytes(order.broadcast) if masking else b""
            )
            if masking:  # on record before anything could be unmasked
                self._books.release(*place, sorted(outbound))
        found, attestation = session.result, session.attestation
        signed = None if attestation is None else attestation.to_bytes()
        if signed is not None:
            self._books.attest(*place, signed)
        cost = secure.RoundCost(len(order.invited), {}, self._seconds, self._up, self._down)
        mean = decoded(
            self._terms.resolved, self._terms.encoding, order, found.sums, self._books.correlated
        )
        return Outcome(mean, found.survivors, cost, None, signed)

    def _stage(
        self, stage: str, outbound: Mapping[int, bytes], broadcast: bytes
    ) -> dict[int, bytes]:
        session, engine = self._session, self._engine
        answers = engine.ask(self._order, stage, outbound, broadcast)
        begin = time.process_time()
        for member, reply in answers:
            if reply.status == Status.REFUSED:
                LOG.warning("%s: %s refuses: %s", stage, engine.name(member), reply.reason)
            elif reply.status == Status.ANSWER:
                self._up[stage] += len(reply.message)
                try:
                    session.receive(member, reply.message)
                except secure.ProtocolError as error:
                    LOG.warning("%s: %s is refused: %s", stage, engine.name(member), error)
        closed = session.close_stage()
        self._seconds[stage] += time.process_time() - begin
        self._down[stage] += sum(len(message) for message in closed.values())
        return closed
