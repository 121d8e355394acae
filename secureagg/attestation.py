"""What proves afterwards who is in a sum: a quorum of witnesses signed the sets of the round.

An honest witness signs one pair of sets per round, so two quorums agree (docs/protocol.md, step 4):
whoever holds one for a round knows the only sets over which honest clients revealed shares. It says
nothing about the sum itself, nor about who the keys of the roster belong to.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np

from secureagg import messages
from secureagg._codec import Reader, blob, pack_flags, u32, unpack_flags
from secureagg.context import Round, open_round, sets_to_sign, statuses_of
from secureagg.errors import FaultyServerError, MisuseError, ParamsError
from secureagg.graph import Flags
from secureagg.params import Params
from secureagg.primitives import KEY_BYTES, is_signed

_VERSION = 1


@dataclass(frozen=True)
class Attestation:
    """The sets of one round, who signed them, and what the signatures are bound to.

    Attributes:
        params: of the round, which session, round index and attempt are part of.
        roster: invited ids with their identity keys.
        shared: whose boxes went out, ascending ids.
        survivors: whose masked vectors are in the sum, ascending ids.
        quorum: signatures by witness id.
    """

    params: Params
    roster: Mapping[int, bytes] = field(repr=False)
    shared: tuple[int, ...]
    survivors: tuple[int, ...]
    quorum: Mapping[int, bytes] = field(repr=False)

    def verify(self) -> None:
        """As `verify_quorum`, with the parameters and roster in here.

        They are the server's word until compared: the parameters with the plan, the roster with
        the one that everybody signed (`verify_roster`).
        """
        verify_quorum(self.params, self.roster, self.shared, self.survivors, self.quorum)

    def to_bytes(self) -> bytes:
        """Returns the bytes to keep: docs/protocol.md, "Attestations"."""
        ids = sorted(self.roster)
        sets = (pack_flags(_flags(ids, members)) for members in (self.shared, self.survivors))
        return b"".join(
            (
                bytes([_VERSION]),
                blob(self.params.to_bytes()),
                *(u32(i) + self.roster[i] for i in ids),
                *sets,
                messages.quorum_to_bytes(self.quorum),
            )
        )

    @staticmethod
    def from_bytes(data: bytes) -> "Attestation":
        """Undoes `to_bytes`; nothing is verified yet.

        Raises:
            MisuseError: not bytes that `to_bytes` wrote.
        """
        try:
            return _read(Reader(data))
        except (ValueError, ParamsError) as error:
            raise MisuseError("from_bytes", f"not an attestation: {error}") from None


def verify_quorum(
    params: Params,
    roster: Mapping[int, bytes],
    shared: Collection[int],
    survivors: Collection[int],
    quorum: Mapping[int, bytes],
) -> None:
    """Checks that a quorum of witnesses signed these sets for this very round.

    Args:
        params: of the round, from the plan.
        roster: invited ids with their identity keys, as everybody signed it.
        shared: whose boxes went out.
        survivors: whose masked vectors are in the sum.
        quorum: signatures by witness id, at least threshold of them and each one valid.

    Raises:
        FaultyServerError: the sets are not such that honest clients reveal shares for them, or
            the signatures are not a quorum over them.
        MisuseError: the server is semi-honest, so nobody signed; the roster does not fit params.
    """
    if not params.malicious:
        raise MisuseError("verify_quorum", "with a semi-honest server there are no witnesses")
    round_ = open_round(params, roster)
    sets = frozenset(shared), frozenset(survivors)
    _check_sets(round_, *sets)
    if strangers := sorted(set(quorum) - set(round_.witnesses)):
        raise FaultyServerError(round_.index, f"clients {strangers} signed, and are no witnesses")
    data = sets_to_sign(round_, statuses_of(round_, *sets))
    for client_id, signature in quorum.items():
        if not is_signed(round_.identities[client_id], signature, data):
            raise FaultyServerError(round_.index, f"client {client_id} did not sign these sets")
    if len(quorum) < params.threshold:
        reason = f"{len(quorum)} witnesses signed, needs {params.threshold}"
        raise FaultyServerError(round_.index, reason)


def _check_sets(round_: Round, shared: frozenset[int], survivors: frozenset[int]) -> None:
    if not survivors <= shared <= frozenset(round_.ids):
        raise FaultyServerError(
            round_.index, "survivors are not in shared, or shared in the roster"
        )
    if len(survivors) < round_.params.required_survivors:
        reason = f"{len(survivors)} survivors, needs {round_.params.required_survivors}"
        raise FaultyServerError(round_.index, reason)


def _read(reader: Reader) -> Attestation:
    if (version := reader.byte()) != _VERSION:
        raise ValueError(f"version {version}, takes {_VERSION}")
    params = Params.from_bytes(bytes(reader.blob()))
    n = params.num_clients
    entries = [(reader.number(), bytes(reader.take(KEY_BYTES))) for _ in range(n)]
    ids = [i for i, _ in entries]
    if ids != sorted(set(ids)):
        raise ValueError("ids are not strictly ascending")
    flags = [unpack_flags(reader.take((n + 7) // 8), n) for _ in range(2)]
    shared, survivors = (tuple(i for i, on in zip(ids, f, strict=True) if on) for f in flags)
    quorum = messages.quorum_from_bytes(reader.take(len(reader)), limit=n)
    return Attestation(params, dict(entries), shared, survivors, quorum)


def _flags(ids: list[int], members: Collection[int]) -> Flags:
    found: Flags = np.isin(ids, list(members))
    return found
