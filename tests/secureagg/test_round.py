"""Whole rounds: the right sum, or an abort of the kind that was foretold."""

from typing import Any

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

import secureagg
from secureagg import prediction, simulate

STAGES = secureagg.STAGES


@st.composite
def rounds(draw):
    """Parameters, ids, inputs and dropouts of a small round; nothing need work out."""
    n = draw(st.integers(2, 12))
    sparse = [k for k in range(2, n - 1, 2)]
    degree = draw(st.sampled_from([n - 1, *sparse]))
    segments = tuple(
        secureagg.Segment(f"s{i}", draw(st.integers(1, 70)), bits)
        for i, bits in enumerate(
            draw(st.lists(st.sampled_from([1, 8, 16, 17, 32, 33, 62]), min_size=1, max_size=2))
        )
    )
    ids = draw(st.sets(st.integers(0, 2**32 - 1), min_size=n, max_size=n))
    rates = st.sampled_from([0, 0, 0, 0.01, 0.1, 0.3, 0.5])
    share = {stage: draw(rates) for stage in STAGES}
    seed = draw(st.integers(0, 2**32))
    generator = np.random.default_rng(seed)
    dropouts = {s: [i for i in sorted(ids) if generator.random() < share[s]] for s in STAGES}
    params = {
        "n": n,
        "segments": segments,
        "degree": degree,
        "threshold": draw(st.integers(1, degree)),
        "min_survivors": draw(st.integers(1, n)),
        "corrupt": draw(st.sampled_from([0, 0, "1/4"])) if n > 3 else 0,
        "graph_seed": draw(st.binary(min_size=1, max_size=3)),
        "server": draw(st.sampled_from(["semi_honest", "malicious"])),
    }
    inputs = {
        i: {s.name: generator.integers(0, 1 << s.modulus_bits, s.length) for s in segments}
        for i in ids
    }
    return params, inputs, dropouts


def expected_sum(inputs, survivors, segment) -> list[int]:
    columns = [inputs[i][segment.name].tolist() for i in survivors]
    return [sum(column) % (1 << segment.modulus_bits) for column in zip(*columns, strict=True)]


def attempt(call) -> tuple[Any, Any]:
    """(result, None), or (None, what the abort says)."""
    try:
        return call(), None
    except secureagg.TooFewClientsError as abort:
        return None, (abort.round, abort.have, abort.need, str(abort))


@settings(max_examples=200, deadline=None)
@given(rounds())
def test_right_sum_or_typed_abort_and_outcome_agrees(make_params, seeded, case):
    fields, inputs, dropouts = case
    params = make_params(**fields)
    result, abort = attempt(
        lambda: secureagg.run_round(params, inputs, dropouts=dropouts, rand=seeded())
    )
    survivors, foreseen = attempt(lambda: secureagg.outcome(params, dropouts, client_ids=inputs))
    assert abort == foreseen
    if result is None:
        return
    assert result.survivors == survivors
    up, down = prediction._bytes(params, *simulate.sets_of(params, dropouts, inputs))
    assert (result.cost.upload_bytes, result.cost.download_bytes) == (up, down)
    assert len(result.survivors) >= params.required_survivors
    for segment in params.segments:
        assert result.sums[segment.name].dtype == np.uint64
        assert result.sums[segment.name].tolist() == expected_sum(inputs, result.survivors, segment)


