"""The failing cases: one message for each refusal."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

import secureagg
from secureagg import messages
from secureagg._codec import u32
from secureagg.context import keys_to_sign
from secureagg.messages import (
    HEADER_BYTES,
    KeyBundle,
    Kind,
    NeighbourShares,
    SealedShares,
    UnmaskShares,
)
from tests.vectors.script import Json, Script, described, hexed

Edit = Callable[[Script, bytes], bytes]
Case = tuple[str, str, str, Edit]
"""(what is wrong, stage whose client message it asks for or is, error, edit)"""

N = 7  # clients; 6 never advertises, 5 never masks


def body(new: Callable[[Script, memoryview], bytes]) -> Edit:
    """An edit of what stands behind the header."""
    return lambda script, m: m[:HEADER_BYTES] + new(script, memoryview(m)[HEADER_BYTES:])


def bundles(change: Callable[[dict[int, KeyBundle]], dict[int, KeyBundle]]) -> Edit:
    """An edit of the neighbours' bundles that a client gets; their order is kept."""

    def new(script: Script, old: memoryview) -> bytes:
        found = messages.bundles_from_bytes(old, limit=99, signed=script.params.malicious)
        return b"".join(u32(i) + b.to_bytes() for i, b in change(found).items())

    return body(new)


def bundle(**fields: bytes) -> Edit:
    """Other fields in the bundle of client 1 that a client gets."""
    return bundles(lambda found: {**found, 1: dataclasses.replace(found[1], **fields)})


def own_bundle(**fields: bytes) -> Edit:
    """Other fields in the bundle that a client sends."""

    def new(script: Script, old: memoryview) -> bytes:
        found = KeyBundle.from_bytes(old, signed=script.params.malicious)
        return dataclasses.replace(found, **fields).to_bytes()

    return body(new)


def statuses(*values: int) -> Edit:
    """Other statuses."""
    return body(lambda *_: messages.statuses_to_bytes(np.array(values, dtype=np.uint8)))


def sealed(shared: list[int], senders: list[int]) -> Edit:
    """Another shared set, and boxes of these senders."""

    def new(_: Script, old: memoryview) -> bytes:
        found = NeighbourShares.from_bytes(old, num_clients=N, limit=N - 1)
        some = next(iter(found.boxes.values()))
        flags = np.isin(np.arange(N), shared)
        return NeighbourShares(flags, {i: found.boxes.get(i, some) for i in senders}).to_bytes()

    return body(new)


def first_box(change: Callable[[SealedShares], SealedShares]) -> Edit:
    """An edit of the box that client 1 sent."""

    def new(_: Script, old: memoryview) -> bytes:
        found = NeighbourShares.from_bytes(old, num_clients=N, limit=N - 1)
        boxes = {**found.boxes, 1: change(found.boxes[1])}
        return NeighbourShares(found.shared, boxes).to_bytes()

    return body(new)


def wrong_share(_: Script, old: memoryview) -> bytes:
    """The first share that a client reveals, with one bit changed."""
    answer = UnmaskShares.from_bytes(old, m=5)
    limbs = answer.shares.copy()
    limbs[0, 0] ^= 1
    return UnmaskShares(answer.held, limbs).to_bytes()


def quorum(change: Callable[[dict[int, bytes]], dict[int, bytes]]) -> Edit:
    """An edit of the witnesses' signatures."""

    def new(_: Script, old: memoryview) -> bytes:
        found = change(messages.quorum_from_bytes(old, limit=99))
        return b"".join(u32(i) + signature for i, signature in found.items())

    return body(new)


def anyhow(error: str, stage: str) -> list[Case]:
    """What every stage refuses."""
    return [
        ("another version", stage, error, lambda _, m: b"\x02" + m[1:]),
        ("another client", stage, error, lambda _, m: m[:2] + u32(3) + m[6:]),
        ("another context", stage, error, lambda _, m: m[:6] + bytes(32) + m[38:]),
        ("a kind of no stage", stage, error, lambda _, m: m[:1] + b"\x7f" + m[2:]),
        ("a byte too few", stage, error, lambda _, m: m[:-1]),
        ("a byte too many", stage, error, lambda _, m: m + b"\0"),
        ("a header cut short", stage, error, lambda _, m: m[:20]),
        ("nothing", stage, error, lambda *_: b""),
    ]


