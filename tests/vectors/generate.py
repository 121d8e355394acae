"""Writes the transcript vectors beside this file: `python -m tests.vectors.generate`.

Rounds with every secret, share and message in them, and one failing case for each refusal. Bytes
are in hexadecimal. docs/protocol.md says what they mean; nothing here is needed to read them.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import secureagg
from secureagg import masking
from secureagg.primitives import hkdf
from tests.vectors.refusals import client_refusals, server_refusals
from tests.vectors.script import Json, Script, described, hexed
from tests.vectors.special import sparse_refusals, wrong_dealer

HERE = Path(__file__).parent


def whole_round(script: Script, dropouts: dict[str, list[int]]) -> Json:
    """A transcript, with what the parties keep to themselves."""
    round_ = script.server._round
    gone: set[int] = set()
    private: dict[str, Json] = {str(i): {} for i in script.ids}
    for stage in script.params.stages:
        gone |= set(dropouts.get(stage, ()))
        script.step(gone=gone)
        for i, session in script.clients.items():
            state, known = session._state, private[str(i)]
            me = getattr(state, "me", state)
            for name in ("enc_private_key", "mask_private_key", "self_mask_seed"):
                if hasattr(me, name):
                    known[name] = getattr(me, name).hex()
            if hasattr(state, "shares"):
                known["shares_held"] = {
                    str(v): [s.hex() for s in pair] if pair else None
                    for v, pair in state.shares.items()
                }
    result = script.server.result
    lowest = min(result.survivors)
    return {
        "about": script.name,
        **described(script),
        "dropouts": dropouts,
        "mask_neighbours": {str(i): round_.mask_neighbours(i) for i in script.ids},
        "witnesses": round_.witnesses if script.params.malicious else (),
        "private": private,
        "self_mask": mask_example(script, lowest, private),
        "stages": [
            {"stage": stage, "clients_send": hexed(up), "server_sends": hexed(down)}
            for stage, up, down in zip(script.params.stages, script.up, script.down, strict=True)
        ],
        "survivors": result.survivors,
        "sums": {name: array.tolist() for name, array in result.sums.items()},
    }


def mask_example(script: Script, client_id: int, private: dict[str, Json]) -> Json:
    """The self mask of one client, from seed to words."""
    ctx = script.server._round.ctx
    seed = bytes.fromhex(private[str(client_id)]["self_mask_seed"])
    words = masking.zero_words(script.params)
    info = masking.self_mask_info(ctx, client_id)
    masking.add_masks(words, [(seed, info, True)])
    return {
        "client": client_id,
        "info": info.hex(),
        "key_and_counter": hkdf(seed, 32, info + b"\0\0").hex(),
        "words": {
            s.name: [int(w) % (1 << s.modulus_bits) for w in array]
            for s, array in zip(script.params.segments, words, strict=True)
        },
    }


def all_rounds() -> Iterator[tuple[str, Json]]:
    """(file name, transcript)."""
    yield (
        "round_semi_honest_complete",
        whole_round(
            Script("five clients, complete graph, one drops before masking", [0, 1, 2, 3, 4]),
            {"mask_input": [3]},
        ),
    )
    segments = tuple(
        secureagg.Segment(f"s{bits}", length, bits)
        for bits, length in ((1, 9), (16, 2), (17, 3), (32, 2), (33, 3), (62, 2))
    )
    yield (
        "round_semi_honest_sparse",
        whole_round(
            Script(
                "nine clients on a ring of degree 6, segments of every word size",
                [2, 3, 5, 7, 11, 13, 17, 19, 2**32 - 1],
                segments=segments,
                degree=6,
                threshold=2,
                min_survivors=2,
            ),
            {"advertise_keys": [5], "share_keys": [11], "mask_input": [2], "unmask": [17]},
        ),
    )
    yield (
        "round_malicious_sparse",
        whole_round(
            Script(
                "ten clients on a ring of degree 6, malicious server, dropouts",
                list(range(100, 110)),
                server="malicious",
                degree=6,
                threshold=4,
            ),
            {"mask_input": [104], "check_consistency": [101]},
        ),
    )


def build() -> dict[str, str]:
    """Every file by name, as it is written."""
    found = {
        **dict(all_rounds()),
        "refusals_client": client_refusals(),
        "refusals_server": server_refusals(),
        "refusals_sparse": sparse_refusals(),
        "wrong_dealer": wrong_dealer(),
    }
    return {
        f"{name}.json": json.dumps(content, indent=1, default=list) + "\n"
        for name, content in found.items()
    }


if __name__ == "__main__":
    for name, text in build().items():
        (HERE / name).write_text(text, encoding="ascii")