@st.composite
def larger_rounds(draw):
    """Dozens of clients, long vectors, thresholds that often hold, the usual rates of dropouts."""
    n = draw(st.integers(20, 45))
    degree = draw(st.sampled_from([n - 1, 10, 16]))
    bits = draw(st.lists(st.sampled_from([1, 8, 16, 17, 32, 33, 62]), min_size=1, max_size=3))
    segments = tuple(
        secureagg.Segment(f"s{i}", draw(st.sampled_from([1, 63, 1000])), b)
        for i, b in enumerate(bits)
    )
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    rates = {stage: draw(st.sampled_from([0, 0, 0.01, 0.1, 0.3])) for stage in STAGES}
    dropouts = {s: [i for i in range(n) if generator.random() < rates[s]] for s in STAGES}
    params = {
        "n": n,
        "segments": segments,
        "degree": degree,
        "threshold": draw(st.integers(1, degree // 2 + 1)),
        "min_survivors": draw(st.integers(1, n // 2)),
        "graph_seed": draw(st.binary(min_size=1, max_size=3)),
        "server": draw(st.sampled_from(["semi_honest", "malicious"])),
    }
    inputs = {
        i: {s.name: generator.integers(0, 1 << s.modulus_bits, s.length) for s in segments}
        for i in range(n)
    }
    return params, inputs, dropouts


def right_sum_or_abort(params, inputs, dropouts, rand) -> bool:
    """Whether there is a sum; it is right, and an abort is the one foreseen."""
    result, abort = attempt(
        lambda: secureagg.run_round(params, inputs, dropouts=dropouts, rand=rand)
    )
    survivors, foreseen = attempt(lambda: secureagg.outcome(params, dropouts))
    assert abort == foreseen
    if result is None:
        return False
    assert result.survivors == survivors
    for segment in params.segments:
        assert result.sums[segment.name].tolist() == expected_sum(inputs, survivors, segment)
    return True


@settings(max_examples=10, deadline=None)
@given(larger_rounds())
def test_right_sum_or_typed_abort_of_dozens_of_clients(make_params, seeded, case):
    fields, inputs, dropouts = case
    event(f"sum: {right_sum_or_abort(make_params(**fields), inputs, dropouts, seeded())}")


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(larger_rounds())
def test_right_sum_or_typed_abort_of_dozens_of_clients_at_length(make_params, seeded, case):
    fields, inputs, dropouts = case
    right_sum_or_abort(make_params(**fields), inputs, dropouts, seeded())


@settings(max_examples=300, deadline=None)
@given(rounds())
def test_abort_happens_exactly_when_the_definition_says(make_params, case):
    """`outcome` against sets and loops written from the protocol's description."""
    fields, inputs, dropouts = case
    params = make_params(**fields)
    ids = sorted(inputs)
    keys = {i: secureagg.IdentityKey(i.to_bytes(32)) if params.malicious else None for i in ids}
    round_ = secureagg.context.open_round(
        params, {i: key.public_key if key else b"" for i, key in keys.items()}
    )
    near = {i: set(round_.mask_neighbours(i)) for i in ids}
    gone: set[int] = set()
    alive = set(ids)
    fine = True
    for stage in ("advertise_keys", "share_keys"):
        gone |= set(dropouts[stage])
        alive -= gone
        while lonely := {i for i in alive if len(near[i] & alive) < params.threshold}:
            alive -= lonely
        fine = fine and len(alive) >= params.required_survivors
    gone |= set(dropouts["mask_input"])
    survivors = alive - gone
    fine = fine and len(survivors) >= params.required_survivors
    if params.malicious:
        gone |= set(dropouts["check_consistency"])
        fine = fine and len(survivors & set(round_.witnesses) - gone) >= params.threshold
    revealed = survivors - gone - set(dropouts["unmask"])
    owed = survivors | {i for i in alive - survivors if near[i] & survivors}
    fine = fine and all(len(near[i] & revealed) >= params.threshold for i in owed)
    if fine:
        assert secureagg.outcome(params, dropouts, client_ids=ids) == tuple(sorted(survivors))
    else:
        with pytest.raises(secureagg.TooFewClientsError):
            secureagg.outcome(params, dropouts, client_ids=ids)


@pytest.mark.parametrize("stage", ["advertise_keys", "share_keys", "mask_input", "unmask"])
@pytest.mark.parametrize("seed", [None, b"graph seed"])
def test_dropouts_within_the_rate_never_stop_a_round(stage, seed):
    params = secureagg.choose_params(
        60,
        {"x": (7, 17)},
        corrupt=0.1,
        dropout=0.2,
        server="semi_honest",
        rounds=5,
        security_bits=20,
        correctness_bits=20,
        graph_seed=seed,
    )
    assert (params.degree < 59) == (seed is not None)
    generator = np.random.default_rng(3)
    inputs = {i: generator.integers(0, 1 << 17, 7) for i in range(60)}
    gone = [int(i) for i in generator.choice(60, 12, replace=False)]
    result = secureagg.run_round(params, inputs, dropouts={stage: gone})
    left = range(60) if stage == "unmask" else [i for i in range(60) if i not in gone]
    assert result.survivors == tuple(left)
    want = np.sum([inputs[i] for i in left], axis=0) % (1 << 17)
    assert result.sums["x"].tolist() == want.tolist()


@pytest.mark.parametrize(
    ("dropouts", "have", "need"),
    [
        ({"advertise_keys": [0, 1]}, 4, 5),
        ({"share_keys": [0, 1]}, 4, 5),
        ({"mask_input": [0, 1]}, 4, 5),
        ({"unmask": [0, 1, 2, 3]}, 1, 3),
    ],
)
def test_too_few_clients_release_nothing(make_params, dropouts, have, need):
    params = make_params(min_survivors=5, rounds=9, round_index=7)
    inputs = {i: np.zeros(5, dtype=np.int64) for i in range(6)}
    with pytest.raises(secureagg.TooFewClientsError, match="nothing is released") as caught:
        secureagg.run_round(params, inputs, dropouts=dropouts)
    assert (caught.value.round, caught.value.have, caught.value.need) == (7, have, need)


def test_two_honest_survivors_are_needed_whatever_min_survivors_says(make_params):
    params = make_params(min_survivors=1, corrupt="1/3", threshold=3)
    inputs = {i: np.zeros(5, dtype=np.int64) for i in range(6)}
    assert secureagg.run_round(params, inputs, dropouts={"mask_input": [0, 1]}).survivors
    with pytest.raises(secureagg.TooFewClientsError) as caught:
        secureagg.run_round(params, inputs, dropouts={"mask_input": [0, 1, 2]})
    assert (caught.value.have, caught.value.need) == (3, 4)
