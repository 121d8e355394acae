"""What a whole round takes and refuses, and what it says that it cost."""

import dataclasses
from typing import Any

import numpy as np
import pytest

import secureagg
from secureagg import context, prediction, simulate


def test_seeded_rounds_repeat_and_ask_32_bytes_per_client_in_order(make_play, seeded):
    one, two = make_play(), make_play()
    while one.server.stage is not None:
        assert one.step() == two.step()
    asked = []

    def rand(size):
        asked.append(size)
        return seeded()(size)

    inputs = {i: one.inputs[i] for i in (5, 3, 1, 0, 2, 4)}
    secureagg.run_round(one.params, inputs, dropouts={"advertise_keys": [0]}, rand=rand)
    assert asked == [32] * 6


def test_context_separates_rounds_attempts_sessions_and_rosters(make_params, make_play):
    plays = [
        make_play(),
        make_play(params=make_params(rounds=2)),
        make_play(params=make_params(attempt=1)),
        make_play(params=make_params(session_id=b"other")),
        make_play(ids=[0, 1, 2, 3, 4, 6]),
    ]
    bodies = [play.clients[0].start()[38:] for play in plays]
    assert len(set(bodies)) == len(plays)  # same secret, other keys
    assert len({body[:32] for body in bodies}) == len(plays)


def test_check_consistency_dropouts_have_no_effect(make_params):
    params = make_params()
    inputs = {i: np.zeros(5, dtype=np.int64) for i in range(6)}
    dropouts = {"check_consistency": [0, 1]}
    assert secureagg.run_round(params, inputs, dropouts=dropouts).survivors == tuple(range(6))
    assert secureagg.outcome(params, dropouts) == tuple(range(6))


def test_callable_inputs_are_asked_only_when_masking(make_params):
    params = make_params()
    asked = []

    def inputs(client_id):
        asked.append(client_id)
        return np.full(5, client_id % 2**16)

    ids = {3, 17, 200, 5, 6, 2**32 - 1}
    dropouts = {"share_keys": [5], "mask_input": [200]}
    result = secureagg.run_round(params, inputs, client_ids=ids, dropouts=dropouts)
    assert result.survivors == (3, 6, 17, 2**32 - 1)
    assert asked == list(result.survivors)
    assert result.sums["x"].tolist() == [(3 + 6 + 17 + 2**16 - 1) % 2**20] * 5


def test_cost_counts_bytes_by_stage(make_params, make_play, header_bytes):
    params = make_params()
    inputs = {i: np.zeros(5, dtype=np.int64) for i in range(6)}
    cost = secureagg.run_round(params, inputs, dropouts={"mask_input": [0]}).cost
    assert cost.num_clients == 6
    assert cost.upload_bytes == {
        "advertise_keys": 6 * (header_bytes + 96),
        "share_keys": 6 * (header_bytes + 5 * 158),
        "mask_input": 5 * (header_bytes + 13),
        "unmask": 5 * (header_bytes + 1 + 5 * 36),
    }
    assert cost.download_bytes == {
        "advertise_keys": 6 * (header_bytes + 5 * 100),
        "share_keys": 6 * (header_bytes + 1 + 5 * 158),
        "mask_input": 5 * (header_bytes + 2),
        "unmask": 0,
    }
    for seconds in (cost.client_seconds, cost.server_seconds):
        assert list(seconds) == ["advertise_keys", "share_keys", "mask_input", "unmask"]
        assert all(value >= 0 for value in seconds.values())
    with pytest.raises(dataclasses.FrozenInstanceError):
        cost.__setattr__("num_clients", 3)


@pytest.mark.parametrize(
    "bad",
    [
        np.array([0, 0, 0, 0, 1 << 20]),
        np.array([0, 0, 0, 0, -1]),
        np.array([0, 0, 0, 0, (1 << 64) - 1], dtype=np.uint64),
        np.zeros(4, dtype=np.int64),
        np.zeros((5, 1), dtype=np.int64),
        np.zeros(5),
        np.zeros(5, dtype=bool),
        [0, 0, 0, 0, 0],
        {"y": np.zeros(5, dtype=np.int64)},
        {"x": np.zeros(5, dtype=np.int64), "y": np.zeros(5, dtype=np.int64)},
        {},
        {"x": [0] * 5},
    ],
)
def test_bad_inputs_are_refused_never_reduced(make_params, bad):
    inputs = {i: np.zeros(5, dtype=np.int64) for i in range(6)}
    inputs[4] = bad
    with pytest.raises(secureagg.MisuseError) as caught:
        secureagg.run_round(make_params(), inputs, dropouts={"advertise_keys": [4]})
    assert caught.value.step == "mask_input"


def test_a_bare_array_needs_a_single_segment(make_params):
    params = make_params(segments=(secureagg.Segment("a", 5, 8), secureagg.Segment("b", 5, 8)))
    with pytest.raises(secureagg.MisuseError):
        secureagg.run_round(params, {i: np.zeros(5, dtype=np.int64) for i in range(6)})