def cut(found: dict[int, Any], *ids: int) -> dict[int, Any]:
    """Without these entries."""
    return {i: item for i, item in found.items() if i not in ids}


def kind(number: Kind) -> Edit:
    """The same message under another kind."""
    return lambda _, m: m[:1] + bytes([number]) + m[2:]


def own_key(script: Script, message: bytes) -> bytes:
    """The receiver's own mask key in the bundle of client 1."""
    mine = KeyBundle.from_bytes(script.up[0][0][HEADER_BYTES:], signed=True).mask_public_key
    return bundle(mask_public_key=mine)(script, message)


def longer(_: Script, old: memoryview) -> bytes:
    """A box too many, for the client that never advertised."""
    return bytes(old) + u32(6) + bytes(old[-154:])


SMALL_ORDER = (1).to_bytes(32, "little")
NON_CANONICAL = ((1 << 255) - 10).to_bytes(32, "little")

CLIENT_CASES: list[Case] = [
    *(c for stage in ("share_keys", "mask_input", "check_consistency", "unmask")
      for c in anyhow("MessageError", stage)),
    ("a message of the next stage", "share_keys", "MessageError", kind(Kind.NEIGHBOUR_SHARES)),
    ("a message of the next stage", "mask_input", "MessageError", kind(Kind.STATUSES)),
    ("a message of the next stage", "check_consistency", "MessageError", kind(Kind.QUORUM)),
    ("ids out of order", "share_keys", "MessageError",
     bundles(lambda f: {2: f[2], 1: f[1], **cut(f, 1, 2)})),
    ("an id twice", "share_keys", "MessageError", body(lambda _, b: bytes(b[:164]) * 2)),
    ("not a neighbour", "share_keys", "FaultyServerError",
     bundles(lambda f: {**cut(f, 5), 77: f[5]})),
    ("its own id", "share_keys", "FaultyServerError",
     bundles(lambda f: {0: f[5], **cut(f, 5)})),
    ("an enc key of small order", "share_keys", "FaultyServerError",
     bundle(enc_public_key=SMALL_ORDER)),
    ("a mask key of small order", "share_keys", "FaultyServerError",
     bundle(mask_public_key=SMALL_ORDER)),
    ("a non-canonical enc key", "share_keys", "FaultyServerError",
     bundle(enc_public_key=NON_CANONICAL)),
    ("a non-canonical mask key", "share_keys", "FaultyServerError",
     bundle(mask_public_key=NON_CANONICAL)),
    ("a key twice in a bundle", "share_keys", "FaultyServerError",
     bundles(lambda f: {**f, 1: dataclasses.replace(f[1], enc_public_key=f[1].mask_public_key)})),
    ("a key of two clients", "share_keys", "FaultyServerError",
     bundles(lambda f: {**f, 1: dataclasses.replace(f[1], enc_public_key=f[2].enc_public_key)})),
    ("its own key", "share_keys", "FaultyServerError", own_key),
    ("a commitment that was not signed", "share_keys", "FaultyServerError",
     bundle(commitment=bytes(32))),
    ("a signature of nobody", "share_keys", "FaultyServerError", bundle(signature=bytes(64))),
    ("keys that another client signed", "share_keys", "FaultyServerError",
     bundles(lambda f: {**f, 1: f[2], 2: f[1]})),
    ("too few neighbours", "share_keys", "TooFewClientsError", bundles(lambda f: cut(f, 3, 4, 5))),
    ("not in shared itself", "mask_input", "FaultyServerError",
     sealed([1, 2, 3, 4, 5], [1, 2, 3, 4, 5])),
    ("a box missing", "mask_input", "FaultyServerError",
     sealed([0, 1, 2, 3, 4, 5], [1, 2, 3, 4])),
    ("a box of nobody in shared", "mask_input", "FaultyServerError",
     sealed([0, 1, 2, 3, 4], [1, 2, 3, 4, 5])),
    ("a neighbour in shared with no accepted keys", "mask_input", "FaultyServerError",
     sealed([0, 1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6])),
    ("too few neighbours shared", "mask_input", "TooFewClientsError",
     sealed([0, 1, 2], [1, 2])),
    ("fewer shared than must survive", "mask_input", "TooFewClientsError",
     sealed([0, 1, 2, 3], [1, 2, 3])),
    ("padding of flags", "mask_input", "MessageError",
     body(lambda _, b: bytes([b[0] | 0x80]) + bytes(b[1:]))),
    ("both kinds of share", "check_consistency", "FaultyServerError",
     statuses(2, 3, 2, 2, 2, 1, 0)),
    ("itself no survivor", "check_consistency", "FaultyServerError",
     statuses(1, 2, 2, 2, 2, 1, 0)),
    ("shared has shrunk", "check_consistency", "FaultyServerError",
     statuses(2, 2, 2, 2, 2, 0, 0)),
    ("shared has grown", "check_consistency", "FaultyServerError",
     statuses(2, 2, 2, 2, 2, 1, 1)),
    ("fewer survivors than c + 2", "check_consistency", "FaultyServerError",
     statuses(2, 2, 2, 2, 1, 1, 0)),
    ("fewer survivors than min_survivors", "check_consistency", "FaultyServerError",
     statuses(2, 2, 2, 1, 1, 1, 0)),
    ("padding of statuses", "check_consistency", "MessageError",
     body(lambda _, b: bytes(b[:-1]) + bytes([b[-1] | 0x40]))),
    ("a signature too few", "unmask", "FaultyServerError",
     quorum(lambda f: cut(f, max(f)))),
    ("no signature", "unmask", "FaultyServerError", quorum(lambda f: {})),
    ("a signature twice", "unmask", "MessageError", body(lambda _, b: bytes(b[:68]) * 3)),
    ("a signature of other sets", "unmask", "FaultyServerError",
     quorum(lambda f: {**f, max(f): f[min(f)]})),
    ("a signature of a stranger", "unmask", "FaultyServerError",
     quorum(lambda f: {**cut(f, max(f)), 77: f[max(f)]})),
]  # fmt: skip

