"""The published vectors: replayed byte by byte, and equal to what the generator writes today."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import secureagg
from tests.secureagg import reference, reference_refusals
from tests.vectors import generate, script
from tests.vectors.script import hexed

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


def again(session, vector) -> secureagg.ClientSession:
    """A client as it is now, to be thrown away; its record knows of the start."""
    seed = vector["identity_seeds"][str(vector["client"])]
    return secureagg.ClientSession.from_bytes(
        session.to_bytes(),
        session._round.params,
        vector["client"],
        secureagg.IdentityKey(bytes.fromhex(seed)),
        dict(session._round.identities),
        once=lambda key: not key.endswith(b"start"),
    )


@pytest.mark.parametrize("name", ["refusals_client", "refusals_sparse"])
def test_client_refusals(name):
    vector = load(name)
    clients, _ = parties(vector)
    session = clients[vector["client"]]
    session.start()
    for step in [*vector["honest"], {"stage": "end", "message": None}]:
        for case in vector["cases"]:
            if case["stage"] == step["stage"]:
                expect(case, session.receive)
        if step["stage"] == "mask_input":
            for case in vector["reports"]:
                other = again(session, vector)
                assert other.receive(bytes.fromhex(case["message"])) is not None
                assert [s.client_id for s in other.suspicions] == [case["blamed"]]
        if step["message"]:
            session.receive(bytes.fromhex(step["message"]))


def test_server_refusals():
    vector = load("refusals_server")
    _, server = parties(vector)
    for step in vector["honest"]:
        with pytest.raises(secureagg.TooFewClientsError) as caught:
            server.close_stage()
        closing = step["closed_at_once"]
        assert closing["error"] == "TooFewClientsError"
        assert (caught.value.have, caught.value.need) == (closing["have"], closing["need"])
        for when in ("before", "after"):
            for case in vector["cases"]:
                if (case["stage"], case["when"]) == (step["stage"], when):
                    expect(case, partial(server.receive, case["sender"]))
            for i, message in step["messages"].items():
                server.receive(int(i), bytes.fromhex(message))
        server.close_stage()
    assert server.result.survivors == (0, 1, 2, 3, 4)


def test_a_dealer_that_deals_other_shares():
    vector = load("wrong_dealer")
    _, server = parties(vector)
    for stage in vector["stages"]:
        for i, message in stage["clients_send"].items():
            server.receive(int(i), bytes.fromhex(message))
        if "error" in stage:
            with pytest.raises(secureagg.FaultyClientError) as caught:
                server.close_stage()
            assert (stage["error"], stage["blamed"]) == ("FaultyClientError", blamed(caught.value))
        else:
            assert hexed(server.close_stage()) == stage["server_sends"]
    assert "error" in vector["stages"][-1]


FILES = ["refusals_client", "refusals_server", "refusals_sparse"]


def test_every_case_is_named_once_and_every_error_occurs():
    errors = set()
    for name in FILES:
        cases = load(name)["cases"]
        names = [(case["stage"], case["refuses"]) for case in cases]
        assert len(set(names)) == len(names) >= 4
        errors |= {case["error"] for case in cases}
    assert errors == {
        "MessageError", "FaultyServerError", "FaultyClientError", "TooFewClientsError"
    }  # fmt: skip


EVERY_STAGE = {
    "another version", "another client", "another context", "a kind of no stage",
    "a byte too few", "a byte too many", "a header cut short", "nothing",
}  # fmt: skip

STAGE_TABLE: dict[tuple[str, str], set[str]] = {
    # file, stage: what the rows of the table of stages refuse
    ("refusals_client", "share_keys"): {
        "a commitment that was not signed", "a signature of nobody",
        "keys that another client signed", "not a neighbour", "its own id",
        "a key twice in a bundle", "a key of two clients", "its own key",
        "a non-canonical enc key", "a non-canonical mask key", "an enc key of small order",
        "a mask key of small order", "too few neighbours", "ids out of order", "an id twice",
    },
    ("refusals_client", "mask_input"): {
        "not in shared itself", "a box missing", "a box of nobody in shared",
        "a neighbour in shared with no accepted keys", "too few neighbours shared",
        "fewer shared than must survive", "padding of flags",
        "a message of the next stage", "a second, different message of the stage before",
    },
    ("refusals_client", "check_consistency"): {
        "both kinds of share", "itself no survivor", "shared has shrunk", "shared has grown",
        "fewer survivors than min_survivors", "fewer survivors than c + 2",
        "padding of statuses", "a message of the next stage",
        "a second, different message of the stage before",
    },
    ("refusals_client", "unmask"): {
        "a signature too few", "no signature", "a signature twice", "a signature of other sets",
        "a signature of a stranger", "a second, different message of the stage before",
    },
    ("refusals_client", "end"): {"a second request"},
    ("refusals_sparse", "share_keys"): {
        "a neighbour's keys under the id of a client that is none", "more keys than neighbours",
    },
    ("refusals_sparse", "unmask"): {
        "a signature of a client that is no witness", "more signatures than witnesses",
    },
    ("refusals_server", "advertise_keys"): {
        "a key of small order", "a non-canonical key", "one key twice", "keys that are taken",
        "a commitment that was not signed",
    },
    ("refusals_server", "share_keys"): {
        "a box for too few holders", "a box for a client that never advertised", "a holder twice",
    },
    ("refusals_server", "mask_input"): {"padding of a vector"},
    ("refusals_server", "check_consistency"): {"a signature of other sets"},
    ("refusals_server", "unmask"): {
        "a wrong share", "a share above the prime", "a share that is not held and not zero",
        "padding of the held flags",
    },
}  # fmt: skip


@pytest.mark.parametrize(("file", "stage"), STAGE_TABLE)
def test_every_refusal_of_the_table_of_stages_has_its_case(file, stage):
    found = {case["refuses"] for case in load(file)["cases"] if case["stage"] == stage}
    assert STAGE_TABLE[file, stage] <= found
    if stage != "end" and file != "refusals_sparse":
        assert found >= EVERY_STAGE
    if file == "refusals_server":
        assert found >= {"a second, different message", "a sender outside the roster"}
    stages = {case["stage"] for case in load(file)["cases"]}
    assert stages == {s for f, s in STAGE_TABLE if f == file}


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


@pytest.mark.parametrize("name", ["refusals_client", "refusals_sparse"])
def test_a_second_implementation_refuses_what_a_client_refuses(name):
    vector = load(name)
    judge = reference_refusals.ClientJudge(vector)
    for step in [*vector["honest"], {"stage": "end", "message": None}]:
        for case in vector["cases"]:
            if case["stage"] == step["stage"]:
                want = case["error"], case["blamed"]
                assert judge.verdict(bytes.fromhex(case["message"])) == want, case["refuses"]
        if step["message"]:
            assert judge.verdict(bytes.fromhex(step["message"])) is None


def test_a_second_implementation_refuses_what_a_server_refuses():
    vector = load("refusals_server")
    judge = reference_refusals.ServerJudge(vector)
    for step in vector["honest"]:
        assert judge.close() == (step["closed_at_once"]["have"], step["closed_at_once"]["need"])
        for when in ("before", "after"):
            for case in vector["cases"]:
                if (case["stage"], case["when"]) == (step["stage"], when):
                    found = judge.verdict(case["sender"], bytes.fromhex(case["message"]))
                    assert found == (case["error"], case["blamed"]), case["refuses"]
            for i, message in step["messages"].items():
                assert judge.verdict(int(i), bytes.fromhex(message)) is None
        assert judge.close() is None


@pytest.mark.parametrize("file", ["reference.py", "reference_refusals.py"])
def test_the_second_implementation_shares_no_code(file):
    imports = [
        line
        for line in (Path(__file__).parent / file).read_text("utf-8").splitlines()
        if line.startswith(("import ", "from "))
    ]
    assert imports
    assert not any("secureagg" in line.replace("tests.secureagg.reference", "") for line in imports)