@pytest.mark.parametrize(
    ("arguments", "step"),
    [
        ({"inputs": {0: np.zeros(5, dtype=int)}}, "run_round"),
        ({"client_ids": range(1, 7)}, "run_round"),
        ({"inputs": lambda i: np.zeros(5, dtype=int)}, "run_round"),
        ({"inputs": lambda i: np.zeros(5, dtype=int), "client_ids": range(5)}, "run_round"),
        ({"dropouts": {"mask_inputs": [1]}}, "dropouts"),
        ({"dropouts": {"mask_input": [6]}}, "dropouts"),
        ({"dropouts": {"check_consistency": [6]}}, "dropouts"),
    ],
)
def test_misuse_of_run_round(make_params, arguments, step):
    fields = {"inputs": {i: np.zeros(5, dtype=int) for i in range(6)}} | arguments
    with pytest.raises(secureagg.MisuseError) as caught:
        secureagg.run_round(make_params(), **fields)
    assert caught.value.step == step


@pytest.mark.parametrize("ids", [[-1, 0, 1, 2, 3, 4], [0, 1, 2, 3, 4, 2**32]])
def test_ids_must_fit_the_wire(make_params, ids):
    with pytest.raises(secureagg.MisuseError):
        secureagg.outcome(make_params(), {}, client_ids=ids)


def test_ids_of_mixed_types_are_refused(make_params):
    params, ids = make_params(), [0, 1, 2, 3, 4, "5"]
    roster: Any = dict.fromkeys(ids, b"")
    with pytest.raises(secureagg.MisuseError, match="client ids are integers"):
        context.open_round(params, roster)
    inputs: Any = {i: np.zeros(5, dtype=np.uint64) for i in ids}
    with pytest.raises(secureagg.MisuseError, match="client ids are integers"):
        secureagg.run_round(params, inputs)
    strange: Any = {"unmask": [7, "x"]}
    with pytest.raises(secureagg.MisuseError, match="not invited"):
        secureagg.outcome(params, strange)


def test_masked_vectors_look_nothing_like_the_inputs(make_play):
    play = make_play(2)
    play.inputs = {i: np.zeros(5, dtype=np.uint64) for i in play.inputs}
    bodies = [message[38:] for message in play.answers().values()]
    assert len(set(bodies)) == 6
    assert all(body != bytes(13) for body in bodies)


def test_segments_have_masks_of_their_own(make_params):
    params = make_params(segments=tuple(secureagg.Segment(name, 4, 32) for name in "ab"))
    roster = dict.fromkeys(range(6), b"")
    server = secureagg.ServerSession(params, roster)
    zeros = {name: np.zeros(4, dtype=int) for name in "ab"}
    clients = [
        secureagg.ClientSession(params, i, None, roster, zeros, once=secureagg.MemoryOnce())
        for i in range(6)
    ]
    messages = {i: client.start() for i, client in enumerate(clients)}
    for _ in range(2):
        for i, message in messages.items():
            server.receive(i, message)
        messages = {i: clients[i].receive(m) or b"" for i, m in server.close_stage().items()}
    for message in messages.values():
        assert message[-32:-16] != message[-16:]


def test_ten_thousand_clients_have_an_outcome_at_once():
    params = secureagg.choose_params(
        10_000,
        {"x": (1, 8)},
        corrupt=0.05,
        dropout=0.05,
        server="semi_honest",
        rounds=10,
        graph_seed=b"s",
    )
    gone = range(0, 10_000, 20)
    survivors = secureagg.outcome(params, {"mask_input": gone})
    assert len(survivors) == 9_500


@pytest.mark.parametrize(
    "server", ["semi_honest", pytest.param("malicious", marks=pytest.mark.slow)]
)
def test_predicted_costs_have_the_stages_of_the_round(make_params, server):
    params = make_params(server=server, threshold=4)
    inputs = {i: np.zeros(5, dtype=int) for i in range(6)}
    dropouts = {"mask_input": [5]}
    predicted = secureagg.predict_cost(params, dropouts)
    measured = secureagg.run_round(params, inputs, dropouts=dropouts).cost
    assert predicted.upload_bytes == measured.upload_bytes
    assert predicted.download_bytes == measured.download_bytes
    for role in ("client_seconds", "server_seconds"):
        assert list(getattr(predicted, role)) == list(params.stages)
        assert all(0 <= value < 60 for value in getattr(predicted, role).values())
    with pytest.raises(secureagg.TooFewClientsError):
        secureagg.predict_cost(params, {"mask_input": [1, 2, 3, 4]})
    counts = prediction.count(params, *simulate.sets_of(params, dropouts, None))
    assert counts.clients["mask_input"] == 5
    assert counts.edges["mask_input"] == 5 * 5
    assert counts.edges["share_keys"] == 6 * 5
    assert (counts.recovered, counts.cut_edges) == (6, 5)
    assert counts.held == (5 * 4 + 5) / 6
