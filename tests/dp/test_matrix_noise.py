"""Correlated noise: what is streamed, what is published, what is accounted."""

# mypy: allow-untyped-calls, disable-error-code="arg-type, union-attr"

import dataclasses
import math
from typing import Any

import numpy as np
import pytest

import dp
from dp import matrix
from dp.relations import shifted
from tests.dp.strategies import ALL, EXACT, TOLD, N, draws, each, streamed

PATTERNS = {"single": matrix.single(N), "cyclic": matrix.cyclic(N, 7), "apart": TOLD}
MAKES: dict[str, Any] = {
    "toeplitz": lambda told: matrix.banded(told, told.separation),
    "general": lambda told: matrix.banded(told, told.separation, toeplitz=False),
    "honaker": matrix.tree,
    "blt": lambda told: matrix.blt(told, 3),
}
each_exact = pytest.mark.parametrize("strategy", EXACT.values(), ids=EXACT)


@each_exact
def test_what_is_streamed_is_what_the_whole_matrix_publishes(strategy):
    """x + e, made round by round from z, is the function of C x + z alone, in integers."""
    noise = draws(strategy, 4)
    errors, _ = streamed(strategy, noise)
    x = np.random.default_rng(1).integers(-(10**6), 10**6, (N, 4))
    measured = strategy.matrix().astype(np.int64) @ x + noise
    np.testing.assert_array_equal(strategy.published(measured), x + errors)


@each
def test_streaming_agrees_with_the_matrix_in_floats(strategy):
    """C e = z but for rounding, so prefix errors are B z."""
    noise = draws(strategy, 4)
    errors, _ = streamed(strategy, noise)
    decoder = np.tri(N) @ np.linalg.pinv(strategy.matrix())
    if strategy is EXACT["plain"] or strategy is EXACT["honaker"]:
        units = 10**9 * np.eye(strategy.measurements, dtype=np.int64)
        decoder = np.cumsum(strategy.published(units), axis=0) / 1e9
    np.testing.assert_allclose(np.cumsum(errors, axis=0), decoder @ noise, atol=N + 1e-3)


@pytest.mark.parametrize("told", PATTERNS.values(), ids=PATTERNS)
@pytest.mark.parametrize("make", MAKES.values(), ids=MAKES)
def test_streamed_noise_is_that_of_the_matrix_for_every_pattern(make, told):
    """C e = z but for rounding; of a tree, the function of C x + z that is published."""
    strategy = make(told)
    noise = draws(strategy, 4)
    errors, _ = streamed(strategy, noise)
    if isinstance(strategy, matrix.TreeStrategy):
        np.testing.assert_array_equal(strategy.published(noise), errors)
        return
    slack = strategy.whitening(errors).slack[:, None]
    assert (np.abs(strategy.matrix() @ errors - noise) <= slack).all()


@each
def test_noise_has_the_law_that_errors_state(strategy, stream):
    """Empirical rms over many coordinates; a sensitivity wrong by 5 % would show (20 s.e.)."""
    dim = 20_000
    mechanism = matrix.correlated_gaussian(
        strategy, dim=dim, clip_norm=1.0, noise_multiplier=1.5, num_clients=10
    )
    noise, draw = mechanism.stream(), mechanism.draw(stream(3))
    prefix = np.zeros(dim)
    squares = []
    for _ in range(N):
        prefix += noise.advance(draw)
        squares.append(float((prefix**2).mean()))
    unit = mechanism.discretizer.clip_norm / mechanism.discretizer.granularity
    rms = math.sqrt(np.mean(squares)) / (1.5 * unit)
    assert rms == pytest.approx(strategy.errors(TOLD).rms_error, rel=0.01)


@each
def test_a_stream_continues_from_its_arrays(strategy):
    noise = draws(strategy, 3)
    errors, _ = streamed(strategy, noise)
    used = sum(_drawn(strategy, row) for row in range(8))
    first, stream = streamed(strategy, noise, rounds=8)
    arrays = {name: value.copy() for name, value in stream.to_arrays().items()}
    again = matrix.NoiseStream.from_arrays(strategy, 3, arrays)
    assert again.row == 8
    rest, _ = streamed(strategy, noise[used:], again, rounds=N - 8)
    np.testing.assert_array_equal(np.concatenate([first, rest]), errors)
    # What was read is a copy: the stream that goes on does not change it.
    np.testing.assert_equal(arrays, stream.to_arrays())


def _drawn(strategy, row):
    return (row + 1 & -(row + 1)).bit_length() if isinstance(strategy, matrix.TreeStrategy) else 1


@each
def test_memory_is_that_of_bands_buffers_or_levels(strategy):
    size = sum(array.size for array in strategy.arrays(1).values())
    if isinstance(strategy, matrix.BandedStrategy):
        assert size == max(1, strategy.bands - 1)
    elif isinstance(strategy, matrix.BltStrategy):
        assert size == len(strategy.decays)
    else:
        assert size == N.bit_length() + 1


