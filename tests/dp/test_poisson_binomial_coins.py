"""Coins instead of noise: exact laws, and vectors that become biases within the event's bounds."""

# Helpers are untyped like the tests, and refusals are tested with wrong types on purpose.
# mypy: allow-untyped-calls, disable-error-code="arg-type, type-var"

import functools
import math

import numpy as np
import pytest

import dp
from dp.poisson_binomial import _sum_of_squares
from tests.dp.coins import UNIT, bias


def binomial_law(trials, k):
    """Of the number of successes, by outcome; float64[trials + 1]."""
    p = 0.5 + k * UNIT
    return np.array(
        [math.comb(trials, s) * p**s * (1 - p) ** (trials - s) for s in range(trials + 1)]
    )


# ---- the sampler


def chi_square(found, law, size):
    """Pearson's statistic with outcomes merged until ten are expected, and its deviations."""
    cells, seen, expected = [], 0, 0.0
    for value, chance in enumerate(law):
        seen += int((found == value).sum())
        expected += size * chance
        if expected >= 10:
            cells.append((seen, expected))
            seen, expected = 0, 0.0
    last = cells.pop()
    cells.append((last[0] + seen, last[1] + expected))
    statistic = sum((s - e) ** 2 / e for s, e in cells)
    freedom = len(cells) - 1
    return (statistic - freedom) / math.sqrt(2 * freedom)


@pytest.mark.parametrize("trials", [1, 4, 31])
@pytest.mark.parametrize("k", [0, bias(0.2), -bias(0.45)])
def test_successes_have_the_exact_law(stream, trials, k):
    size = 60_000
    found = dp.binomial(stream(trials), trials, np.full(size, k))
    law = binomial_law(trials, k)
    # 6 deviations of a chi-square with at most 31 degrees of freedom: false alarm below 1e-6.
    assert chi_square(found, law, size) < 6
    wrong = binomial_law(trials, k + bias(0.02))
    assert chi_square(found, wrong, size) > 6
    p = 0.5 + k * UNIT
    assert abs(found.var() / (trials * p * (1 - p)) - 1) < 0.05  # 8 standard errors


def repeated(word, count):
    return (word * count)[:count]


def test_a_coin_is_one_comparison_with_its_probability():
    """Words just below and at the threshold, for the smallest, a middle and the largest bias."""
    for k in (-(2**23) + 1, -5, 0, 7, 2**23 - 1):
        threshold = 2**31 + 256 * k
        for word, success in ((threshold - 1, 1), (threshold, 0), (0, 1), (2**32 - 1, 0)):
            source = functools.partial(repeated, word.to_bytes(4, "little"))
            assert dp.binomial(source, 3, np.array([k])).tolist() == [3 * success]


def test_every_value_costs_the_same_random_bytes(stream):
    source = stream(3)
    asked = []

    def rng(count):
        asked.append(count)
        return source(count)

    for k in (0, 5, 2**23 - 1, -(2**23) + 1):
        asked.clear()
        dp.binomial(rng, 5, np.full(20_000, k))
        assert sum(asked) == 4 * 5 * 20_000
    assert dp.binomial(rng, 5, np.zeros(0, dtype=np.int64)).size == 0


@pytest.mark.parametrize(
    ("field", "trials", "biases"),
    [
        ("trials", 0, np.zeros(2, dtype=np.int64)),
        ("biases", 2, np.array([2**23])),
        ("biases", 2, np.array([-(2**63)])),
        ("biases", 2, np.zeros((2, 2), dtype=np.int64)),
        ("biases", 2, np.zeros(2)),
    ],
)
def test_sampler_refuses(stream, field, trials, biases):
    with pytest.raises(dp.ParameterError) as caught:
        dp.binomial(stream(0), trials, biases)
    assert caught.value.field == field


# ---- the mechanism


def make(**changes):
    fields = {
        "dim": 300, "clip_norm": 2.0, "noise_multiplier": 1.5, "num_clients": 30, "shares": 20,
        "trials": 16, **changes,
    }  # fmt: skip
    return dp.poisson_binomial(**fields)


@pytest.mark.parametrize("trials", [4, 5])
def test_estimate_is_unbiased_and_has_the_noise_multiplier(stream, trials):
    made = make(trials=trials, dim=3000, noise_multiplier=4.0)
    rotation = dp.Rotation.from_seed(3000, b"r")
    rng = stream(7)
    x = np.random.default_rng(7).standard_normal((20, 3000)) / 40
    bits, total = made.modulus_bits, np.zeros(3000, dtype=np.uint64)
    for row in x:
        total += dp.wrap(made.encode(row, rotation, rng), bits)
    signed = dp.unwrap(total & np.uint64((1 << bits) - 1), bits)
    error = made.decode(signed, rotation) - x.sum(axis=0)
    nominal = 4.0 * 2.0
    assert abs(error.mean()) < 5 * nominal / math.sqrt(3000)  # false alarm 6e-7
    # Biases make coins less noisy, by less than 4 theta^2; 5 standard errors.
    low = 1 - 4 * (made.linf * UNIT) ** 2 - 5 * math.sqrt(2 / 3000)
    assert low < np.var(error) / nominal**2 < 1 + 5 * math.sqrt(2 / 3000)


