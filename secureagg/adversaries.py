"""Faulty servers and clients as plain functions that rewrite messages, for `run_round(wire=...)`.

A `Wire` stands between clients and server: given whom a message is from (kinds below 128) or to,
it returns what is delivered instead. Each maker here returns one; who must catch it, and whom the
error blames, is in its docstring. They know what a real adversary in their place would know.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

import numpy as np

from secureagg import messages
from secureagg.context import Round
from secureagg.messages import HEADER_BYTES, KeyBundle, Kind, NeighbourShares, Status, UnmaskShares

Delivery = Sequence[tuple[int, bytes]]
Wire = Callable[[int, bytes], Delivery]


def honest(client_id: int, message: bytes) -> Delivery:
    """Delivers everything."""
    return [(client_id, message)]


def on_kind(kind: Kind, change: Wire, *, clients: Collection[int] | None = None) -> Wire:
    """Rewrites messages of one kind, from or to some clients (None: all), and nothing else."""

    def wire(client_id: int, message: bytes) -> Delivery:
        if message[1] != kind or (clients is not None and client_id not in clients):
            return [(client_id, message)]
        return change(client_id, message)

    return wire


def both(*wires: Wire) -> Wire:
    """Rewrites by each wire in turn."""

    def wire(client_id: int, message: bytes) -> Delivery:
        delivery: Delivery = [(client_id, message)]
        for step in wires:
            delivery = [done for item in delivery for done in step(*item)]
        return delivery

    return wire


def ask_both_kinds(round_: Round, victim: int) -> Wire:
    """Server: asks for both shares of `victim`. Its holders blame the server."""
    return _set_status(round_, victim, 3)


def shrink_survivors(round_: Round, keep: Collection[int]) -> Wire:
    """Server: names only `keep` as survivors. If too few, every one of them blames the server."""

    def change(client_id: int, message: bytes) -> Delivery:
        statuses = _statuses(round_, message)
        outside = ~round_.flags(set(keep)) & (statuses == Status.SURVIVOR)
        statuses[outside] = Status.SHARED
        return [(client_id, _with_body(message, messages.statuses_to_bytes(statuses)))]

    return on_kind(Kind.STATUSES, change)


def ask_again(round_: Round, victim: int) -> Wire:
    """Server: after the unmask request, one in which `victim` has dropped. Clients blame it."""
    changed = _set_status(round_, victim, Status.SHARED)

    def change(client_id: int, message: bytes) -> Delivery:
        return [(client_id, message), *changed(client_id, message)]

    return on_kind(Kind.STATUSES, change)


def withhold_box(round_: Round, client_id: int, dealer: int) -> Wire:
    """Server: keeps the box from `dealer` to `client_id` back, who blames the server."""
    return on_kind(
        Kind.NEIGHBOUR_SHARES,
        lambda to, message: [(to, _without_boxes(round_, message, {dealer}, keep_flag=True))],
        clients={client_id},
    )


def swap_keys(victim: int, receiver: int, keys: KeyBundle) -> Wire:
    """Server: gives `receiver` keys of its own as those of `victim`, to read their box.

    Against a malicious server `receiver` blames it, as `victim` did not sign them. With a
    semi-honest one nobody notices: that is what signatures are for.
    """

    def change(client_id: int, message: bytes) -> Delivery:
        signed = (len(message) - HEADER_BYTES) % (4 + KeyBundle.len_bytes(signed=True)) == 0
        body = memoryview(message)[HEADER_BYTES:]
        bundles = messages.bundles_from_bytes(body, limit=len(body), signed=signed)
        bundles[victim] = replace(keys, signature=bundles[victim].signature)
        return [(client_id, _with_body(message, messages.bundles_to_bytes(bundles)))]

    return on_kind(Kind.NEIGHBOUR_KEYS, change, clients={receiver})


def replay(kind: Kind, recorded: dict[int, bytes]) -> Wire:
    """Server: sends messages of another session, round or attempt. Clients refuse the context."""
    return on_kind(kind, lambda client_id, _: [(client_id, recorded[client_id])])


def claim_context(ctx: bytes) -> Wire:
    """Server: speaks of weaker parameters or another cohort. Clients refuse the context."""

    def wire(client_id: int, message: bytes) -> Delivery:
        if message[1] < Kind.NEIGHBOUR_KEYS:
            return [(client_id, message)]
        return [(client_id, message[:6] + ctx + message[HEADER_BYTES:])]

    return wire


def equivocate_survivors(round_: Round, victim: int, told: Collection[int]) -> Wire:
    """Server: tells `told` that `victim` dropped and the others that it did not.

    It shows each side the witnesses of its own view. A side with fewer than threshold of them
    blames the server.
    """
    return both(
        on_kind(Kind.STATUSES, _set_status(round_, victim, Status.SHARED), clients=told),
        _own_quorum(round_, told),
    )


def equivocate_shared(round_: Round, victim: int, told: Collection[int]) -> Wire:
    """Server: tells `told`, say an arc of the ring, that `victim` never shared; and sticks to it.

    As `equivocate_survivors`; without witnesses, both sides would go on.
    """
    shares = on_kind(
        Kind.NEIGHBOUR_SHARES,
        lambda to, message: [(to, _without_boxes(round_, message, {victim}, keep_flag=False))],
        clients=told,
    )
    statuses = on_kind(Kind.STATUSES, _set_status(round_, victim, Status.ABSENT), clients=told)
    return both(shares, statuses, _own_quorum(round_, told))


def send_garbage(kind: Kind, client_id: int) -> Wire:
    """Client: sends noise in place of a message. The server names it, or its transport."""
    return on_kind(
        kind,
        lambda sender, message: [(sender, bytes(b ^ 0xA5 for b in message))],
        clients={client_id},
    )


def send_twice(client_id: int) -> Wire:
    """Client: sends everything twice. Nobody minds."""

    def wire(sender: int, message: bytes) -> Delivery:
        twice = sender == client_id and message[1] < Kind.NEIGHBOUR_KEYS
        return [(sender, message)] * (1 + twice)

    return wire


def send_late(kind: Kind, client_id: int) -> Wire:
    """Client: its message of one stage comes with the next stage's. It counts as dropped."""
    kept: list[tuple[int, bytes]] = []

    def wire(sender: int, message: bytes) -> Delivery:
        if message[1] == kind and sender == client_id:
            kept.append((sender, message))
            return []
        if message[1] < Kind.NEIGHBOUR_KEYS and message[1] != kind and kept:
            return [(sender, message), kept.pop()]
        return [(sender, message)]

    return wire


