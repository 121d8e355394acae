"""Samplers: exact laws against mpmath, statistics at stated false-alarm rates, fixed draws."""

# Helpers are untyped like the tests, and refusals are tested with wrong types on purpose.
# mypy: allow-untyped-calls, disable-error-code="arg-type, type-var"

import math
from fractions import Fraction

import mpmath
import numpy as np
import pytest
from scipy import stats

import dp
from dp import _alias, _laws, samplers

LIMIT = mpmath.mpf(2) ** -100


def gaussian_law(variance: Fraction, last: int) -> list[mpmath.mpf]:
    v = mpmath.mpf(variance.numerator) / variance.denominator
    weights = [mpmath.exp(-(mpmath.mpf(k) ** 2) / (2 * v)) for k in range(last + 1)]
    total = 2 * sum(weights) - weights[0]
    return [w / total for w in weights]


def skellam_law(variance: Fraction, last: int) -> list[mpmath.mpf]:
    v = mpmath.mpf(variance.numerator) / variance.denominator
    return [mpmath.besseli(k, v) * mpmath.exp(-v) for k in range(last + 1)]


def distance(table: _alias.AliasTable, law: list[mpmath.mpf]) -> mpmath.mpf:
    """Total variation between a table and a symmetric law given on 0..K, tail included."""
    masses = table.probabilities()
    assert sum(masses) == 1 << _alias.PRECISION
    unit = mpmath.mpf(2) ** -_alias.PRECISION
    gap, covered = mpmath.mpf(0), mpmath.mpf(0)
    for column, mass in enumerate(masses):
        k = abs(column - table.offset)
        want = law[k] if k <= table.offset else mpmath.mpf(0)
        covered += want
        gap += abs(mass * unit - want)
    return (gap + (1 - covered)) / 2


@pytest.mark.parametrize("sigma", [1e-3, 0.3, 0.5, 1.0, 2.7, 40.0])
def test_gaussian_table_is_the_law_to_two_to_the_minus_100(sigma):
    with mpmath.workprec(420):
        variance = Fraction(sigma) ** 2
        table = _alias.build(_laws.discrete_gaussian_weights(variance))
        law = gaussian_law(variance, table.offset + 60 + int(3 * sigma))
        assert distance(table, law[: table.offset + 1]) < LIMIT
        assert 2 * sum(law[table.offset + 1 :]) < LIMIT


@pytest.mark.parametrize("variance", [1e-6, 0.01, 0.7, 3.0, 100.0, 1538.4951463966102])
def test_skellam_table_is_the_law_to_two_to_the_minus_100(variance):
    with mpmath.workprec(420):
        exact = Fraction(variance)
        table = _alias.build(_laws.skellam_weights(exact))
        law = skellam_law(exact, table.offset)
        assert abs(1 - (2 * sum(law) - law[0])) < LIMIT
        assert distance(table, law) < LIMIT


def test_bessel_recurrence_that_starts_too_low_starts_again(monkeypatch):
    monkeypatch.setattr(_laws, "_START_BITS", 1)
    weights = _laws.skellam_weights(Fraction(100))
    with mpmath.workprec(420):
        law = skellam_law(Fraction(100), len(weights) - 1)
        for weight, p in zip(weights, law, strict=True):  # relative: the far tail tells
            assert abs(mpmath.mpf(weight) / weights[0] * law[0] / p - 1) < mpmath.mpf(2) ** -115


def test_table_of_another_scale_is_not_the_law():
    with mpmath.workprec(420):
        table = _alias.build(_laws.skellam_weights(Fraction(100)))
        law = skellam_law(Fraction(100) * (1 + Fraction(1, 2**60)), table.offset)
        assert distance(table, law) > LIMIT


