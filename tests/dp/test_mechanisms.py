"""Mechanisms: noise of the stated size, events that fit it, a modulus that never wraps."""

# Helpers are untyped like the tests, and refusals are tested with wrong types on purpose.
# mypy: allow-untyped-calls, disable-error-code="arg-type, type-var"

import math

import mpmath
import numpy as np
import pytest

import dp
from dp import _laws

NAMES = ["skellam", "discrete_gaussian"]


def make(name, **changes):
    fields = {
        "dim": 64,
        "clip_norm": 0.5,
        "noise_multiplier": 2.0,
        "num_clients": 30,
        "shares": 20,
    }
    return dp.distributed(name, **{**fields, **changes})


@pytest.mark.parametrize("name", NAMES)
def test_shares_give_the_noise_multiplier(stream, name):
    mechanism = make(name, dim=4000)
    rng = stream(5)
    total = sum(mechanism.sample_share(rng) for _ in range(20)) * mechanism.discretizer.granularity
    # Variance of 4,000 values within 5 standard errors: false alarm 6e-7.
    assert abs(np.var(total) / (2.0 * 0.5) ** 2 - 1) < 5 * math.sqrt(2 / 4000)


@pytest.mark.parametrize("name", NAMES)
def test_released_mean_has_the_stated_noise(stream, name):
    # Noise belongs to the sum: std of (mean times n) is noise_multiplier * clip_norm.
    mechanism = make(name, dim=3000, num_clients=20)
    rotation = dp.Rotation.from_seed(3000, b"r")
    rng = stream(6)
    x = np.random.default_rng(7).standard_normal((20, 3000)) / 200
    total = sum(mechanism.encode(row, rotation, rng) for row in x)
    bits = mechanism.modulus_bits
    total = dp.unwrap(dp.wrap(np.asarray(total), bits), bits)
    error = mechanism.discretizer.decode(total, rotation) - x.sum(axis=0)
    rounding = 20 * mechanism.discretizer.granularity**2 / 4
    low, high = 1.0, 1.0 + rounding
    width = 5 * math.sqrt(2 / 3000)  # false alarm 6e-7
    assert low * (1 - width) < np.var(error) < high * (1 + width)


@pytest.mark.parametrize("name", NAMES)
def test_event_counts_the_shares_that_it_is_given(name):
    mechanism = make(name)
    size = mechanism.discretizer
    event = mechanism.event(11)
    assert (event.l2_sq, event.l1, event.linf, event.dim) == (size.l2_sq, size.l1, size.linf, 64)
    if isinstance(event, dp.SkellamEvent):
        assert event.variance == pytest.approx(11 * mechanism.share_variance)
        assert event.variance <= 11 * mechanism.share_variance
    else:
        assert (event.shares, event.share_sigma) == (11, mechanism.share_sigma)


@pytest.mark.parametrize("name", NAMES)
def test_fewer_survivors_cost_epsilon(name):
    mechanism = make(name)
    spent = [
        dp.epsilon(
            mechanism.event(shares),
            1e-5,
            neighboring=dp.NeighboringRelation.ZERO_OUT,
            accountant="rdp",
        ).upper
        for shares in (20, 15, 10, 5)
    ]
    assert spent == sorted(spent)
    assert spent[0] < spent[-1]


def test_event_bound_is_the_integer_bound_after_rounding():
    mechanism = dp.central_gaussian(dim=650, clip_norm=0.5, noise_multiplier=4.0, num_clients=10)
    event = mechanism.event()
    effective = event.sigma / math.sqrt(event.l2_sq)
    assert 4.0 / 1.0101 < effective < 4.0  # rounding costs at most one per cent


def test_central_noise(stream):
    mechanism = dp.central_gaussian(dim=5000, clip_norm=1.0, noise_multiplier=3.0, num_clients=10)
    noise = mechanism.sample_noise(stream(1)) * mechanism.discretizer.granularity
    assert abs(np.var(noise) / 9 - 1) < 5 * math.sqrt(2 / 5000)  # false alarm 6e-7
    rotation = dp.Rotation.from_seed(5000, b"r")
    x = np.random.default_rng(0).standard_normal(5000)
    encoded = mechanism.encode(x, rotation, stream(2))
    np.testing.assert_array_equal(encoded, mechanism.discretizer.encode(x, rotation, stream(2)))
    assert mechanism.total_variation() == dp.total_variation(5000)
    assert make("skellam").total_variation(20) == dp.total_variation(20 * 64)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("num_clients", [1, 30, 1000])