REPORTS: list[tuple[str, Edit]] = [
    ("a box that does not open", first_box(lambda b: b._replace(box=bytes(90)))),
    ("a share of the mask key that was not committed to",
     first_box(lambda b: b._replace(mask_key_commitment=bytes(32)))),
    ("a share of the seed that was not committed to",
     first_box(lambda b: b._replace(seed_commitment=bytes(32)))),
]  # fmt: skip

SERVER_CASES: list[Case] = [
    *(c for stage in secureagg.STAGES for c in anyhow("MessageError", stage)),
    ("a key of small order", "advertise_keys", "FaultyClientError",
     own_bundle(mask_public_key=SMALL_ORDER)),
    ("one key twice", "advertise_keys", "FaultyClientError",
     body(lambda _, b: bytes(b[:32]) * 2 + bytes(b[64:]))),
    ("a non-canonical key", "advertise_keys", "FaultyClientError",
     own_bundle(enc_public_key=NON_CANONICAL)),
    ("a commitment that was not signed", "advertise_keys", "FaultyClientError",
     own_bundle(commitment=bytes(32))),
    ("a box for too few holders", "share_keys", "FaultyClientError",
     body(lambda _, b: bytes(b[:-158]))),
    ("a box for a client that never advertised", "share_keys", "FaultyClientError", body(longer)),
    ("a holder twice", "share_keys", "MessageError",
     body(lambda _, b: bytes(b[:158]) + bytes(b[:-158]))),
    ("padding of a vector", "mask_input", "MessageError",
     body(lambda _, b: bytes(b[:-1]) + bytes([b[-1] | 0x80]))),
    ("a signature of other sets", "check_consistency", "FaultyClientError",
     body(lambda _, b: bytes([b[0] ^ 1]) + bytes(b[1:]))),
    ("a wrong share", "unmask", "FaultyClientError", body(wrong_share)),
    ("a share above the prime", "unmask", "MessageError",
     body(lambda _, b: bytes(b[:-4]) + b"\xff\xff\xff\xff")),
    ("a share that is not held and not zero", "unmask", "MessageError",
     body(lambda _, b: bytes([b[0] ^ 1]) + bytes(b[1:]))),
    ("padding of the held flags", "unmask", "MessageError",
     body(lambda _, b: bytes([b[0] ^ 0x80]) + bytes(b[1:]))),
]  # fmt: skip


