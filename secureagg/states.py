"""What a client knows between its stages: one immutable type per stage, each used once."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from secureagg.context import Round
from secureagg.errors import FaultyClientOrServerError
from secureagg.graph import Flags
from secureagg.messages import KeyBundle
from secureagg.primitives import Agree, IdentityKey
from secureagg.sharing import SharePair


@dataclass(frozen=True)
class Invited:
    """Before advertise_keys.

    Attributes:
        round: the round.
        client_id: this client.
        identity: signs; None with a semi-honest server.
        secret: 32 bytes that all its randomness expands from.
    """

    round: Round
    client_id: int
    identity: IdentityKey | None
    secret: bytes = field(repr=False)


@dataclass(frozen=True)
class Advertised:
    """After advertise_keys.

    Attributes:
        round: the round.
        client_id: this client.
        identity: as before.
        secret: as before.
        enc_private_key: opens and seals boxes.
        mask_private_key: agrees on pairwise masks; shared among the holders.
        self_mask_seed: expands to the self mask; shared among the holders.
        bundle: what was sent.
        enc_agree: X25519 with the first of these keys.
        mask_agree: X25519 with the second.
    """

    round: Round
    client_id: int
    identity: IdentityKey | None
    secret: bytes = field(repr=False)
    enc_private_key: bytes = field(repr=False)
    mask_private_key: bytes = field(repr=False)
    self_mask_seed: bytes = field(repr=False)
    bundle: KeyBundle = field(repr=False)
    enc_agree: Agree = field(repr=False)
    mask_agree: Agree = field(repr=False)


@dataclass(frozen=True)
class Shared:
    """After share_keys.

    Attributes:
        me: own keys.
        bundles: accepted bundles of neighbours, by id.
        opening_keys: AES keys of the boxes to come, by sender.
    """

    me: Advertised
    bundles: Mapping[int, KeyBundle] = field(repr=False)
    opening_keys: Mapping[int, bytes] = field(repr=False)


@dataclass(frozen=True)
class Masked:
    """After mask_input.

    Attributes:
        round: the round.
        client_id: this client.
        identity: as before.
        shared: [n] the set masked with.
        shares: by neighbour in shared, ascending; None where the box was no good.
        suspicions: one error for each box that was no good.
    """

    round: Round
    client_id: int
    identity: IdentityKey | None
    shared: Flags = field(repr=False)
    shares: Mapping[int, SharePair | None] = field(repr=False)
    suspicions: tuple[FaultyClientOrServerError, ...]


@dataclass(frozen=True)
class Checked:
    """After check_consistency: the sets are fixed, and wait for the witnesses' quorum.

    Attributes:
        round: the round.
        client_id: this client.
        statuses: [n] the sets it accepted, and signed if it is a witness.
        shares: as before.
    """

    round: Round
    client_id: int
    statuses: NDArray[np.uint8] = field(repr=False)
    shares: Mapping[int, SharePair | None] = field(repr=False)


@dataclass(frozen=True)
class Revealed:
    """After unmask: nothing is left to do."""

    round: Round
    client_id: int