def test_modulus_holds_the_worst_case_and_is_the_smallest(name, num_clients):
    mechanism = make(name, num_clients=num_clients, shares=1)
    linf = mechanism.discretizer.linf
    total = num_clients * mechanism.share_variance
    room = (1 << (mechanism.modulus_bits - 1)) - 1 - num_clients * linf
    below = (1 << (mechanism.modulus_bits - 2)) - 1 - num_clients * linf

    def log2_wrap(tail):
        """log2 of the bound on the probability that the noise of some coordinate exceeds it."""
        exact = name == "skellam"
        rate = _laws.skellam_rate(total, tail) if exact else tail**2 / (2 * total)
        return math.log2(2 * 64) - rate / math.log(2)

    assert log2_wrap(room) <= -100
    assert below < 0 or log2_wrap(below) > -104


@pytest.mark.parametrize("mu", [0.5, 20.0])
def test_skellam_tail_bound_is_above_the_exact_tail(mu):
    with mpmath.workdps(60):
        for t in (1, 5, 20, 60):
            exact = mpmath.fsum(mpmath.besseli(k, mu) * mpmath.exp(-mu) for k in range(t, t + 120))
            assert exact <= mpmath.exp(-_laws.skellam_rate(mu, t))
    t = _laws.skellam_tail(mu, 100)
    assert 2 * math.exp(-_laws.skellam_rate(mu, t)) <= 2.0**-100


@pytest.mark.parametrize("name", NAMES)
def test_nothing_wraps_when_all_clients_send_the_bound(stream, name):
    mechanism = make(name, dim=1, num_clients=8, shares=1, noise_multiplier=0.5)
    rotation = dp.Rotation.from_seed(1, b"r")
    rng, bits = stream(3), mechanism.modulus_bits
    for _ in range(200):
        parts = [mechanism.encode([-1e9], rotation, rng) for _ in range(8)]
        words = sum(dp.wrap(part, bits) for part in parts)
        got = dp.unwrap(np.asarray(words) & np.uint64((1 << bits) - 1), bits)
        np.testing.assert_array_equal(got, sum(parts))


def test_modulus_too_small_is_refused():
    needed = make("skellam").modulus_bits
    assert make("skellam", modulus_bits=needed + 3).modulus_bits == needed + 3
    with pytest.raises(dp.ModulusError) as caught:
        make("skellam", modulus_bits=needed - 1)
    assert (caught.value.field, caught.value.needed) == ("modulus_bits", needed)
    with pytest.raises(dp.ModulusError):
        dp.central_gaussian(
            dim=9, clip_norm=1.0, noise_multiplier=1.0, num_clients=9, modulus_bits=2
        )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("dim", 0),
        ("clip_norm", -1.0),
        ("noise_multiplier", 0.0),
        ("noise_multiplier", math.nan),
        ("noise_multiplier", 1e8),
        ("noise_multiplier", 1e-8),
        ("num_clients", 0),
        ("shares", 0),
        ("shares", 31),
        ("granularity", math.inf),
    ],
)
@pytest.mark.parametrize("name", NAMES)
def test_arguments_out_of_range_are_refused(name, field, value):
    with pytest.raises(dp.ParameterError) as caught:
        make(name, **{field: value})
    assert caught.value.field == field


def test_other_arguments_out_of_range_are_refused():
    with pytest.raises(dp.ParameterError, match="name"):
        make("gaussian")
    with pytest.raises(dp.ParameterError, match="shares"):
        make("skellam").event(31)
    with pytest.raises(dp.ParameterError, match="noise_multiplier"):
        dp.central_gaussian(dim=9, clip_norm=1.0, noise_multiplier=1e7, num_clients=9)
