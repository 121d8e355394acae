"""Calibration: smallest parameter that meets the target, named failures."""

# Helpers are untyped like the tests, and refusals are tested with wrong types on purpose.
# mypy: allow-untyped-calls, disable-error-code="arg-type, type-var"

import math

import pytest

import dp

ZERO_OUT = dp.NeighboringRelation.ZERO_OUT


def spent(event, accountant="rdp"):
    return dp.epsilon(event, 1e-3, neighboring=ZERO_OUT, accountant=accountant).upper


def gaussian(z):
    return dp.SelfComposedEvent(dp.GaussianEvent(z), 20)


def skellam(z):
    mechanism = dp.distributed(
        "skellam", dim=650, clip_norm=0.5, noise_multiplier=z, num_clients=200, shares=160
    )
    return dp.SelfComposedEvent(mechanism.event(160), 20)


def discrete(z):
    mechanism = dp.distributed(
        "discrete_gaussian", dim=650, clip_norm=0.5, noise_multiplier=z, num_clients=200, shares=160
    )
    return dp.SelfComposedEvent(mechanism.event(160), 20)


@pytest.mark.parametrize("make", [gaussian, skellam, discrete])
@pytest.mark.parametrize("target", [0.3, 4.0, 20.0])
@pytest.mark.parametrize("accountant", ["rdp", "zcdp"])
def test_answer_meets_the_target_and_is_the_smallest(make, target, accountant):
    z = dp.calibrate(make, epsilon=target, delta=1e-3, neighboring=ZERO_OUT, accountant=accountant)
    assert spent(make(z), accountant) <= target
    assert spent(make(z * 0.99999), accountant) > target


def test_failures_cost_noise():
    plain = dp.calibrate(gaussian, epsilon=4, delta=1e-3, neighboring=ZERO_OUT, accountant="rdp")
    safe = dp.calibrate(
        gaussian, epsilon=4, delta=1e-3, neighboring=ZERO_OUT, accountant="rdp",
        failure_prob=5e-4, total_variation=1e-9,
    )  # fmt: skip
    assert plain == pytest.approx(4.043, abs=0.002)
    assert safe > plain


def test_target_that_no_noise_meets():
    with pytest.raises(dp.CalibrationError, match="largest") as caught:
        dp.smallest_parameter(lambda z: 5.0, epsilon=1.0)
    assert caught.value.target == 1.0
    assert caught.value.bracket[1] == 2.0**40


def test_target_that_failures_make_unreachable_names_its_cause():
    with pytest.raises(dp.CalibrationError) as caught:
        dp.calibrate(
            gaussian, epsilon=4, delta=1e-3, neighboring=ZERO_OUT, accountant="rdp",
            failure_prob=2e-3,
        )  # fmt: skip
    assert isinstance(caught.value.__cause__, dp.FailureBudgetError)


def test_target_that_everything_meets():
    with pytest.raises(dp.CalibrationError, match="smallest"):
        dp.smallest_parameter(lambda z: 0.5, epsilon=1.0)


@pytest.mark.parametrize("target", [0.0, -1.0, math.nan, math.inf])
def test_target_out_of_range_is_refused(target):
    with pytest.raises(dp.ParameterError, match="epsilon"):
        dp.calibrate(gaussian, epsilon=target, delta=1e-3, neighboring=ZERO_OUT, accountant="rdp")


def test_errors_of_the_caller_are_not_swallowed():
    def broken(_):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        dp.smallest_parameter(broken, epsilon=1.0)