def test_absent_clients_shift_nothing(stream):
    """Fair coins are centred, so a sum over fewer clients needs no count."""
    made, rotation = make(), dp.Rotation.from_seed(300, b"r")
    for clients in (1, 7):
        rng = stream(clients)
        mean = np.mean(
            [made.encode(np.zeros(300), rotation, rng).mean() for _ in range(40 * clients)]
        )
        assert abs(mean) < 5 * math.sqrt(4 / (300 * 40 * clients))


def test_biases_keep_the_bounds_of_the_event_and_zero_is_fair():
    made, rotation = make(), dp.Rotation.from_seed(300, b"r")
    stated = made.event(11)
    assert (stated.trials, stated.shares, stated.linf, stated.l2_sq, stated.dim) == (
        16, 11, made.linf, made.l2_sq, 300,
    )  # fmt: skip
    assert not made.biases(np.zeros(300), rotation).any()
    steep = rotation.invert(np.eye(300)[0] * 1e9)  # rotates onto one coordinate
    for x in (steep, np.ones(300), np.full(300, 1e-3), np.random.default_rng(1).normal(size=300)):
        k = [int(v) for v in made.biases(x, rotation)]
        assert max(map(abs, k)) <= made.linf
        assert sum(v * v for v in k) <= made.l2_sq
    assert max(map(abs, made.biases(steep, rotation).tolist())) == made.linf
    x = np.random.default_rng(2).normal(size=300)  # cut towards zero, not downwards
    np.testing.assert_array_equal(made.biases(-x, rotation), -made.biases(x, rotation))
    assert sum(int(v) ** 2 for v in made.biases(np.ones(300), rotation)) > 0.99 * made.l2_sq


class Stretch:
    """What calls itself a rotation and is none."""

    dim = 300

    def apply(self, x):
        return 1.001 * x


def test_the_norm_is_checked_after_everything(stream):
    with pytest.raises(dp.RoundingError):
        make().encode(np.ones(300), Stretch(), stream(0))


def test_sums_of_squares_are_exact():
    k = np.random.default_rng(0).integers(-(2**23), 2**23, 5000)
    assert _sum_of_squares(k) == sum(int(v) ** 2 for v in k)


@pytest.mark.parametrize("trials", [1, 2, 7, 16])
def test_modulus_holds_all_successes_and_is_the_smallest(trials):
    made = make(trials=trials, dim=10_000, num_clients=31)
    most = 31 * made.unit * trials // 2
    assert most <= 2 ** (made.modulus_bits - 1) - 1
    assert most > 2 ** (made.modulus_bits - 2) - 1
    rotation = dp.Rotation.from_seed(10_000, b"r")
    for byte, sign in ((b"\0", 1), (b"\xff", -1)):
        sent = made.encode(np.zeros(10_000), rotation, functools.partial(repeated, byte))
        assert (sent == sign * made.unit * trials // 2).all()
    with pytest.raises(dp.ModulusError):
        make(trials=trials, dim=10_000, num_clients=31, modulus_bits=made.modulus_bits - 1)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_vectors_that_are_not_finite_or_do_not_fit_are_refused(stream, bad):
    made, rotation = make(), dp.Rotation.from_seed(300, b"r")
    with pytest.raises(dp.NonFiniteError):
        made.encode(np.full(300, bad), rotation, stream(0))
    with pytest.raises(dp.ParameterError, match="x"):
        made.encode(np.zeros(299), rotation, stream(0))
    for call in (
        lambda r: made.encode(np.zeros(300), r, stream(0)),
        lambda r: made.decode(np.zeros(300, dtype=np.int64), r),
    ):
        with pytest.raises(dp.ParameterError, match=r"rotation\.dim"):
            call(dp.Rotation.from_seed(299, b"r"))
    with pytest.raises(dp.ParameterError, match="total"):
        made.decode(np.zeros(299, dtype=np.int64), rotation)
    with pytest.raises(dp.ParameterError, match="shares"):
        made.event(31)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("dim", 0),
        ("clip_norm", 0.0),
        ("noise_multiplier", 0.0),
        ("noise_multiplier", 1e-3),  # a bias above one half
        ("noise_multiplier", 1e7),  # one below the grid
        ("num_clients", 0),
        ("shares", 31),
        ("trials", 0),
        ("trials", 5000),
        ("spread", 0.5),
    ],
)
def test_arguments_out_of_range_are_refused(field, value):
    with pytest.raises(dp.ParameterError) as caught:
        make(**{field: value})
    assert caught.value.field == field