def lie_about_share(holder: int, row: int) -> Wire:
    """Client: answers with a wrong share of its `row`-th dealer. The server names the holder."""

    def change(sender: int, message: bytes) -> Delivery:
        body = memoryview(message)[HEADER_BYTES:]
        # m shares behind ceil(m / 8) bytes of flags
        m = next(m for m in range(len(body)) if UnmaskShares.len_bytes(m=m) == len(body))
        answer = UnmaskShares.from_bytes(body, m=m)
        shares = answer.shares.copy()
        shares[row, 0] ^= 1
        return [(sender, _with_body(message, UnmaskShares(answer.held, shares).to_bytes()))]

    return on_kind(Kind.UNMASK_SHARES, change, clients={holder})


def frame_holder(dealer: int, holder: int) -> Wire:
    """Client: deals `holder` a box that does not open, to have it blamed for its shares later.

    The holder suspects dealer or server, holds no share, and the round goes on.
    """

    def change(sender: int, message: bytes) -> Delivery:
        body = memoryview(message)[HEADER_BYTES:]
        boxes = messages.boxes_from_bytes(body, limit=len(body))
        box = boxes[holder].box
        boxes[holder] = boxes[holder]._replace(box=box[:-1] + bytes([box[-1] ^ 1]))
        return [(sender, _with_body(message, messages.boxes_to_bytes(boxes)))]

    return on_kind(Kind.SHARES, change, clients={dealer})


def _own_quorum(round_: Round, told: Collection[int]) -> Wire:
    """Keeps the signatures of `told` from the others, and shows `told` nothing else."""
    kept: dict[int, bytes] = {}

    def wire(client_id: int, message: bytes) -> Delivery:
        if message[1] == Kind.WITNESS_SIGNATURE and client_id in told:
            kept[client_id] = message[HEADER_BYTES:]
            return []
        if message[1] != Kind.QUORUM:
            return [(client_id, message)]
        sides = [(client_id, message)]
        # a witness that is told another view counts as dropped with the rest, so it is asked here
        if kept:
            body = messages.quorum_to_bytes(kept)
            sides += [(i, _addressed(message, i, body)) for i in sorted(kept)]
            kept.clear()
        return sides

    return wire


def _set_status(round_: Round, victim: int, status: int) -> Wire:
    def change(client_id: int, message: bytes) -> Delivery:
        statuses = _statuses(round_, message)
        statuses[round_.position[victim]] = status
        return [(client_id, _with_body(message, messages.statuses_to_bytes(statuses)))]

    return on_kind(Kind.STATUSES, change)


def _statuses(round_: Round, message: bytes) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    body = memoryview(message)[HEADER_BYTES:]
    return messages.statuses_from_bytes(body, num_clients=len(round_.ids)).reshape(-1)


def _without_boxes(round_: Round, message: bytes, dealers: set[int], *, keep_flag: bool) -> bytes:
    body = memoryview(message)[HEADER_BYTES:]
    found = NeighbourShares.from_bytes(
        body, num_clients=len(round_.ids), limit=round_.params.degree
    )
    shared = found.shared.copy()
    if not keep_flag:
        shared &= ~round_.flags(dealers)
    boxes = {i: sealed for i, sealed in found.boxes.items() if i not in dealers}
    return _with_body(message, NeighbourShares(shared, boxes).to_bytes())


def _with_body(message: bytes, body: bytes) -> bytes:
    return message[:HEADER_BYTES] + body


def _addressed(message: bytes, client_id: int, body: bytes) -> bytes:
    return message[:2] + client_id.to_bytes(4, "little") + message[6:HEADER_BYTES] + body
