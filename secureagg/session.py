"""ClientSession: bytes in, bytes out; a table says which step is legal now.

No sockets, clocks, threads or logging. A message that raises has changed no state.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from secureagg import _saved, _saved_client, client, masking, messages, states
from secureagg._codec import blobs, u32
from secureagg._packing import Words
from secureagg.context import Round, open_round
from secureagg.errors import (
    FaultyClientOrServerError,
    FaultyServerError,
    MessageError,
    MisuseError,
)
from secureagg.masking import Vectors
from secureagg.messages import Kind
from secureagg.once import Once, once_key
from secureagg.params import Params
from secureagg.prg import RandomBytes
from secureagg.primitives import KEY_BYTES, IdentityKey, fingerprint


@dataclass(frozen=True)
class ClientStep:
    """What a client does with the server's next message.

    Attributes:
        stage: the stage whose message it produces.
        kind: the message it takes.
        read: parses that message; ValueError if malformed.
        act: the pure stage function.
        once: the step that must never happen twice, if it is one; asked where there is an answer.
    """

    stage: str
    kind: Kind
    read: Callable[..., Any]
    act: Callable[..., tuple[Any, bytes | None]]
    once: str | None


CLIENT_STEPS: Mapping[type, ClientStep] = {
    states.Advertised: ClientStep(
        "share_keys", Kind.NEIGHBOUR_KEYS, client.read_bundles, client.share_keys, None
    ),
    states.Shared: ClientStep(
        "mask_input", Kind.NEIGHBOUR_SHARES, client.read_shares, client.mask_input, "mask"
    ),
    states.Masked: ClientStep(
        "unmask", Kind.STATUSES, client.read_statuses, client.unmask, "unmask"
    ),
}
"""With a semi-honest server."""

MALICIOUS_STEPS: Mapping[type, ClientStep] = {
    **CLIENT_STEPS,
    states.Masked: ClientStep(
        "check_consistency", Kind.STATUSES, client.read_statuses, client.check_consistency, "sign"
    ),
    states.Checked: ClientStep(
        "unmask", Kind.QUORUM, client.read_quorum, client.unmask_agreed, "unmask"
    ),
}
"""With a malicious one."""


class ClientSession:
    """One client's part in one round (or one attempt at it).

    Args:
        params: from the client's own plan, never from the wire.
        client_id: this client, one of the roster.
        identity_key: whose public key the roster lists for this client; None with a semi-honest
            server.
        roster: invited ids with their identity keys, each b"" with a semi-honest server.
        inputs: integer arrays in [0, 2^b) by segment, or a bare array where there is one
            segment; None if `set_inputs` comes later.
        once: true the first time it sees a key; asked with `once_key(ctx, client_id, step)` for
            "start", "mask", "sign" (a witness, against a malicious server) and "unmask" before
            the bytes of that step are handed out.
        rand: os.urandom's meaning; asked for 32 bytes here, and never again.

    Raises:
        MisuseError: the arguments do not fit together.
    """

    def __init__(
        self,
        params: Params,
        client_id: int,
        identity_key: IdentityKey | None,
        roster: Mapping[int, bytes],
        inputs: Vectors | None = None,
        *,
        once: Once,
        rand: RandomBytes = os.urandom,
    ) -> None:
        self._open(open_round(params, roster), client_id, identity_key, once, rand)
        if inputs is not None:
            self.set_inputs(inputs)

    @classmethod
    def in_round(
        cls,
        round_: Round,
        client_id: int,
        identity_key: IdentityKey | None,
        *,
        once: Once,
        rand: RandomBytes,
    ) -> "ClientSession":
        """Joins a round whose context is computed already, as many clients in one process do."""
        session = cls.__new__(cls)
        session._open(round_, client_id, identity_key, once, rand)
        return session

    def _open(
        self,
        round_: Round,
        client_id: int,
        identity: IdentityKey | None,
        once: Once,
        rand: RandomBytes,
    ) -> None:
        _check_identity(round_, client_id, identity)
        secret = rand(KEY_BYTES)
        if len(secret) != KEY_BYTES:
            raise MisuseError("advertise_keys", f"rand gave {len(secret)} bytes, not {KEY_BYTES}")
        self._round = round_
        self._id = client_id
        self._once = once
        self._state: Any = states.Invited(round_, client_id, identity, secret)
        self._inputs: tuple[Words, ...] | None = None
        self._taken: dict[int, bytes] = {}
        self._outbound: bytes | None = None
        self._suspicions: tuple[FaultyClientOrServerError, ...] = ()

    def __repr__(self) -> str:
        return f"ClientSession(client_id={self._id}, state={type(self._state).__name__})"

    @property
    def suspicions(self) -> tuple[FaultyClientOrServerError, ...]:
        """Boxes that did not open or match: reported, while the round goes on."""
        return self._suspicions

    @property
    def stage(self) -> str | None:
        """The stage that the next step belongs to; None when nothing is left to do."""
        if isinstance(self._state, states.Invited):
            return "advertise_keys"
        step = self._steps.get(type(self._state))
        return step.stage if step else None

    @property
    def _steps(self) -> Mapping[type, ClientStep]:
        return MALICIOUS_STEPS if self._round.params.malicious else CLIENT_STEPS

    @property
    def outbound(self) -> bytes | None:
        """The last message handed out, to send again; None where there is none to send."""
        return self._outbound

    def acknowledge(self) -> None:
        """Forgets `outbound`, as long as a masked vector: the server has confirmed it."""
        self._outbound = None

    def to_bytes(self) -> bytes:
        """Returns the session for safe keeping. It holds secrets: encrypt it at rest.

        Save before sending, so that what was sent is in the state that comes back.
        """
        parts = [u32(self._id), _saved_client.state_to_bytes(self._state)]
        parts.append(_saved_client.suspicions_to_bytes(self._suspicions))
        parts.append(blobs(self._taken))
        inputs = {} if self._inputs is None else {0: self._inputs}
        packed = {i: masking.pack_vector(self._round.params, words) for i, words in inputs.items()}
        parts.append(blobs(packed))
        parts.append(blobs({} if self._outbound is None else {0: self._outbound}))
        return _saved.frame(_saved.CLIENT, self._round.ctx, b"".join(parts))

    @classmethod
    def from_bytes(
        cls,
        data: bytes,
        params: Params,
        client_id: int,
        identity_key: IdentityKey | None,
        roster: Mapping[int, bytes],
        *,
        once: Once,
    ) -> "ClientSession":
        """Undoes `to_bytes`, with the same arguments as were given to the constructor.

        A session that comes back sends `outbound` again. What it did after it was saved it does
        not do a second time, as `once` remembers: it drops out instead. A record that does not
        even know of the start is lost: then the session masks, signs and unmasks no more.

        Raises:
            MisuseError: damaged, or of another client, context or version.
        """
        round_ = open_round(params, roster)
        _check_identity(round_, client_id, identity_key)
        reader = _saved.unframe(_saved.CLIENT, round_.ctx, data)
        session = cls.__new__(cls)
        session._round, session._id, session._once = round_, client_id, once
        try:
            if reader.number() != client_id:
                raise MisuseError("from_bytes", "saved by another client")
            session._state = _saved_client.state_from_bytes(reader, round_, client_id, identity_key)
            session._suspicions = _saved_client.suspicions_from_bytes(reader)
            session._taken = reader.blobs()
            inputs = reader.blobs()
            session._inputs = masking.unpack_vector(params, inputs[0]) if inputs else None
            session._outbound = reader.blobs().get(0)
            reader.close()
        except ValueError as error:
            raise MisuseError("from_bytes", f"not a saved session: {error}") from None
        started = not isinstance(session._state, states.Invited)
        if started and once(once_key(round_.ctx, client_id, "start")):
            session._once = _lost
        return session

    def set_inputs(self, inputs: Vectors) -> None:
        """Fixes the input, by copy. It cannot be changed afterwards.

        Raises:
            MisuseError: already fixed, or not integers of the right names, shapes and ranges.
        """
        if self._inputs is not None or not isinstance(
            self._state, states.Invited | states.Advertised | states.Shared
        ):
            raise MisuseError("mask_input", "the inputs are fixed already")
        checked = masking.check_vectors(self._round.params, inputs)
        self._inputs = masking.to_words(self._round.params, checked)

    def start(self) -> bytes:
        """Opens the round.

        Returns:
            The advertise_keys message.

        Raises:
            MisuseError: started before, here or by the record that `once` keeps.
        """
        if not isinstance(self._state, states.Invited):
            raise MisuseError("advertise_keys", "the session has started")
        state, message = client.advertise_keys(self._state)
        self._ask_once("start", "advertise_keys")
        self._state, self._outbound = state, message
        return message

    def receive(self, message: bytes) -> bytes | None:
        """Takes the server's next message.

        Args:
            message: as it came.

        Returns:
            The answer; None where there is none (a client that is no witness has nothing to sign)
            or these bytes were taken before.

        Raises:
            MessageError: malformed, or not for this client, context or stage.
            FaultyServerError: the server asks for what the protocol forbids.
            TooFewClientsError: too few neighbours or clients are left.
            MisuseError: not started, no inputs yet, or `once` says this step was taken.
        """
        found = self._read(message)
        return None if found is None else self._take(*found)

    def check_shares(self, message: bytes) -> bool:
        """Looks at the message that mask_input answers, before inputs are made for it.

        Nothing changes, and `receive` takes it afterwards.

        Returns:
            False if these bytes were taken before.

        Raises:
            as `receive`, but for the inputs and `once`.
        """
        found = self._read(message)
        if found is not None and isinstance(self._state, states.Shared):
            client.check_shared(self._state, found[1])
        return found is not None

    def _read(self, message: bytes) -> tuple[ClientStep, Any, bytes] | None:
        """Parses the message of the next step; None where it was taken before."""
        index = self._round.index
        try:
            kind, body = messages.open_header(message, self._id, self._round.ctx)
        except ValueError as error:
            raise MessageError(None, index, str(error)) from error
        mark = fingerprint(message)
        if kind in self._taken:
            if self._taken[kind] == mark:
                return None
            raise FaultyServerError(index, "a second, different message of one stage")
        step = self._steps.get(type(self._state))
        if step is None:
            raise self._nothing_expected(kind)
        if kind != step.kind:
            raise MessageError(None, index, f"kind {kind}, takes {int(step.kind)} at this stage")
        try:
            inbound = step.read(self._state, body)
        except ValueError as error:
            raise MessageError(None, index, str(error)) from error
        return step, inbound, mark

    def _take(self, step: ClientStep, inbound: object, mark: bytes) -> bytes | None:
        arguments: tuple[object, ...] = (inbound,)
        if step.stage == "mask_input":
            if self._inputs is None:
                raise MisuseError("mask_input", "set_inputs comes before this message is received")
            arguments = (inbound, self._inputs)
        # a stage function is pure, so nothing has happened yet when `once` refuses
        state, answer = step.act(self._state, *arguments)
        if step.once is not None and answer is not None:
            self._ask_once(step.once, step.stage)
        self._state, self._outbound = state, answer
        self._taken[step.kind] = mark
        if isinstance(state, states.Masked):
            self._inputs = None
            self._suspicions = state.suspicions
        return answer

    def _nothing_expected(self, kind: int) -> Exception:
        if isinstance(self._state, states.Invited):
            return MisuseError("advertise_keys", "start comes before receive")
        return MessageError(None, self._round.index, f"kind {kind} after the last stage")

    def _ask_once(self, step: str, stage: str) -> None:
        if not self._once(once_key(self._round.ctx, self._id, step)):
            reason = f"{step!r} was taken before in this context, or its record is lost"
            raise MisuseError(stage, reason)


def _lost(_: bytes) -> bool:
    """Stands in for a record that has forgotten steps: any may have been taken."""
    return False


def _check_identity(round_: Round, client_id: int, identity: IdentityKey | None) -> None:
    if client_id not in round_.position:
        raise MisuseError("advertise_keys", f"client {client_id} is not in the roster")
    if not round_.params.malicious:
        if identity is not None:
            raise MisuseError("advertise_keys", "a semi-honest server takes identity_key=None")
    elif identity is None or identity.public_key != round_.identities[client_id]:
        reason = "takes the identity key whose public key the roster lists for this client"
        raise MisuseError("advertise_keys", reason)
