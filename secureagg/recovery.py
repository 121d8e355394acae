"""The server's last stage: shares to secrets, secrets to masks, masks off the sum.

A share is checked against its dealer's commitment as it arrives, so whoever answers with a wrong
one is named, and its answer is not used. Secrets are rebuilt from exactly threshold shares and
checked against what their dealer advertised; as the shares match the dealer's own commitments by
then, a wrong secret names the dealer, and so does a surplus share off the polynomial of the others.
The sum comes out all the same if some of the shares rebuild the right secret: `shamir.candidates`.

A holder whose box was no good says so in place of a share. It cannot prove that: the key that opens
the box would open an honest dealer's box just as well. So the server counts. The holders of an
honest dealer that say so all lie, and at most max_corrupt of them can; more than that prove the
dealer at fault. With fewer, dealer and holders are in dispute, which costs the round only where
good shares are fewer than threshold.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from secureagg import masking, shamir
from secureagg._packing import Words, low_bits
from secureagg.client import self_seed_commitment
from secureagg.context import Round
from secureagg.errors import FaultyClientError, TooFewClientsError
from secureagg.graph import Flags
from secureagg.messages import KeyBundle, ShareKind, UnmaskShares
from secureagg.prg import stream_of
from secureagg.primitives import (
    CIPHER_BYTES,
    KEY_BYTES,
    Usage,
    agreement,
    hkdf,
    label,
    public_key,
    sha256,
)
from secureagg.sharing import share_committer

Commitments = Mapping[int, Mapping[int, bytes]]
"""By dealer, then holder: commitments to the share of the mask key, then of the self-mask seed."""


@dataclass(frozen=True)
class CollectUnmask:
    """Unmask.

    Attributes:
        round: the round.
        expected: the survivors that are still there.
        survivors: whose masked vectors are in the sum.
        bundles: keys of everybody in shared.
        commitments: to the shares that everybody in shared dealt.
        sums: masked sums by segment.
        quorum: witnesses' signatures by id; none with a semi-honest server.
    """

    round: Round
    expected: frozenset[int]
    survivors: frozenset[int]
    bundles: Mapping[int, KeyBundle] = field(repr=False)
    commitments: Commitments = field(repr=False)
    sums: tuple[Words, ...] = field(repr=False)
    quorum: Mapping[int, bytes] = field(repr=False)


@dataclass(frozen=True)
class Aggregate:
    """What the round releases.

    Attributes:
        sums: uint64 [length] by segment: the survivors' sum mod 2^modulus_bits.
        shared: whose boxes went out, ascending ids.
        survivors: whose masked vectors are in the sum, ascending ids.
        quorum: threshold witnesses' signatures over the sets shared and survivors, by id; none
            with a semi-honest server. `verify_quorum` takes all three.
        faulty: clients that dealt shares which contradict each other, or whose boxes more than
            max_corrupt holders refused, ascending ids. Their secrets were rebuilt all the same.
        disputes: by dealer, the holders that refused its box: ascending ids. Where they are
            max_corrupt or fewer, the dealer or all of them are at fault.
    """

    sums: dict[str, NDArray[np.uint64]]
    shared: tuple[int, ...]
    survivors: tuple[int, ...]
    quorum: Mapping[int, bytes]
    faulty: tuple[int, ...]
    disputes: Mapping[int, tuple[int, ...]]


@dataclass(frozen=True)
class Finished:
    """The sum is out. Attributes: the round, nobody to hear from, and the result."""

    round: Round
    expected: frozenset[int]
    aggregate: Aggregate


@dataclass(frozen=True, repr=False)
class _Shares:
    """All shares: dealer position [N], holder's x [N], limbs [N, 9], by ascending holder."""

    dealers: NDArray[np.int64]
    xs: NDArray[np.uint64]
    limbs: NDArray[np.uint32]


def accept_unmask(state: CollectUnmask, sender: int, body: memoryview) -> UnmaskShares:
    """Parses one client's shares, one for each neighbour in shared, and checks them.

    Raises:
        FaultyClientError: a share is not what its dealer committed to: the sender lies, as it had
            to refuse such a box.
        ValueError: malformed.
    """
    commit, dealers = share_committer(state.round.ctx), _dealers(state, sender)
    answer = UnmaskShares.from_bytes(body, m=len(dealers))
    raw = answer.shares.astype("<u4").tobytes()
    for i, dealer in enumerate(dealers):
        if not answer.held[i]:
            continue
        survived = dealer in state.survivors
        kind = ShareKind.SELF_SEED if survived else ShareKind.MASK_KEY
        share = raw[i * shamir.SHARE_BYTES : (i + 1) * shamir.SHARE_BYTES]
        at = KEY_BYTES * survived
        promised = state.commitments[dealer][sender][at : at + KEY_BYTES]
        if commit(dealer, sender, kind, share) != promised:
            reason = f"its share of client {dealer} is not the one that client committed to"
            raise FaultyClientError(sender, reason)
    return answer


