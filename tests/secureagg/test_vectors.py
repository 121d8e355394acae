"""The published vectors: replayed byte by byte, and equal to what the generator writes today."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import secureagg
from tests.secureagg import reference
from tests.vectors import generate, script

HERE = Path(__file__).parents[1] / "vectors"
ROUNDS = ["round_semi_honest_complete", "round_semi_honest_sparse", "round_malicious_sparse"]


def load(name) -> Any:
    return json.loads((HERE / f"{name}.json").read_text(encoding="ascii"))


def parties(vector) -> tuple[dict[int, secureagg.ClientSession], secureagg.ServerSession]:
    fields = dict(vector["params"])
    fields["segments"] = tuple(secureagg.Segment(*s) for s in fields["segments"])
    for name in ("session_id", "graph_seed"):
        fields[name] = bytes.fromhex(fields[name])
    params = secureagg.Params(**fields)
    assert params.to_bytes().hex() == vector["params_bytes"]
    roster = {int(i): bytes.fromhex(key) for i, key in vector["roster"].items()}
    clients = {}
    for i in roster:
        seed = vector["identity_seeds"].get(str(i))
        secret = bytes.fromhex(vector["session_secrets"][str(i)])
        clients[i] = secureagg.ClientSession(
            params,
            i,
            secureagg.IdentityKey(bytes.fromhex(seed)) if seed else None,
            roster,
            {n: np.array(v, dtype=np.uint64) for n, v in vector["inputs"][str(i)].items()},
            once=secureagg.MemoryOnce(),
            rand=partial(script.given, secret),
        )
    return clients, secureagg.ServerSession(params, roster)


@pytest.mark.parametrize("name", ROUNDS)
def test_rounds_replay(name):
    vector = load(name)
    clients, server = parties(vector)
    inbound: dict[int, bytes] = {}
    for stage in vector["stages"]:
        assert server.stage == stage["stage"]
        for i, message in stage["clients_send"].items():
            session = clients[int(i)]
            answer = session.receive(inbound[int(i)]) if inbound else session.start()
            assert answer == bytes.fromhex(message)
            server.receive(int(i), bytes.fromhex(message))
        for i in set(inbound) - {int(i) for i in stage["clients_send"]}:
            gone = {c for s in vector["dropouts"].values() for c in s}
            if i not in gone:  # no witness: it takes the message and has nothing to say
                assert clients[i].receive(inbound[i]) is None
        inbound = server.close_stage()
        assert {str(i): m.hex() for i, m in inbound.items()} == stage["server_sends"]
    assert list(server.result.survivors) == vector["survivors"]
    assert {k: v.tolist() for k, v in server.result.sums.items()} == vector["sums"]


def blamed(error) -> Any:
    if isinstance(error, secureagg.FaultyServerError):
        return "server"
    return getattr(error, "client_id", getattr(error, "sender", None))


def expect(case, call) -> None:
    with pytest.raises(secureagg.SecureAggError) as caught:
        call(bytes.fromhex(case["message"]))
    assert type(caught.value).__name__ == case["error"], case["refuses"]
    assert blamed(caught.value) == case["blamed"], case["refuses"]


def test_client_refusals():
    vector = load("refusals_client")
    clients, _ = parties(vector)
    session = clients[vector["client"]]
    session.start()
    for step in [*vector["honest"], {"stage": "end", "message": None}]:
        for case in vector["cases"]:
            if case["stage"] == step["stage"]:
                expect(case, session.receive)
        if step["message"]:
            session.receive(bytes.fromhex(step["message"]))


def test_server_refusals():
    vector = load("refusals_server")
    _, server = parties(vector)
    for step in vector["honest"]:
        for case in vector["cases"]:
            if case["stage"] == step["stage"]:
                expect(case, lambda message: server.receive(vector["client"], message))
        for i, message in step["messages"].items():
            server.receive(int(i), bytes.fromhex(message))
        server.close_stage()
    assert server.result.survivors == (0, 1, 2, 3, 4, 5)


def test_every_case_is_named_once_and_every_error_occurs():
    errors = set()
    for name in ("refusals_client", "refusals_server"):
        cases = load(name)["cases"]
        names = [(case["stage"], case["refuses"]) for case in cases]
        assert len(set(names)) == len(names) > 40
        errors |= {case["error"] for case in cases}
    assert errors == {
        "MessageError", "FaultyServerError", "FaultyClientError", "TooFewClientsError"
    }  # fmt: skip


def test_generating_again_gives_no_difference():
    built = generate.build()
    assert sorted(built) == sorted(path.name for path in HERE.glob("*.json"))
    for name, text in built.items():
        assert (HERE / name).read_text(encoding="ascii") == text


@pytest.mark.parametrize("name", ROUNDS)
def test_a_second_implementation_makes_the_same_rounds(name):
    vector = load(name)
    other = reference.Reference(vector)
    assert other.params_bytes().hex() == vector["params_bytes"]
    assert other.ctx.hex() == vector["ctx"]
    assert {str(i): near for i, near in other.near.items()} == vector["mask_neighbours"]
    if other.malicious:
        assert other.witnesses == vector["witnesses"]
    for i, known in vector["private"].items():
        if known:
            assert known["self_mask_seed"] == other.keys[int(i)]["seed"].hex()
    stages = other.play(vector["dropouts"])
    assert len(stages) == len(vector["stages"])
    for (up, down), stage in zip(stages, vector["stages"], strict=True):
        assert {str(i): m.hex() for i, m in up.items()} == stage["clients_send"]
        assert {str(i): m.hex() for i, m in down.items()} == stage["server_sends"]
    assert other.survivors == vector["survivors"]
    assert other.sums() == vector["sums"]
    example = vector["self_mask"]
    seed = bytes.fromhex(vector["private"][str(example["client"])]["self_mask_seed"])
    words = other.mask_words(seed, bytes.fromhex(example["info"]))
    assert dict(zip([s[0] for s in other.p["segments"]], words, strict=True)) == example["words"]


def test_the_second_implementation_shares_no_code():
    imports = [
        line
        for line in (Path(__file__).parent / "reference.py").read_text().splitlines()
        if line.startswith(("import ", "from "))
    ]
    assert imports
    assert not any("secureagg" in line for line in imports)