@each_exact
def test_a_round_without_release_leaves_out_its_row_and_its_column(strategy):
    """Skipped rounds: what is released is a function of C' x + z, C' without those columns."""
    noise = draws(strategy, 2)
    x = np.random.default_rng(2).integers(-(10**6), 10**6, (N, 2))
    gone = {0, 3, 4, 12}
    x[sorted(gone)] = 0
    stream, rows, released = matrix.NoiseStream(strategy, 2), iter(noise), []
    for row in range(N):
        if row in gone:
            stream.skip(lambda: next(rows))
        else:
            released.append(x[row] + stream.advance(lambda: next(rows)))
    kept = [row for row in range(N) if row not in gone]
    if isinstance(strategy, matrix.TreeStrategy):
        # The prefix sums of the rounds that were released, from all measurements.
        measured = strategy.matrix().astype(np.int64) @ x + noise
        full = np.cumsum(strategy.published(measured), axis=0)
        np.testing.assert_array_equal(np.cumsum(released, axis=0), full[kept])
        return
    whole = strategy.matrix().astype(np.int64)[np.ix_(kept, kept)]
    measured = whole @ x[kept] + noise[: len(kept)]
    result: list[np.ndarray] = []
    for t in range(len(kept)):
        rest = measured[t] - sum((whole[t, s] * result[s] for s in range(t)), np.zeros(2, np.int64))
        result.append((rest + whole[t, t] // 2) // whole[t, t])
    np.testing.assert_array_equal(released, result)


@each
def test_more_rounds_than_the_noise_was_made_for_are_refused(strategy):
    noise = draws(strategy, 1)
    _, stream = streamed(strategy, noise)
    for step in (stream.advance, stream.skip):
        with pytest.raises(dp.ParameterError, match="row"):
            step(lambda: np.zeros(1, np.int64))


def test_the_state_of_another_strategy_is_refused():
    arrays = matrix.NoiseStream(EXACT["toeplitz"], 3).to_arrays()
    for strategy, dim in ((EXACT["general"], 3), (EXACT["toeplitz"], 4), (ALL["blt"], 3)):
        with pytest.raises(dp.ParameterError, match="arrays"):
            matrix.NoiseStream.from_arrays(strategy, dim, arrays)
    with pytest.raises(dp.ParameterError, match="row"):
        matrix.NoiseStream.from_arrays(EXACT["toeplitz"], 3, {**arrays, "row": np.array(N + 1)})


@pytest.mark.parametrize("seed", range(3))
def test_buffers_in_doubles_stay_within_half_their_slack(seed):
    """The streamed sum of a BLT against exact sums of the same errors."""
    told = matrix.single(200)
    strategy = matrix.blt(told, 4)
    noise = draws(strategy, 5, sigma=1e9, seed=seed)
    errors, _ = streamed(strategy, noise, rounds=200)
    scaled = strategy.matrix()
    exact = np.stack([
        [math.fsum(scaled[t, :t] * errors[:t, j]) for j in range(5)] for t in range(200)
    ])  # fmt: skip
    scale = scaled[0, 0]
    # e = round((z - G) / S), so that z - S e is G but for half a quotient.
    off = np.abs(noise - scale * errors - exact)
    assert off.max() <= scale / 2 + strategy.slack(5, 1e9).distance / 2
    wide = matrix.BltStrategy(told, (1.0 - 1e-9,), (0.5,))
    with pytest.raises(dp.ParameterError, match="double precision"):
        wide.slack(5, 1e25)


def test_a_client_moves_a_streamed_blt_by_no_more_than_its_event_says():
    """Along one sequence of releases, the noise that two inputs need differs by C u and slack."""
    told = matrix.min_separation(60, 20)
    strategy = matrix.blt(told, 2)
    rng = np.random.default_rng(4)
    x, u = rng.integers(-1000, 1000, (60, 3)), np.zeros((60, 3), np.int64)
    u[[5, 25, 45]] = rng.integers(-50, 50, (3, 3))
    noise = draws(strategy, 3, sigma=1e7)
    errors, _ = streamed(strategy, noise, rounds=60)
    seen = x + errors

    def windows(inputs):
        """S x_t + z_t - S seen_t for the noise that leads to `seen`, that is G of its errors."""
        buffers = strategy.arrays(3)
        sums = []
        for row in range(60):
            carried = np.zeros(3)
            for weight, buffer in zip(strategy.weights, buffers["buffers"], strict=True):
                carried += weight * buffer
            sums.append(np.rint(carried * 2**14).astype(np.int64))
            strategy._decay(buffers["buffers"])
            buffers["buffers"] += seen[row] - inputs[row]
        return np.stack(sums) - 2**14 * inputs

    moved = windows(x) - windows(x + u)
    linear = strategy.matrix() @ u
    assert np.abs(moved - linear).max() <= strategy.slack(3, 1e7).distance
    assert np.abs(moved - linear).max() > 0


def mechanism_of(strategy, **settings):
    given = {"dim": 50, "clip_norm": 2.0, "noise_multiplier": 1.3, "num_clients": 30}
    return matrix.correlated_gaussian(strategy, **{**given, **settings})


@each
def test_the_event_has_the_ratio_that_was_asked_for(strategy):
    mechanism = mechanism_of(strategy)
    event = mechanism.event()
    assert isinstance(event, dp.MatrixEvent)
    ratio = mechanism.sigma / math.sqrt(event.l2_sq)
    assert 1.3 * 0.985 <= ratio <= 1.3
    bounds = mechanism.discretizer.l2_sq * strategy.sensitivity_sq(TOLD)
    assert event.l2_sq == bounds or (strategy is ALL["blt"] and event.l2_sq > bounds)
    fewer = mechanism.event(TOLD.at_most(1))
    assert fewer.l2_sq < event.l2_sq
    with pytest.raises(dp.ParameterError, match="participation"):
        mechanism.event(matrix.single(N + 1))
    finer = mechanism_of(strategy, granularity=1e-4)
    assert finer.sigma > mechanism.sigma
    beyond_slack = 2.0**-100 if strategy is ALL["blt"] else 0.0
    drawn = strategy.measurements * 50 * 2.0**-100
    assert mechanism.total_variation() == drawn + beyond_slack


@pytest.mark.parametrize("accountant", ["rdp", "zcdp", "pld"])
@pytest.mark.parametrize("relation", dp.NeighboringRelation, ids=lambda r: r.value)
def test_accountants_price_all_rounds_as_one_gaussian(accountant, relation):
    """The curve of a Gaussian of that ratio (its exact epsilon is a little below)."""
    event = dp.MatrixEvent(1e7, 4 * 10**12)
    factor = 2 if relation is dp.NeighboringRelation.REPLACE_ONE else 1
    gaussian = dp.GaussianEvent(1e7 / (factor * 2e6))
    found = dp.epsilon(event, 1e-5, neighboring=relation, accountant=accountant)
    by_orders = "zcdp" if accountant == "zcdp" else "rdp"
    same = dp.epsilon(
        gaussian, 1e-5, neighboring=dp.NeighboringRelation.ZERO_OUT, accountant=by_orders
    )
    assert found.upper == pytest.approx(same.upper, rel=1e-9)
    assert found.lower == 0.0
    exact = dp.epsilon(gaussian, 1e-5, neighboring=dp.NeighboringRelation.ZERO_OUT)
    assert exact.lower <= found.upper <= 1.15 * exact.upper
    assert shifted(event, relation).l2_sq == factor**2 * event.l2_sq
    assert dp.group_event(event, 2).l2_sq == 4 * event.l2_sq


def test_sampling_is_refused_inside_and_nothing_is_amplified():
    event = dp.MatrixEvent(1e7, 10**12)
    for wrap in (
        lambda: dp.PoissonSampledEvent(0.1, event),
        lambda: dp.RecordSampledEvent(0.1, event),
        lambda: dp.LimitedParticipationEvent(event, 3, 1),
        lambda: dp.SecretParticipationEvent(event, 3, 0.1, 1),
    ):
        with pytest.raises(dp.ParameterError, match="event"):
            wrap()


def test_client_shares_of_correlated_noise_are_refused_with_the_reason():
    for name in ("tree", "banded", "blt"):
        with pytest.raises(dp.ParameterError, match="could not subtract its own") as caught:
            dp.distributed(
                name, dim=3, clip_norm=1.0, noise_multiplier=1.0, num_clients=5, shares=4
            )
        assert caught.value.field == "name"


@pytest.mark.parametrize("noise_multiplier", [0.0, 1e-12, 1e9])
def test_noise_out_of_range_is_refused(noise_multiplier):
    with pytest.raises(dp.ParameterError) as caught:
        mechanism_of(EXACT["toeplitz"], noise_multiplier=noise_multiplier, granularity=1e-3)
    assert caught.value.field == "noise_multiplier"


def test_bounds_of_the_event_are_integers_of_any_size():
    assert dp.MatrixEvent(1.0, 2**128).l2_sq == 2**128
    for bad in (0, -1, 1.5, True, 2**128 + 1):
        with pytest.raises(dp.ParameterError, match="l2_sq"):
            dp.MatrixEvent(1.0, bad)
    with pytest.raises(dp.ParameterError, match="sigma"):
        dp.MatrixEvent(0.0, 1)
    event = dp.MatrixEvent(2.0, 9)
    assert dp.event_from_dict(dp.event_to_dict(event)) == event
    assert dataclasses.astuple(event) == (2.0, 9)
