"""ServerSession: bytes in, bytes out; a table says which message is due now.

No sockets, clocks, threads or logging. A message that raises has changed no state.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from secureagg import _saved, _saved_server, masking, messages, recovery, server
from secureagg._codec import blobs
from secureagg.adder import Adder
from secureagg.attestation import Attestation
from secureagg.context import Round, open_round
from secureagg.errors import FaultyClientError, MessageError, MisuseError
from secureagg.messages import Kind
from secureagg.params import Params
from secureagg.primitives import FINGERPRINT_BYTES, fingerprint

_SERVER_KINDS: Mapping[type, tuple[str, Kind]] = {
    server.CollectKeys: ("advertise_keys", Kind.KEYS),
    server.CollectShares: ("share_keys", Kind.SHARES),
    server.CollectVectors: ("mask_input", Kind.MASKED_VECTOR),
    server.CollectSignatures: ("check_consistency", Kind.WITNESS_SIGNATURE),
    recovery.CollectUnmask: ("unmask", Kind.UNMASK_SHARES),
}


class ServerSession:
    """The server's part in one round.

    Args:
        params: the parameters.
        roster: invited ids with their identity keys, each b"" with a semi-honest server.
    """

    def __init__(self, params: Params, roster: Mapping[int, bytes]) -> None:
        self._open(open_round(params, roster))

    @classmethod
    def in_round(cls, round_: Round) -> "ServerSession":
        """Serves a round whose context is computed already."""
        session = cls.__new__(cls)
        session._open(round_)
        return session

    def _open(self, round_: Round) -> None:
        self._round = round_
        self._state: Any = server.CollectKeys(round_, frozenset(round_.ids))
        self._received: dict[int, Any] = {}
        self._keys: set[bytes] = set()
        self._sums = masking.zero_words(round_.params)
        self._taken: dict[tuple[int, int], bytes] = {}
        self._outbound: dict[int, bytes] = {}

    def __repr__(self) -> str:
        return f"ServerSession(stage={self.stage!r}, answered={len(self._received)})"

    @property
    def stage(self) -> str | None:
        """The stage whose messages are being collected; None when the sum is out."""
        found = _SERVER_KINDS.get(type(self._state))
        return found[0] if found else None

    def receive(self, client_id: int, message: bytes) -> None:
        """Takes one client's message.

        Bytes taken before are ignored; so is whatever comes from a client that was declared
        dropped, or after the end.

        Args:
            client_id: who sent it, by the transport's word.
            message: as it came.

        Raises:
            MessageError: malformed, or not of this client, context or stage.
            FaultyClientError: well-formed, and against the protocol.
        """
        index = self._round.index
        if client_id not in self._round.position:
            raise MessageError(client_id, index, "is not in the roster")
        try:
            kind, body = messages.open_header(message, client_id, self._round.ctx)
        except ValueError as error:
            raise MessageError(client_id, index, str(error)) from error
        mark = fingerprint(message)
        if (client_id, kind) in self._taken:
            if self._taken[client_id, kind] == mark:
                return
            raise FaultyClientError(client_id, "a second, different message of one stage")
        if client_id not in self._state.expected:
            return
        expected = _SERVER_KINDS[type(self._state)][1]
        if kind != expected:
            raise MessageError(
                client_id, index, f"kind {kind}, takes {int(expected)} at this stage"
            )
        try:
            self._received[client_id] = self._accept(client_id, body)
        except ValueError as error:
            raise MessageError(client_id, index, str(error)) from error
        self._taken[client_id, kind] = mark

    def _accept(self, client_id: int, body: memoryview) -> object:
        state = self._state
        if isinstance(state, server.CollectKeys):
            bundle = server.accept_keys(state, client_id, body, self._keys)
            self._keys |= {bundle.enc_public_key, bundle.mask_public_key}
            return bundle
        if isinstance(state, server.CollectShares):
            return server.accept_shares(state, client_id, body)
        if isinstance(state, server.CollectVectors):
            server.accept_vector(state, body, self._sums)
            return None
        if isinstance(state, server.CollectSignatures):
            return server.accept_signature(state, client_id, body)
        return recovery.accept_unmask(state, client_id, body)

    def receive_sum(self, part: Adder) -> None:
        """Takes masked vectors that a part of this server has added up already.

        Args:
            part: of clients from which nothing was taken in this stage.

        Raises:
            MisuseError: at another stage; of another context; a client is not expected or was
                taken before.
        """
        state, ids = self._state, set(part.marks)
        if not isinstance(state, server.CollectVectors):
            raise MisuseError("receive_sum", f"takes masked vectors; collecting {self.stage}")
        if part.ctx != self._round.ctx:
            raise MisuseError("receive_sum", "a sum of another context")
        if not ids <= state.expected or ids & set(self._received):
            raise MisuseError("receive_sum", "a client that is not expected, or taken before")
        for total, more in zip(self._sums, part.sums, strict=True):
            np.add(total, more, out=total)
        for client_id, mark in part.marks.items():
            self._received[client_id] = None
            self._taken[client_id, Kind.MASKED_VECTOR] = mark

    def close_stage(self) -> dict[int, bytes]:
        """Declares everybody who has not answered dropped, and goes on.

        Returns:
            The next message for each client that is left; empty after the last stage.

        Raises:
            TooFewClientsError: nothing is released; the stage stays open.
            FaultyClientError: a secret does not rebuild; nothing is released.
            MisuseError: the round is over.
        """
        state, received = self._state, self._received
        outbound: dict[int, bytes] = {}
        if isinstance(state, server.CollectKeys):
            self._state, outbound = server.close_keys(state, received)
        elif isinstance(state, server.CollectShares):
            self._state, outbound = server.close_shares(state, received)
        elif isinstance(state, server.CollectVectors):
            self._state, outbound = server.close_vectors(state, frozenset(received), self._sums)
        elif isinstance(state, server.CollectSignatures):
            self._state, outbound = server.close_signatures(state, received)
        elif isinstance(state, recovery.CollectUnmask):
            self._state = recovery.close_unmask(state, received)
        else:
            raise MisuseError("unmask", "the round is over")
        self._received = {}
        self._outbound = outbound
        return outbound

    @property
    def outbound(self) -> Mapping[int, bytes]:
        """What the last close_stage returned, to send again after a restart."""
        return self._outbound

    def to_bytes(self) -> bytes:
        """Returns the session for safe keeping, whatever it has taken so far included.

        Save after `receive` before the message is acknowledged, and after `close_stage` before
        anything is sent: closing a stage a second time over other clients is what clients refuse.
        """
        taken: dict[int, bytes] = {}
        for (client_id, kind), mark in self._taken.items():
            taken[client_id] = taken.get(client_id, b"") + bytes([kind]) + mark
        state = _saved_server.state_to_bytes(self._state, self._received, self._sums)
        body = state + blobs(taken) + blobs(self._outbound)
        return _saved.frame(_saved.SERVER, self._round.ctx, body)

    @classmethod
    def from_bytes(
        cls, data: bytes, params: Params, roster: Mapping[int, bytes]
    ) -> "ServerSession":
        """Undoes `to_bytes`, with the same arguments as were given to the constructor.

        Raises:
            MisuseError: damaged, or of another context or version.
        """
        session = cls(params, roster)
        round_ = session._round
        reader = _saved.unframe(_saved.SERVER, round_.ctx, data)
        try:
            session._state, session._received, session._sums = _saved_server.state_from_bytes(
                reader, round_
            )
            for client_id, marks in reader.blobs().items():
                for at in range(0, len(marks), 1 + FINGERPRINT_BYTES):
                    mark = marks[at + 1 : at + 1 + FINGERPRINT_BYTES]
                    session._taken[client_id, marks[at]] = mark
            session._outbound = reader.blobs()
            reader.close()
        except ValueError as error:
            raise MisuseError("from_bytes", f"not a saved session: {error}") from None
        if isinstance(session._state, server.CollectKeys):
            for bundle in session._received.values():
                session._keys |= {bundle.enc_public_key, bundle.mask_public_key}
        return session

    @property
    def result(self) -> recovery.Aggregate:
        """The sums and survivors.

        Raises:
            MisuseError: the last stage has not closed.
        """
        if not isinstance(self._state, recovery.Finished):
            raise MisuseError("unmask", f"no result yet: collecting {self.stage}")
        return self._state.aggregate

    @property
    def attestation(self) -> Attestation | None:
        """What proves to others who is in the sum; None with a semi-honest server.

        Raises:
            MisuseError: the last stage has not closed.
        """
        found, round_ = self.result, self._round
        if not round_.params.malicious:
            return None
        return Attestation(
            round_.params, round_.identities, found.shared, found.survivors, found.quorum
        )