@pytest.mark.parametrize(
    "exponent", [Fraction(0), Fraction(-1, 10**12), Fraction(-7, 3), Fraction(-90), Fraction(-500)]
)
def test_exponential_is_within_one_unit(exponent):
    with mpmath.workprec(900):
        want = mpmath.exp(mpmath.mpf(exponent.numerator) / exponent.denominator)
        assert abs(_laws.exp_fixed(exponent, 320) - want * mpmath.mpf(2) ** 320) < 1


def chi_square_p(values: np.ndarray, law: list[mpmath.mpf]) -> float:
    """p-value over outcomes with at least 10 expected draws; the rest are pooled."""
    probs = np.array([float(p) for p in law])
    keep = np.flatnonzero(probs * values.size >= 10)
    last = int(keep.max())
    outcomes = np.arange(-last, last + 1)
    expected = probs[np.abs(outcomes)] * values.size
    observed = np.array([(values == k).sum() for k in outcomes], dtype=float)
    rest = values.size - expected.sum()
    if rest >= 10:
        expected = np.append(expected, rest)
        observed = np.append(observed, values.size - observed.sum())
    statistic = float(((observed - expected) ** 2 / expected).sum())
    return float(stats.chi2.sf(statistic, expected.size - 1))


# False-alarm rate of each chi-square test below: 1e-6, with fixed seeds.
ALARM = 1e-6
DRAWS = 200_000


@pytest.mark.parametrize("sigma", [0.5, 1.0, 3.2, 25.0])
def test_discrete_gaussian_passes_chi_square_and_a_wrong_scale_fails(stream, sigma):
    values = dp.discrete_gaussian(stream(11), sigma, DRAWS)
    exact = Fraction(sigma) ** 2
    last = int(14 * sigma) + 14
    assert chi_square_p(values, gaussian_law(exact, last)) > ALARM
    assert chi_square_p(values, gaussian_law(exact * Fraction(110, 100), last)) < ALARM


@pytest.mark.parametrize("variance", [0.25, 1.0, 10.0, 600.0])
def test_skellam_passes_chi_square_and_a_wrong_scale_fails(stream, variance):
    values = dp.skellam(stream(12), variance, DRAWS)
    last = int(14 * math.sqrt(variance)) + 14
    assert chi_square_p(values, skellam_law(Fraction(variance), last)) > ALARM
    assert chi_square_p(values, skellam_law(Fraction(variance * 1.1), last)) < ALARM


@pytest.mark.parametrize(
    ("draw", "scale"),
    [
        (dp.discrete_gaussian, 1e3),
        (dp.discrete_gaussian, 1e4),
        (dp.discrete_gaussian, 12345.678),
        (dp.discrete_gaussian, 1e6),
        (dp.discrete_gaussian, 1e9),
        (dp.discrete_gaussian, 2.0**40),
        (dp.skellam, 1e5),
        (dp.skellam, 1e8),
    ],
)
def test_moments_at_large_scale(stream, draw, scale):
    size = 400_000
    values = draw(stream(13), scale, size).astype(float)
    sigma = scale if draw is dp.discrete_gaussian else math.sqrt(scale)
    # Each is a mean of about normal terms: 5 standard errors, false alarm 6e-7 each.
    assert abs(values.mean()) < 5 * sigma / math.sqrt(size)
    assert abs(values.var() / sigma**2 - 1) < 5 * math.sqrt(2 / size)
    assert abs((values**4).mean() / sigma**4 - 3) < 5 * math.sqrt(96 / size)
    half = np.abs(values) < 0.6744897501960817 * sigma
    assert abs(half.mean() - 0.5) < 5 * 0.5 / math.sqrt(size) + 1 / sigma


@pytest.mark.parametrize("sigma", [10000.5, 65536.0, 999_999.0])
def test_split_of_large_sigma_is_exact_and_smooth(sigma):
    variance = Fraction(sigma) ** 2
    factor, coarse = samplers._split_variance(variance)
    fine = Fraction(4096) ** 2
    assert fine + factor**2 * coarse == variance
    assert coarse <= fine
    assert fine * coarse / variance >= 9  # (s1 s2 / sigma)^2


