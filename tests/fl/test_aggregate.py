"""Ideal and Secure are one sum; dropouts are drawn within bounds."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fl
from fl.aggregate import Attempt, aggregate, draw_dropouts, lost_before_masking, modular_sum
from fl.group import alone
from fl.secure import STAGES, TooFewClientsError, run_params, secret_stream
from tests.fl import helpers

EVERY_STAGE = dict.fromkeys(STAGES, 0.06)


@pytest.mark.parametrize("server", ["semi_honest", "malicious"])
@pytest.mark.parametrize("graph", ["sparse", pytest.param("complete", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("privacy", "against"),
    [
        ("skellam", "server"),
        ("discrete_gaussian", "server"),
        ("poisson_binomial", "server"),
        ("gaussian", "participants"),
        ("none", "uniform"),
        ("none", "examples"),
    ],
)
def test_ideal_and_secure_give_bit_identical_models(
    privacy: str, against: str, graph: str, server: str
) -> None:
    data = helpers.small_data(num_clients=40)
    wanted = (
        fl.NotPrivate(1.0, against, max_weight=4)
        if privacy == "none"
        else helpers.privacy(
            mechanism=privacy,
            against=against,
            trials=8 if privacy == "poisson_binomial" else None,
        )
    )
    runs = [
        list(
            fl.rounds(
                helpers.plan(
                    privacy=wanted,
                    seeded_secrets=True,
                    aggregation=make(
                        simulate_dropout=EVERY_STAGE, graph=graph, server=server,
                        security_bits=12, correctness_bits=4,
                    ),
                ),
                helpers.MODEL,
                data,
            )
        )
        for make in (helpers.ideal, helpers.secure)
    ]  # fmt: skip
    assert any(len(r.survivors) < 40 for r in runs[0])
    for ours, theirs in zip(*runs, strict=True):
        assert ours.survivors == theirs.survivors
        assert ours.metrics == theirs.metrics
        assert helpers.params_bytes(ours.params) == helpers.params_bytes(theirs.params)


def test_ideal_and_secure_abort_alike() -> None:
    data = helpers.small_data(num_clients=12)
    for make in (helpers.ideal, helpers.secure):
        leaving = {"mask_input": 0.6}
        plan = helpers.plan(aggregation=make(simulate_dropout=leaving, beyond=True))
        start = helpers.MODEL.init(helpers.KEY)
        for r in fl.rounds(plan, helpers.MODEL, data):
            assert r.survivors == ()
            assert r.reason is not None
            assert "nothing is released" in r.reason
            assert helpers.params_bytes(r.params) == helpers.params_bytes(start)


@given(
    st.integers(1, 62), st.integers(1, 5), st.integers(1, 6), st.integers(0, 2**32), st.data()
)  # fmt: skip
def test_the_modular_sum_is_the_integer_sum(
    bits: int, length: int, clients: int, seed: int, data: st.DataObject
) -> None:
    rng = np.random.default_rng(seed)
    vectors = {i: {"v": rng.integers(0, 2**bits, length, dtype=np.uint64)} for i in range(clients)}
    chosen = data.draw(st.sets(st.sampled_from(range(clients))))
    sums = modular_sum({"v": (length, bits)}, [(i, vectors[i]) for i in chosen])
    expected = [sum(int(vectors[i]["v"][j]) for i in chosen) % 2**bits for j in range(length)]
    assert sums["v"].tolist() == expected


def test_secure_sums_several_segments_of_arbitrary_ids() -> None:
    ids = [3, 17, 200, 4001, 70000]
    segments = {"update": (6, 33), "weight": (1, 5)}
    params = run_params(
        5, segments, corrupt=0.2, dropout=0.2, server="semi_honest", rounds=1,
        complete_graph=True, security_bits=40, correctness_bits=30, seed=None,
    )  # fmt: skip
    values = {
        i: {"update": np.full(6, 2**33 - i, np.uint64), "weight": np.array([3], np.uint64)}
        for i in ids
    }
    released: list[tuple[int, ...]] = []

    def attempt(dropouts: dict[str, set[int]]) -> Attempt:
        return Attempt(
            params, ids, dropouts, lambda here: ((i, values[i]) for i in reversed(here)),
            lambda client: secret_stream(), alone(), released.append,
        )  # fmt: skip

    for masked in (helpers.secure(), helpers.ideal()):
        got = aggregate(masked, segments, attempt({"mask_input": {17}}))
        assert got is not None
        assert got.survivors == released.pop() == (3, 200, 4001, 70000)
        assert got.sums["weight"].tolist() == [12]
        assert got.sums["update"].tolist() == [(4 * 2**33 - 3 - 200 - 4001 - 70000) % 2**33] * 6
        for stage in ("share_keys", "unmask"):
            with pytest.raises(TooFewClientsError):
                aggregate(masked, segments, attempt({stage: {3, 17, 200}}))
        assert released == []


@given(st.integers(2, 60), st.floats(0, 0.9), st.floats(0, 0.9), st.integers(0, 1000))
def test_simulated_dropouts_stay_within_the_bound_unless_beyond(
    n: int, dropout: float, rate: float, seed: int
) -> None:
    ids = [5 * i for i in range(n)]
    within = helpers.ideal(dropout=dropout, simulate_dropout=dict.fromkeys(STAGES, rate))
    drawn = draw_dropouts(within, ids, seed, 1)
    gone = [client for stage in STAGES for client in drawn[stage]]
    assert len(gone) == len(set(gone)) <= int(round(dropout * n, 9))
    assert set(gone) <= set(ids)
    assert drawn == draw_dropouts(within, ids, seed, 1)


def test_beyond_lets_simulated_dropouts_exceed_the_bound() -> None:
    ids = list(range(200))
    masked = helpers.ideal(dropout=0.1, simulate_dropout={"unmask": 0.5}, beyond=True)
    assert len(draw_dropouts(masked, ids, 0, 0)["unmask"]) > 20


def test_who_is_lost_before_masking() -> None:
    dropouts = {"advertise_keys": (1,), "share_keys": (2,), "mask_input": (3,), "unmask": (4,)}
    assert lost_before_masking(dropouts) == {1, 2}