def close_unmask(state: CollectUnmask, received: Mapping[int, UnmaskShares]) -> Finished:
    """Rebuilds what is needed, from exactly threshold shares each, and takes the masks off.

    Needed are the self-mask seed of every survivor and the mask key of every client in shared
    that is no survivor but has one among its neighbours.

    Raises:
        TooFewClientsError: some secret has fewer than threshold shares.
        FaultyClientError: the shares that a client committed to do not rebuild the secret it
            advertised, whichever are left out; or there are fewer than threshold of them, as more
            than max_corrupt holders got no good box from it.
    """
    round_ = state.round
    needed, shares = _needed(state), _flat_shares(state, received)
    disputes = _disputes(state, received)
    _check_counts(round_, needed, shares, disputes)
    secrets, faulty = _rebuild(round_, needed, shares)
    bad = [i for i, secret in secrets.items() if not _is_advertised(state, i, secret)]
    secrets |= {i: _despite_bad_shares(state, i, shares) for i in bad}
    sums = tuple(array.copy() for array in state.sums)
    masking.add_masks(sums, _masks_left(state, secrets))
    parts = zip(round_.params.segments, sums, strict=True)
    totals = {s.name: low_bits(w, s.modulus_bits).astype(np.uint64) for s, w in parts}
    shared, survivors = tuple(sorted(state.bundles)), tuple(sorted(state.survivors))
    named = tuple(sorted({*faulty, *bad, *_proven(round_, disputes)}))
    result = Aggregate(totals, shared, survivors, state.quorum, named, disputes)
    return Finished(round_, frozenset(), result)


def needed_dealers(round_: Round, shared: Flags, survivors: Flags) -> Flags:
    """[n] whose secret unmasking takes: survivors, and dropped clients with a surviving peer."""
    met = round_.graph.count_neighbours(survivors) > 0
    return survivors | (shared & met)


def _needed(state: CollectUnmask) -> NDArray[np.int64]:
    """Ascending roster positions of the dealers whose secret is rebuilt."""
    shared, survivors = state.round.flags(set(state.bundles)), state.round.flags(state.survivors)
    return np.flatnonzero(needed_dealers(state.round, shared, survivors))


def _dealers(state: CollectUnmask, holder: int) -> list[int]:
    """Whose shares a holder answers for, ascending ids."""
    return [v for v in state.round.mask_neighbours(holder) if v in state.bundles]


def count_dealers(state: CollectUnmask, holder: int) -> int:
    """Returns how many shares a holder answers with."""
    return len(_dealers(state, holder))


def _flat_shares(state: CollectUnmask, received: Mapping[int, UnmaskShares]) -> _Shares:
    position = state.round.position
    dealers = [np.zeros(0, dtype=np.int64)]
    xs = [np.zeros(0, dtype=np.uint64)]
    limbs = [np.zeros((0, shamir.LIMBS), dtype=np.uint32)]
    for holder in sorted(received):
        answer = received[holder]
        found = np.array([position[v] for v in _dealers(state, holder)], dtype=np.int64)
        dealers.append(found[answer.held])
        xs.append(np.full(len(dealers[-1]), position[holder] + 1, dtype=np.uint64))
        limbs.append(answer.shares[answer.held])
    return _Shares(np.concatenate(dealers), np.concatenate(xs), np.concatenate(limbs))


def _disputes(
    state: CollectUnmask, received: Mapping[int, UnmaskShares]
) -> dict[int, tuple[int, ...]]:
    """By dealer, who answered that it holds no share of it: ascending ids."""
    found: dict[int, tuple[int, ...]] = {}
    for holder in sorted(received):
        if not (held := received[holder].held).all():
            dealers = _dealers(state, holder)
            for i in np.flatnonzero(~held).tolist():
                found[dealers[i]] = (*found.get(dealers[i], ()), holder)
    return {dealer: found[dealer] for dealer in sorted(found)}