def test_convolution_of_two_discrete_gaussians_is_the_law():
    # x1 + k x2 with s1 = s2 = 8 and k = 3: s1 s2 / sigma = 2.53, distance about 2^-180.
    with mpmath.workprec(300):
        part = gaussian_law(Fraction(64), 160)
        whole = gaussian_law(Fraction(640), 400)
        for z in (0, 1, 7, 50):
            got = mpmath.fsum(
                part[abs(z - 3 * x)] * part[abs(x)]
                for x in range(-100, 101)
                if abs(z - 3 * x) <= 160
            )
            assert abs(got / whole[z] - 1) < mpmath.mpf(2) ** -160


@pytest.mark.parametrize(
    ("draw", "scale", "per_value"),
    [(dp.discrete_gaussian, 2.0, 8), (dp.skellam, 9.0, 8), (dp.discrete_gaussian, 2e4, 16)],
)
def test_draws_per_value_are_fixed(stream, draw, scale, per_value):
    for seed in range(5):
        source = stream(seed)
        asked: list[int] = []

        def rng(count, source=source, asked=asked):
            asked.append(count)
            return source(count)

        draw(rng, scale, 70_000)
        assert sum(asked) == per_value * 70_000


def test_tie_is_resolved_by_further_bits():
    table = samplers._gaussian_table(Fraction(9))
    g = table.index_bits
    bits = 256 - g - 44
    others = [int(e) & 0xFFFFF for e in table.packed]
    column = next(i for i, o in enumerate(others) if o != i and table.splits[i] > 0)
    split = table.splits[column]
    word = (column << (64 - g)) | ((split >> bits) << (20 - g))
    low = split & ((1 << bits) - 1)

    def draw(further):
        parts = [word.to_bytes(8, "little"), further.to_bytes((bits + 7) // 8, "little")]
        return int(_alias.sample(table, lambda n: parts.pop(0), 1)[0])

    assert draw(low - 1) == column - table.offset
    assert draw(low) == others[column] - table.offset


def test_streams_of_two_clients_and_two_rounds_differ(stream):
    noise = [dp.skellam(stream(seed), 50.0, 20_000).astype(float) for seed in range(4)]
    for i in range(4):
        for j in range(i):
            correlation = float(np.corrcoef(noise[i], noise[j])[0, 1])
            assert abs(correlation) < 5 / math.sqrt(20_000)  # false alarm 6e-7 each


def test_empty_sample_and_dtype(stream):
    assert dp.skellam(stream(0), 1.0, 0).shape == (0,)
    assert dp.discrete_gaussian(stream(0), 1.0, 3).dtype == np.int64


def test_total_variation_adds_over_values():
    assert dp.total_variation(0) == 0.0
    assert dp.total_variation(2**20) == 2.0**-80


@pytest.mark.parametrize("scale", [0, -1.0, float("nan"), float("inf"), 1e13, True, "1"])
def test_scales_out_of_range_are_refused(stream, scale):
    with pytest.raises(dp.ParameterError) as caught:
        dp.discrete_gaussian(stream(0), scale, 1)
    assert caught.value.field == "sigma"
    with pytest.raises(dp.ParameterError) as caught:
        dp.skellam(stream(0), scale, 1)
    assert caught.value.field == "variance"


@pytest.mark.parametrize("size", [-1, 1.5, True])
def test_sizes_out_of_range_are_refused(stream, size):
    with pytest.raises(dp.ParameterError) as caught:
        dp.skellam(stream(0), 1.0, size)
    assert caught.value.field == "size"


@pytest.mark.parametrize(
    "rng",
    [np.random.default_rng(0), lambda n: b"", lambda n: bytes(n + 1), lambda n: n, None],
    ids=["generator", "empty", "long", "int", "none"],
)
def test_random_sources_that_are_none_are_refused(rng):
    with pytest.raises(dp.ParameterError) as caught:
        dp.skellam(rng, 1.0, 4)
    assert caught.value.field == "rng"
