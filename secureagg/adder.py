"""A part of the server that adds masked vectors where they arise.

The server is an adder and a key role. Addition mod 2^b is associative, so a server spread over N
processes adds in each, and only N partial sums travel to the one that holds the ServerSession. An
adder is trusted like the server it is a part of: it sees masked vectors and nothing else.
"""

from collections.abc import Collection

import numpy as np

from secureagg import masking, messages
from secureagg._codec import Reader, blobs
from secureagg._packing import Words
from secureagg.context import Round
from secureagg.errors import FaultyClientError, MessageError
from secureagg.masking import pack_vector, unpack_vector
from secureagg.messages import Kind
from secureagg.primitives import fingerprint


class Adder:
    """Takes masked vectors as the ServerSession would, which takes their sum by `receive_sum`.

    Args:
        round_: the round.
        expected: whose vectors to add: clients that the session sent boxes to. As in the session,
            what others in the roster send is discarded.

    Attributes:
        ctx: of the round, 32 bytes.
        marks: client id to the fingerprint of its message.
        sums: [length] words by segment.
    """

    def __init__(self, round_: Round, expected: Collection[int]) -> None:
        self._round = round_
        self._expected = frozenset(expected)
        self.ctx = round_.ctx
        self.marks: dict[int, bytes] = {}
        self.sums: tuple[Words, ...] = masking.zero_words(round_.params)

    def receive(self, client_id: int, message: bytes) -> None:
        """Adds one client's masked vector; the same bytes again are ignored.

        Raises:
            MessageError: malformed, not a masked vector, or not of this client or context.
            FaultyClientError: a second, different vector.
        """
        index = self._round.index
        if client_id not in self._round.position:
            raise MessageError(client_id, index, "is not in the roster")
        try:
            kind, body = messages.open_header(message, client_id, self._round.ctx)
        except ValueError as error:
            raise MessageError(client_id, index, str(error)) from error
        if client_id not in self._expected:
            return
        if kind != Kind.MASKED_VECTOR:
            raise MessageError(client_id, index, f"kind {kind}, takes {int(Kind.MASKED_VECTOR)}")
        mark = fingerprint(message)
        if client_id in self.marks:
            if self.marks[client_id] == mark:
                return
            raise FaultyClientError(client_id, "a second, different message of one stage")
        try:
            words = unpack_vector(self._round.params, body)
        except ValueError as error:
            raise MessageError(client_id, index, str(error)) from error
        for total, more in zip(self.sums, words, strict=True):
            np.add(total, more, out=total)
        self.marks[client_id] = mark

    def to_bytes(self) -> bytes:
        """Returns ctx, who is in the sum, and the sum mod 2^b."""
        return pack_vector(self._round.params, self.sums, self.ctx + blobs(self.marks))

    @classmethod
    def from_bytes(cls, data: bytes, round_: Round) -> "Adder":
        """Undoes `to_bytes`, between parts of one server; it expects nobody any more.

        Raises:
            ValueError: malformed, or of another context.
        """
        adder, reader = cls(round_, ()), Reader(data)
        if reader.take(len(round_.ctx)) != round_.ctx:
            raise ValueError("a sum of another context")
        adder.marks = reader.blobs()
        adder.sums = unpack_vector(round_.params, reader.take(masking.vector_bytes(round_.params)))
        reader.close()
        return adder