def refusal_script() -> Script:
    return Script(
        "seven clients, complete graph, malicious server, one never advertises, one never masks",
        list(range(N)), server="malicious", threshold=3, min_survivors=4, corrupt="3/7",
    )  # fmt: skip


GONE = {"advertise_keys": [6], "share_keys": [6], "mask_input": [5, 6]}


def case_of(what: str, stage: str, message: bytes, error: str, blamed: int | str | None) -> Json:
    return {
        "refuses": what, "stage": stage, "message": message.hex(), "error": error,
        "blamed": blamed,
    }  # fmt: skip


def flipped(message: bytes) -> bytes:
    return message[:-1] + bytes([message[-1] ^ 1])


def client_refusals() -> Json:
    """Messages that client 0 must refuse, beside the honest ones, which it takes before them."""
    script, cases, reports = refusal_script(), [], []
    honest: list[Json] = []
    for stage in script.params.stages:
        inbound = script.inbound.get(0)
        if inbound is not None:
            for what, where, error, edit in CLIENT_CASES:
                if where == stage:
                    blamed = "server" if error == "FaultyServerError" else None
                    cases.append(case_of(what, stage, edit(script, inbound), error, blamed))
            if honest:
                again = flipped(bytes.fromhex(honest[-1]["message"]))
                what = "a second, different message of the stage before"
                cases.append(case_of(what, stage, again, "FaultyServerError", "server"))
            if stage == "mask_input":
                for what, edit in REPORTS:
                    changed = edit(script, inbound).hex()
                    reports.append({"reports": what, "message": changed, "blamed": 1})
            honest.append({"stage": stage, "message": inbound.hex()})
        script.step(gone=GONE.get(stage, []))
    again = flipped(bytes.fromhex(honest[-1]["message"]))
    cases.append(case_of("a second request", "end", again, "FaultyServerError", "server"))
    return {**described(script), "client": 0, "honest": honest, "cases": cases, "reports": reports}


def taken_keys(script: Script, sent: dict[int, bytes]) -> bytes:
    """Client 6 advertises the keys of client 1, and signs them."""
    stolen, key = KeyBundle.from_bytes(sent[1][HEADER_BYTES:], signed=True), script.keys[6]
    if key is None:
        raise ValueError("clients sign")
    bare = dataclasses.replace(stolen, signature=b"")
    signature = key.sign(keys_to_sign(script.server._round, 6, bare.to_bytes()))
    signed = dataclasses.replace(stolen, signature=signature)
    return messages.header(Kind.KEYS, 6, script.server._round.ctx) + signed.to_bytes()


def server_refusals() -> Json:
    """Messages that the server must refuse, before and after it takes the honest ones."""
    script, cases, honest = refusal_script(), [], []
    for stage in script.params.stages:
        sent = script.answer(gone=GONE.get(stage, []))
        for what, where, error, edit in SERVER_CASES:
            if where == stage:
                found = case_of(what, stage, edit(script, sent[0]), error, 0)
                cases.append({**found, "sender": 0, "when": "before"})
        late: list[tuple[str, int, bytes, str]] = [
            ("a second, different message", 0, flipped(sent[0]), "FaultyClientError"),
            (
                "a sender outside the roster",
                77,
                sent[0][:2] + u32(77) + sent[0][6:],
                "MessageError",
            ),
        ]
        if stage == "advertise_keys":
            late.append(("keys that are taken", 6, taken_keys(script, sent), "MessageError"))
        for what, sender, message, error in late:
            found = case_of(what, stage, message, error, sender)
            cases.append({**found, "sender": sender, "when": "after"})
        need = script.params.required_survivors
        need = script.params.threshold if stage in ("check_consistency", "unmask") else need
        closing = {"error": "TooFewClientsError", "have": 0, "need": need}
        honest.append({"stage": stage, "messages": hexed(sent), "closed_at_once": closing})
        for i, message in sent.items():
            script.server.receive(i, message)
        script.inbound = script.server.close_stage()
    return {**described(script), "honest": honest, "cases": cases}
