"""The failing cases: one message for each refusal."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

import secureagg
from secureagg import messages
from secureagg._codec import u32
from secureagg.messages import HEADER_BYTES, KeyBundle, NeighbourShares, UnmaskShares
from tests.vectors.script import Json, Script, described, hexed

Edit = Callable[[Script, bytes], bytes]
Case = tuple[str, str, str, Edit]
"""(what is wrong, stage whose client message it asks for or is, error, edit)"""


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
        found = NeighbourShares.from_bytes(old, num_clients=6, limit=5)
        some = next(iter(found.boxes.values()))
        flags = np.isin(np.arange(6), shared)
        return NeighbourShares(flags, {i: found.boxes.get(i, some) for i in senders}).to_bytes()

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
        found = change(messages.quorum_from_bytes(old, limit=6))
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
    ]


def cut(found: dict[int, Any], *ids: int) -> dict[int, Any]:
    """Without these entries."""
    return {i: item for i, item in found.items() if i not in ids}


SMALL_ORDER = (1).to_bytes(32, "little")
NON_CANONICAL = ((1 << 255) - 10).to_bytes(32, "little")

CLIENT_CASES: list[Case] = [
    *(c for stage in ("share_keys", "mask_input", "check_consistency", "unmask")
      for c in anyhow("MessageError", stage)),
    ("ids out of order", "share_keys", "MessageError",
     bundles(lambda f: {2: f[2], 1: f[1], **cut(f, 1, 2)})),
    ("not a neighbour", "share_keys", "FaultyServerError",
     bundles(lambda f: {**cut(f, 5), 77: f[5]})),
    ("its own id", "share_keys", "FaultyServerError",
     bundles(lambda f: {0: f[5], **cut(f, 5)})),
    ("a key of small order", "share_keys", "FaultyServerError", bundle(enc_public_key=SMALL_ORDER)),
    ("a non-canonical key", "share_keys", "FaultyServerError",
     bundle(mask_public_key=NON_CANONICAL)),
    ("a key twice", "share_keys", "FaultyServerError",
     bundles(lambda f: {**f, 1: dataclasses.replace(f[1], enc_public_key=f[1].mask_public_key)})),
    ("a commitment that was not signed", "share_keys", "FaultyServerError",
     bundle(commitment=bytes(32))),
    ("a signature of nobody", "share_keys", "FaultyServerError", bundle(signature=bytes(64))),
    ("too few neighbours", "share_keys", "TooFewClientsError", bundles(lambda f: cut(f, 3, 4))),
    ("not in shared itself", "mask_input", "FaultyServerError",
     sealed([1, 2, 3, 4, 5], [1, 2, 3, 4, 5])),
    ("a box missing", "mask_input", "FaultyServerError",
     sealed([0, 1, 2, 3, 4, 5], [1, 2, 3, 4])),
    ("a box of nobody in shared", "mask_input", "FaultyServerError",
     sealed([0, 1, 2, 3, 4], [1, 2, 3, 4, 5])),
    ("too few neighbours shared", "mask_input", "TooFewClientsError",
     sealed([0, 1, 2, 3], [1, 2, 3])),
    ("padding of flags", "mask_input", "MessageError",
     body(lambda _, b: bytes([b[0] | 0x40]) + bytes(b[1:]))),
    ("both kinds of share", "check_consistency", "FaultyServerError", statuses(2, 3, 2, 2, 2, 1)),
    ("itself no survivor", "check_consistency", "FaultyServerError", statuses(1, 2, 2, 2, 2, 1)),
    ("shared has shrunk", "check_consistency", "FaultyServerError", statuses(2, 2, 2, 2, 2, 0)),
    ("too few survivors", "check_consistency", "FaultyServerError", statuses(2, 2, 1, 1, 1, 1)),
    ("padding of statuses", "check_consistency", "MessageError",
     body(lambda _, b: bytes(b[:-1]) + bytes([b[-1] | 0x40]))),
    ("a signature too few", "unmask", "FaultyServerError",
     quorum(lambda f: cut(f, max(f)))),
    ("a signature of other sets", "unmask", "FaultyServerError",
     quorum(lambda f: {**f, max(f): f[min(f)]})),
    ("a signature of a stranger", "unmask", "FaultyServerError",
     quorum(lambda f: {**cut(f, max(f)), 77: f[max(f)]})),
]  # fmt: skip

SERVER_CASES: list[Case] = [
    *(c for stage in secureagg.STAGES for c in anyhow("MessageError", stage)),
    ("a key of small order", "advertise_keys", "FaultyClientError",
     own_bundle(mask_public_key=SMALL_ORDER)),
    ("a non-canonical key", "advertise_keys", "FaultyClientError",
     own_bundle(enc_public_key=NON_CANONICAL)),
    ("a commitment that was not signed", "advertise_keys", "FaultyClientError",
     own_bundle(commitment=bytes(32))),
    ("a box for too few holders", "share_keys", "FaultyClientError",
     body(lambda _, b: bytes(b[:-158]))),
    ("padding of a vector", "mask_input", "MessageError",
     body(lambda _, b: bytes(b[:-1]) + bytes([b[-1] | 0x80]))),
    ("a signature of other sets", "check_consistency", "FaultyClientError",
     body(lambda _, b: bytes([b[0] ^ 1]) + bytes(b[1:]))),
    ("a wrong share", "unmask", "FaultyClientError", body(wrong_share)),
    ("a share above the prime", "unmask", "MessageError",
     body(lambda _, b: bytes(b[:-4]) + b"\xff\xff\xff\xff")),
    ("a share that is not held and not zero", "unmask", "MessageError",
     body(lambda _, b: bytes([b[0] ^ 1]) + bytes(b[1:]))),
]  # fmt: skip


def refusal_script() -> Script:
    return Script(
        "six clients, complete graph, malicious server", [0, 1, 2, 3, 4, 5],
        server="malicious", threshold=4, min_survivors=4,
    )  # fmt: skip


def client_refusals() -> Json:
    """Messages that client 0 must refuse, beside the honest ones, which it takes before them."""
    script, cases, honest = refusal_script(), [], []
    for stage in script.params.stages:
        for what, where, error, edit in CLIENT_CASES:
            if where == stage and script.inbound:
                bad = edit(script, script.inbound[0])
                blamed = "server" if error == "FaultyServerError" else None
                cases.append(
                    {"refuses": what, "stage": stage, "message": bad.hex(), "error": error,
                     "blamed": blamed}
                )  # fmt: skip
        if script.inbound:
            honest.append({"stage": stage, "message": script.inbound[0].hex()})
            if stage == "unmask":
                second = script.inbound[0][:-1] + bytes([script.inbound[0][-1] ^ 1])
                cases.append(
                    {"refuses": "a second request", "stage": "end", "message": second.hex(),
                     "error": "FaultyServerError", "blamed": "server"}
                )  # fmt: skip
        script.step(gone=[5] if stage == "mask_input" else [])
    return {**described(script), "client": 0, "honest": honest, "cases": cases}


def server_refusals() -> Json:
    """Messages from client 0 that the server must refuse; then it takes the honest ones."""
    script, cases, honest = refusal_script(), [], []
    for stage in script.params.stages:
        sent = script.answer()
        for what, where, error, edit in SERVER_CASES:
            if where == stage:
                cases.append(
                    {"refuses": what, "stage": stage, "message": edit(script, sent[0]).hex(),
                     "error": error, "blamed": 0}
                )  # fmt: skip
        if stage == "advertise_keys":
            stolen = sent[0][:HEADER_BYTES] + sent[1][HEADER_BYTES:]
            cases.append(
                {"refuses": "keys that are taken", "stage": "share_keys", "message": stolen.hex(),
                 "error": "FaultyClientError", "blamed": 0}
            )  # fmt: skip
        honest.append({"stage": stage, "messages": hexed(sent)})
        for i, message in sent.items():
            script.server.receive(i, message)
        script.inbound = script.server.close_stage()
    return {**described(script), "client": 0, "honest": honest, "cases": cases}
