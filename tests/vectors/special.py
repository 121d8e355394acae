"""Failing cases of a sparse graph, and of a client that deals other shares than it should."""

from typing import Any

import numpy as np

import secureagg
from secureagg import messages, sharing
from secureagg._codec import u32
from secureagg.context import sets_to_sign
from secureagg.messages import HEADER_BYTES
from secureagg.primitives import agreement
from tests.vectors.refusals import Case, body, case_of, cut
from tests.vectors.script import Json, Script, described, hexed


def entry_of(client_id: int, data: bytes) -> bytes:
    return u32(client_id) + data


def stranger(script: Script) -> int:
    """The last client that is no neighbour of the first; it comes after the other neighbours."""
    round_ = script.server._round
    near = round_.mask_neighbours(script.ids[0])
    return max(i for i in script.ids[1:] if i not in near)


def no_witness(script: Script, old: memoryview) -> bytes:
    """A quorum in which somebody else signs in place of the last witness."""
    round_ = script.server._round
    found = messages.quorum_from_bytes(old, limit=99)
    outsider = next(i for i in script.ids if i not in round_.witnesses)
    key = script.keys[outsider]
    if key is None:
        raise ValueError("witnesses sign")
    all_survive = np.full(len(script.ids), messages.Status.SURVIVOR, dtype=np.uint8)
    signed = {**cut(found, max(found)), outsider: key.sign(sets_to_sign(round_, all_survive))}
    return messages.quorum_to_bytes(signed)


SPARSE_CASES: list[Case] = [
    ("a neighbour's keys under the id of a client that is none", "share_keys",
     "FaultyServerError",
     body(lambda s, b: bytes(b[:-164]) + entry_of(stranger(s), bytes(b[-160:])))),
    ("more keys than neighbours", "share_keys", "MessageError",
     body(lambda _, b: bytes(b) + entry_of(2**32 - 1, bytes(b[-160:])))),
    ("a signature of a client that is no witness", "unmask", "FaultyServerError",
     body(no_witness)),
    ("more signatures than witnesses", "unmask", "MessageError",
     body(lambda _, b: b"".join(entry_of(i, bytes(64)) for i in range(100, 107)))),
]  # fmt: skip


def sparse_refusals() -> Json:
    """As `client_refusals`, where not everybody is a neighbour and a witness."""
    script = Script(
        "ten clients on a ring of degree 6, malicious server", list(range(200, 210)),
        server="malicious", degree=6, threshold=4,
    )  # fmt: skip
    first, cases, honest = script.ids[0], [], []
    for stage in script.params.stages:
        inbound = script.inbound.get(first)
        if inbound is not None:
            for what, where, error, edit in SPARSE_CASES:
                if where == stage:
                    blamed = "server" if error == "FaultyServerError" else None
                    cases.append(case_of(what, stage, edit(script, inbound), error, blamed))
            honest.append({"stage": stage, "message": inbound.hex()})
        script.step()
    return {**described(script), "client": first, "honest": honest, "cases": cases, "reports": []}


def wrong_dealer() -> Json:
    """Client 1 deals shares of other secrets, and commits to them: the last closing names it."""
    script = Script("five clients, complete graph; client 1 deals shares of zero", [0, 1, 2, 3, 4])
    stages: list[Json] = []
    for stage in script.params.stages:
        sent = script.answer()
        if stage == "share_keys":
            sent[1] = shares_of_zero(script, sent[1])
        for i, message in sent.items():
            script.server.receive(i, message)
        closing: Json = {}
        try:
            script.inbound = script.server.close_stage()
            closing["server_sends"] = hexed(script.inbound)
        except secureagg.FaultyClientError as error:
            closing |= {"error": "FaultyClientError", "blamed": error.client_id}
        stages.append({"stage": stage, "clients_send": hexed(sent), **closing})
    return {**described(script), "stages": stages}


def shares_of_zero(script: Script, message: bytes) -> bytes:
    """What client 1 sends where every share it deals is zero."""
    state: Any = script.clients[1]._state
    me, ctx, boxes = state.me, script.server._round.ctx, {}
    for holder, other in state.bundles.items():
        keys = {1: me.bundle.enc_public_key, holder: other.enc_public_key}
        agreed = agreement(me.enc_private_key)(other.enc_public_key)
        key, _ = sharing.box_keys(agreed, ctx, 1, holder, keys)
        boxes[holder] = sharing.seal_pair(key, ctx, 1, holder, (bytes(36), bytes(36)))
    return message[:HEADER_BYTES] + messages.boxes_to_bytes(boxes)
