"""Who refuses what, and whom it blames: a second reading of docs/protocol.md.

It imports nothing of secureagg. A Judge takes the honest messages of a party one by one and gives a
verdict on any other: (error, blamed), or None where the message would be taken or ignored.
"""

from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from tests.secureagg.reference import P31, P25519, Reference, label, le, sha, x25519

MALFORMED = "MessageError"


class Refusal(Exception):
    """The name of an error, and a blame that is not the obvious one."""


def proper(key) -> bool:
    return int.from_bytes(key, "little") < P25519 and x25519(bytes(32), key) != bytes(32)


def signed(key, signature, data) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, data)
    except InvalidSignature:
        return False
    return True


def need(condition, error) -> None:
    if not condition:
        raise Refusal(error)


def entries(body, size, most) -> dict[int, bytes]:
    need(len(body) % (4 + size) == 0 and len(body) // (4 + size) <= most, MALFORMED)
    rows = [body[at : at + 4 + size] for at in range(0, len(body), 4 + size)]
    found = {int.from_bytes(row[:4], "little"): row[4:] for row in rows}
    need(len(found) == len(rows) and list(found) == sorted(found), MALFORMED)
    return found


def bits(body, count) -> list[int]:
    """Flags, least significant bit first; padding is zero."""
    need(len(body) == (count + 7) // 8, MALFORMED)
    number = int.from_bytes(body, "little")
    need(number >> count == 0, MALFORMED)
    return [number >> at & 1 for at in range(count)]


class Judge:
    """What both roles have in common."""

    def __init__(self, vector) -> None:
        self.ref = Reference(vector)
        self.p: dict[str, Any] = self.ref.p
        self.n, self.t, self.k = (self.p[f] for f in ("num_clients", "threshold", "degree"))
        corrupt = self.p["corrupt"].split("/")
        c = self.n * int(corrupt[0]) // int(corrupt[1]) if len(corrupt) > 1 else 0
        self.survive = max(self.p["min_survivors"], c + 2)
        self.taken: dict[tuple[int, int], bytes] = {}

    def opened(self, message, client_id) -> tuple[int, bytes]:
        need(len(message) >= 38, MALFORMED)
        need(message[0] == 1 and message[2:6] == le(client_id, 4), MALFORMED)
        need(message[6:38] == self.ref.ctx, MALFORMED)
        return message[1], message[38:]

    def own_keys(self, client_id, bundle) -> bool:
        data = label(11, b"\1", self.ref.ctx, le(client_id, 4), bundle[:96])
        return signed(self.ref.roster[client_id], bundle[96:], data)

    def attested(self, client_id, signature, shared, survivors) -> bool:
        sets = sha(self.ref.flags(shared)), sha(self.ref.flags(survivors))
        return signed(self.ref.roster[client_id], signature, label(14, self.ref.ctx, *sets))


class ClientJudge(Judge):
    """A client against a malicious server."""

    def __init__(self, vector) -> None:
        super().__init__(vector)
        self.me: int = vector["client"]
        self.steps = [self.keys, self.boxes, self.statuses, self.quorum]
        self.bundles: set[int] = set()
        self.shared: set[int] = set()
        self.survivors: set[int] = set()

    def verdict(self, message) -> tuple[str, str | None] | None:
        try:
            self.take(message)
        except Refusal as refusal:
            error = str(refusal)
            return error, "server" if error == "FaultyServerError" else None
        return None

    def take(self, message) -> None:
        kind, body = self.opened(message, self.me)
        if (0, kind) in self.taken:
            need(self.taken[0, kind] == message, "FaultyServerError")
            return
        step = len(self.taken)
        need(step < 4 and kind == 129 + step, MALFORMED)
        self.steps[step](body)
        self.taken[0, kind] = message

    def keys(self, body) -> None:
        found, near = entries(body, 160, self.k), self.ref.near[self.me]
        mine = self.ref.keys[self.me]["bundle"]
        every = [b[at : at + 32] for b in (mine, *found.values()) for at in (0, 32)]
        fair = set(found) <= set(near) and all(map(proper, every))
        fair = fair and len(set(every)) == len(every)
        need(fair and all(self.own_keys(i, b) for i, b in found.items()), "FaultyServerError")
        need(len(found) >= self.t, "TooFewClientsError")
        self.bundles = set(found)

    def boxes(self, body) -> None:
        cut = (self.n + 7) // 8
        flags = bits(body[:cut], self.n)
        found = entries(body[cut:], 154, self.k)
        shared = {i for i, here in zip(self.ref.ids, flags, strict=True) if here}
        near = [i for i in self.ref.near[self.me] if i in shared]
        fair = self.me in shared and list(found) == near and set(near) <= self.bundles
        need(fair, "FaultyServerError")
        need(len(near) >= self.t and len(shared) >= self.survive, "TooFewClientsError")
        self.shared = shared

    def statuses(self, body) -> None:
        flat = bits(body, 2 * self.n)
        values = [flat[2 * at] + 2 * flat[2 * at + 1] for at in range(self.n)]
        status = dict(zip(self.ref.ids, values, strict=True))
        survivors = {i for i, value in status.items() if value == 2}
        fair = 3 not in values and self.me in survivors and len(survivors) >= self.survive
        need(fair and {i for i, v in status.items() if v} == self.shared, "FaultyServerError")
        self.survivors = survivors

    def quorum(self, body) -> None:
        found = entries(body, 64, len(self.ref.witnesses))
        fine = [
            i for i in found
            if i in self.ref.witnesses
            and self.attested(i, found[i], self.shared, self.survivors)
        ]  # fmt: skip
        need(len(fine) >= self.t, "FaultyServerError")


class ServerJudge(Judge):
    """The server, stage by stage: `close` ends one."""

    def __init__(self, vector) -> None:
        super().__init__(vector)
        self.stage = 0
        self.expected = set(self.ref.ids)
        self.answered: dict[int, bytes] = {}
        self.promised: dict[int, dict[int, bytes]] = {}
        self.sets: list[set[int]] = []

    def verdict(self, sender, message) -> tuple[str, int] | None:
        try:
            self.take(sender, message)
        except Refusal as refusal:
            return str(refusal), sender
        return None

    def take(self, sender, message) -> None:
        need(sender in self.ref.ids, MALFORMED)
        kind, body = self.opened(message, sender)
        if (sender, kind) in self.taken:
            need(self.taken[sender, kind] == message, "FaultyClientError")
            return
        if sender not in self.expected:
            return
        need(kind == self.stage + 1, MALFORMED)
        steps = [self.keys, self.boxes, self.vector, self.signature, self.shares]
        steps[self.stage](sender, body)
        self.taken[sender, kind] = message
        self.answered[sender] = body

    def close(self) -> tuple[int, int] | None:
        """(have, need) where there are too few."""
        have, few = set(self.answered), self.survive
        if self.stage < 2:
            have = self.ref.core(have)
        elif self.stage > 2:
            few = self.t
        if len(have) < few:
            return len(have), few
        self.sets.append(have)
        self.expected, self.stage, self.answered = have, self.stage + 1, {}
        return None

    def keys(self, sender, body) -> None:
        need(len(body) == 160, MALFORMED)
        mine = {body[:32], body[32:64]}
        fair = len(mine) == 2 and all(map(proper, mine)) and self.own_keys(sender, body)
        need(fair, "FaultyClientError")
        used = {b[at : at + 32] for b in self.answered.values() for at in (0, 32)}
        need(not mine & used, MALFORMED)

    def boxes(self, sender, body) -> None:
        found = entries(body, 154, self.k)
        holders = [i for i in self.ref.near[sender] if i in self.sets[0]]
        need(list(found) == holders, "FaultyClientError")
        self.promised[sender] = {i: entry[90:] for i, entry in found.items()}

    def vector(self, sender, body) -> None:
        size = 0
        for _, length, width in self.p["segments"]:
            part = body[size : size + (length * width + 7) // 8]
            bits(part, length * width)
            size += len(part)
        need(len(body) == size, MALFORMED)

    def signature(self, sender, body) -> None:
        need(len(body) == 64, MALFORMED)
        need(self.attested(sender, body, self.sets[1], self.sets[2]), "FaultyClientError")

    def shares(self, sender, body) -> None:
        dealers = [i for i in self.ref.near[sender] if i in self.sets[1]]
        cut = (len(dealers) + 7) // 8
        need(len(body) == cut + 36 * len(dealers), MALFORMED)
        held = bits(body[:cut], len(dealers))
        for at in range(len(dealers)):
            share = body[cut + 36 * at : cut + 36 * at + 36]
            limbs = [int.from_bytes(share[i : i + 4], "little") for i in range(0, 36, 4)]
            need(max(limbs) < P31 and (held[at] or not any(limbs)), MALFORMED)
        for at, dealer in enumerate(dealers):
            survived = dealer in self.sets[2]
            share = body[cut + 36 * at : cut + 36 * at + 36]
            fields = (self.ref.ctx, le(dealer, 4), le(sender, 4), bytes([1 + survived]), share)
            promised = self.promised[dealer][sender][32 * survived :][:32]
            need(not held[at] or sha(label(12, *fields)) == promised, "FaultyClientError")
