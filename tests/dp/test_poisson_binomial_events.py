"""Poisson binomial events: composition, calibration, what costs more, what is refused."""

# Helpers are untyped like the tests, and refusals are tested with wrong types on purpose.
# mypy: allow-untyped-calls, disable-error-code="arg-type, type-var"

import dataclasses
import warnings

import numpy as np
import pytest

import dp
from tests.dp.coins import event

REPLACE_ONE = dp.NeighboringRelation.REPLACE_ONE
ZERO_OUT = dp.NeighboringRelation.ZERO_OUT


def test_composition_with_other_events_and_calibration():
    made = event(4, 20, 0.05, dim=10)
    other = dp.SkellamEvent(400.0, 4, 4, 2, 10)
    a = np.array([1.0, 5.0])
    both = dp.ComposedEvent((made, dp.SelfComposedEvent(other, 3)))
    want = dp.rdp_curve(made, a) + 3 * dp.rdp_curve(other, a)
    np.testing.assert_allclose(dp.rdp_curve(both, a), want)

    def at(multiplier):
        made = dp.poisson_binomial(
            dim=10, clip_norm=1.0, noise_multiplier=multiplier, num_clients=30, shares=20, trials=64
        )
        return dp.SelfComposedEvent(made.event(20), 5)

    target = {"delta": 1e-4, "neighboring": ZERO_OUT, "accountant": "rdp"}
    multiplier = dp.calibrate(at, epsilon=2.0, **target)
    assert 1.99 < dp.epsilon(at(multiplier), **target).upper <= 2.0
    gauss = dp.calibrate(
        lambda z: dp.SelfComposedEvent(dp.GaussianEvent(z), 5), epsilon=2.0, **target
    )
    assert gauss < multiplier < 1.05 * gauss


def test_pld_reports_the_upper_end_of_rdp_and_says_so():
    made = dp.SelfComposedEvent(event(dim=3), 2)
    by_rdp = dp.epsilon(made, 1e-3, neighboring=ZERO_OUT, accountant="rdp")
    by_pld = dp.epsilon(made, 1e-3, neighboring=ZERO_OUT)
    assert (by_pld.lower, by_pld.upper) == (0.0, by_rdp.upper)
    assert "rdp" in by_pld.note
    spent = dp.delta(made, 1.0, neighboring=ZERO_OUT)
    assert 0 == spent.lower < spent.upper < 1


def test_replace_one_costs_more_than_zero_out_and_is_marked_once():
    made = event(dim=2)
    spent = [
        dp.epsilon(made, 1e-3, neighboring=r, accountant="rdp").upper
        for r in (ZERO_OUT, REPLACE_ONE)
    ]
    assert 1.5 * spent[0] < spent[1]
    again = dataclasses.replace(made, replaced=True)
    assert dp.epsilon(again, 1e-3, neighboring=REPLACE_ONE, accountant="rdp").upper == spent[1]


@pytest.mark.parametrize("accountant", ["rdp", "pld"])
def test_add_remove_is_refused(accountant):
    with pytest.raises(dp.UnsupportedEventError, match="absent"):
        dp.epsilon(
            event(), 1e-3, neighboring=dp.NeighboringRelation.ADD_REMOVE, accountant=accountant
        )


def test_sampling_groups_and_lines_are_refused():
    for sampled in (dp.PoissonSampledEvent, dp.RecordSampledEvent):
        with pytest.raises(dp.ParameterError, match="noise"):
            sampled(0.5, event())
    with pytest.raises(dp.ParameterError, match="noise"):
        dp.FixedSizeSampledEvent(10, 5, event())
    with pytest.raises(dp.UnsupportedEventError):
        dp.zcdp_bound(event())
    with pytest.raises(dp.UnsupportedEventError):
        dp.group_event(event(), 2)


def test_secret_participation_mixes_whole_releases():
    secret = dp.SecretParticipationEvent(event(dim=20), 10, 0.1, 10)
    certain = dp.SelfComposedEvent(event(dim=20), 10)
    spent = [
        dp.epsilon(one, 1e-3, neighboring=ZERO_OUT, accountant="rdp").upper
        for one in (secret, certain)
    ]
    assert spent[0] < spent[1]


def test_ledger_and_plain_data_keep_the_event():
    made = event(dim=7)
    assert dp.event_from_dict(dp.event_to_dict(made)) == made
    moved = dataclasses.replace(made, replaced=True)
    assert dp.event_from_dict(dp.event_to_dict(moved)) == moved
    ledger = dp.Ledger(4, max_releases=2, min_survivors=3, neighboring=ZERO_OUT)
    ledger.charge(0, 0, [0, 1, 2, 3])
    ledger.release(0, 0, [0, 1, 2], made)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        spent = ledger.realised(1e-3, "rdp")
    once = dp.epsilon(made, 1e-3, neighboring=ZERO_OUT, accountant="rdp")
    assert spent.upper == pytest.approx(once.upper)
    assert dp.Ledger.from_json(ledger.to_json()).realised(1e-3, "rdp") == spent


@pytest.mark.parametrize(
    ("field", "value"),
    [("trials", 0), ("shares", 0), ("linf", 0), ("linf", 2**23), ("l2_sq", 0), ("dim", 0),
     ("replaced", 1)],
)  # fmt: skip
def test_events_out_of_range_are_refused(field, value):
    with pytest.raises(dp.ParameterError) as caught:
        event(**{field: value})
    assert caught.value.field == field