def _proven(round_: Round, disputes: Mapping[int, tuple[int, ...]]) -> list[int]:
    """Dealers that an honest holder is among the accusers of, ascending ids."""
    most = round_.params.max_corrupt
    return [dealer for dealer, holders in disputes.items() if len(holders) > most]


def _check_counts(
    round_: Round,
    needed: NDArray[np.int64],
    shares: _Shares,
    disputes: Mapping[int, tuple[int, ...]],
) -> None:
    """Refuses to go on where a secret has fewer than threshold shares."""
    threshold = round_.params.threshold
    counts = np.bincount(shares.dealers, minlength=len(round_.ids))
    for dealer in _proven(round_, disputes):
        if counts[round_.position[dealer]] < threshold and round_.position[dealer] in needed:
            holders = len(disputes[dealer])
            raise FaultyClientError(dealer, f"{holders} of its holders got no good box of shares")
    have = int(counts[needed].min())
    if have < threshold:
        raise TooFewClientsError(round_.index, have, threshold, "shares of one secret", disputes)


def _rebuild(
    round_: Round, needed: NDArray[np.int64], shares: _Shares
) -> tuple[dict[int, bytes | None], tuple[int, ...]]:
    """Secrets by client id, None where the shares fit none; and who dealt a contradiction."""
    threshold = round_.params.threshold
    counts = np.bincount(shares.dealers, minlength=len(round_.ids))
    order = np.argsort(shares.dealers, kind="stable")
    starts = np.cumsum(counts) - counts
    chosen = order[starts[needed][:, None] + np.arange(threshold)]  # [G, t]
    secrets = shamir.combine(shares.xs[chosen], shares.limbs[chosen])
    # the check's coefficients hang on the shares, so no dealer can choose shares to fit them
    seed = sha256(shares.limbs.astype("<u4").tobytes())
    rand = stream_of(hkdf(seed, 2 * CIPHER_BYTES, label(Usage.SURPLUS, round_.ctx)))
    faulty: list[int] = []
    for count in np.unique(counts[needed][counts[needed] > threshold]).tolist():
        group = needed[counts[needed] == count]
        rows = order[starts[group][:, None] + np.arange(count)]  # [G, count]
        fine = shamir.consistent(shares.xs[rows], shares.limbs[rows], threshold, rand)
        faulty += [round_.ids[p] for p in group[~fine].tolist()]
    ids = [round_.ids[p] for p in needed.tolist()]
    return dict(zip(ids, secrets, strict=True)), tuple(sorted(faulty))


def _is_advertised(state: CollectUnmask, client_id: int, secret: bytes | None) -> bool:
    """Whether a rebuilt secret is the one that its owner committed to or sent the key of."""
    bundle = state.bundles[client_id]
    if secret is None:
        return False
    if client_id in state.survivors:
        return self_seed_commitment(state.round.ctx, client_id, secret) == bundle.commitment
    return public_key(secret) == bundle.mask_public_key


def _despite_bad_shares(state: CollectUnmask, client_id: int, shares: _Shares) -> bytes:
    """Rebuilds a secret whose dealer committed to wrong shares: the advertised one, if any is.

    Raises:
        FaultyClientError: no secret that the shares may stand for is: the dealer is to blame.
    """
    rows = np.flatnonzero(shares.dealers == state.round.position[client_id])
    threshold = state.round.params.threshold
    for secret in shamir.candidates(shares.xs[rows], shares.limbs[rows], threshold):
        if _is_advertised(state, client_id, secret):
            return secret
    what = "self-mask seed" if client_id in state.survivors else "mask key"
    reason = f"the shares it committed to do not rebuild the {what} it advertised"
    raise FaultyClientError(client_id, reason)


def _masks_left(
    state: CollectUnmask, secrets: Mapping[int, bytes | None]
) -> Iterator[tuple[bytes, bytes, bool]]:
    """The survivors' self masks and their pairwise masks with dropped clients, sign reversed."""
    round_ = state.round
    keys = {i: bundle.mask_public_key for i, bundle in state.bundles.items()}
    for client_id, secret in secrets.items():
        if secret is None:  # close_unmask has refused it
            continue
        if client_id in state.survivors:
            yield secret, masking.self_mask_info(round_.ctx, client_id), False
            continue
        agree = agreement(secret)
        for survivor in round_.mask_neighbours(client_id):
            if survivor in state.survivors:
                info = masking.pairwise_mask_info(round_.ctx, survivor, client_id, keys)
                yield agree(keys[survivor]), info, survivor > client_id
