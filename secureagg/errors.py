"""Exceptions: who is to blame, and what each error proves.

::

    SecureAggError
      ParamsError                  caller, before any message              field, got, takes
      MisuseError                  caller: wrong step, bad input, reuse    step
      TooFewClientsError           server or client: an abort, no proof    round, have, need, ..
      RosterError                  client, before a round                  missing, wrong
      ProtocolError                a peer's bytes, never raised directly
        MessageError               malformed                               sender, round
        FaultyClientError          raised by the server                    client_id
        FaultyServerError          raised by a client                      round
        FaultyClientOrServerError  raised by a client; suspicion only      client_id

A message that raises has changed no state: the session still takes the right one.
No exception text holds a secret.
"""

from collections.abc import Mapping
from types import MappingProxyType

_NONE: Mapping[int, tuple[int, ...]] = MappingProxyType({})


class SecureAggError(Exception):
    """Base of everything this package raises on purpose."""


class ParamsError(SecureAggError):
    """A parameter is out of range or does not fit the others.

    Attributes:
        field: name of the offending parameter.
        got: what was given.
        takes: what is accepted, in words.
    """

    def __init__(self, field: str, got: object, takes: str) -> None:
        super().__init__(f"{field}={got!r}: takes {takes}")
        self.field = field
        self.got = got
        self.takes = takes


class MisuseError(SecureAggError):
    """The caller used this package wrongly; no peer is involved.

    Attributes:
        step: the stage or call that was misused.
    """

    def __init__(self, step: str, reason: str) -> None:
        super().__init__(f"{step}: {reason}")
        self.step = step


class TooFewClientsError(SecureAggError):
    """Too few clients are left, so the round releases nothing. Nobody is proven to be at fault.

    Attributes:
        round: round index.
        have: clients (or shares of one secret) there are.
        need: how many it takes.
        disputes: by dealer, the holders that say its box of shares was no good: the dealer or all
            of those holders lie. Ascending ids; empty unless shares are lacking.
    """

    def __init__(
        self,
        round_index: int,
        have: int,
        need: int,
        what: str = "clients",
        disputes: Mapping[int, tuple[int, ...]] = _NONE,
    ) -> None:
        text = f"round {round_index}: {have} {what}, needs {need}; nothing is released"
        for dealer, holders in disputes.items():
            text += f"; client {dealer} or clients {', '.join(map(str, holders))} at fault"
        super().__init__(text)
        self.round = round_index
        self.have = have
        self.need = need
        self.disputes = disputes


class RosterError(SecureAggError):
    """Not everybody whom a roster lists has signed it, or opened: take part in nothing under it.

    It proves no fault of those named: whoever hands out the roster may have left signatures out.

    Attributes:
        missing: ids without a signature, or opening, ascending.
        wrong: ids whose signature is not of this roster by the listed key, whose opening is not
            what they committed to, or whom the roster does not list; ascending.
    """

    def __init__(
        self, missing: tuple[int, ...], wrong: tuple[int, ...], what: str = "signature"
    ) -> None:
        said = []
        if missing:
            said.append(f"no {what} by {', '.join(map(str, missing))}")
        if wrong:
            said.append(f"no valid {what} by {', '.join(map(str, wrong))}")
        super().__init__(f"roster: {'; '.join(said)}; takes one by everybody it lists")
        self.missing = missing
        self.wrong = wrong


class ProtocolError(SecureAggError):
    """A peer's bytes are wrong. Only its subclasses are raised."""


class MessageError(ProtocolError):
    """A message is malformed or does not belong here. The transport may be at fault.

    Attributes:
        sender: client id the message came from; None for the server.
        round: round index.
    """

    def __init__(self, sender: int | None, round_index: int, reason: str) -> None:
        who = "the server" if sender is None else f"client {sender}"
        super().__init__(f"round {round_index}, message from {who}: {reason}")
        self.sender = sender
        self.round = round_index


class FaultyClientError(ProtocolError):
    """A well-formed message breaks the protocol. Raised by the server.

    It proves the fault of whoever spoke for that client: with a semi-honest server, channels are
    trusted to carry its words; with a malicious one, its keys and attestations are signed.

    Attributes:
        client_id: the client named.
    """

    def __init__(self, client_id: int, reason: str) -> None:
        super().__init__(f"client {client_id}: {reason}")
        self.client_id = client_id


class FaultyServerError(ProtocolError):
    """The server asks for what the protocol forbids, or relayed what it had to refuse.

    Attributes:
        round: round index.
    """

    def __init__(self, round_index: int, reason: str) -> None:
        super().__init__(f"round {round_index}: {reason}")
        self.round = round_index


class FaultyClientOrServerError(ProtocolError):
    """Either a client or the server that relayed for it is faulty: suspicion, not proof.

    Attributes:
        client_id: the client whose bytes these claim to be.
        reason: what is wrong with them.
    """

    def __init__(self, client_id: int, reason: str) -> None:
        super().__init__(f"client {client_id} or the server: {reason}")
        self.client_id = client_id
        self.reason = reason
