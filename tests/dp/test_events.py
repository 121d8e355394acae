"""Events: validated, frozen, hashable, rebuilt from plain data; the package as a whole."""

# Helpers are untyped like the tests, and refusals are tested with wrong types on purpose.
# mypy: allow-untyped-calls, disable-error-code="arg-type, type-var"

import dataclasses
import json
import math
import pathlib
import subprocess
import sys

import numpy as np
import pytest

import dp
from dp.relations import shifted

EVENTS = [
    dp.GaussianEvent(1.5),
    dp.DiscreteGaussianEvent(2.0, 9, 5, 3, 4),
    dp.DiscreteGaussianSumEvent(2.0, 7, 9, 5, 3, 4),
    dp.SkellamEvent(4.0, 9, 5, 3, 4),
    dp.SelfComposedEvent(dp.GaussianEvent(1.5), 3),
    dp.ComposedEvent((dp.GaussianEvent(1.5), dp.SelfComposedEvent(dp.GaussianEvent(2.5), 3))),
]
IDS = [type(event).__name__ for event in EVENTS]


@pytest.mark.parametrize("event", EVENTS, ids=IDS)
def test_events_survive_json_and_are_hashable(event):
    again = dp.event_from_dict(json.loads(json.dumps(dp.event_to_dict(event))))
    assert again == event
    assert hash(again) == hash(event)
    with pytest.raises(dataclasses.FrozenInstanceError):
        event.dim = 3


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"type": "LaplaceEvent"},
        {"type": ["GaussianEvent"]},
        {"type": "GaussianEvent"},
        {"type": "GaussianEvent", "noise_multiplier": 1.0, "extra": 2},
    ],
    ids=["empty", "unknown", "list", "missing", "extra"],
)
def test_data_that_is_no_event_is_refused(data):
    with pytest.raises(dp.LedgerMismatchError):
        dp.event_from_dict(data)


@pytest.mark.parametrize("event", EVENTS[1:4], ids=IDS[1:4])
def test_replace_one_doubles_every_norm_and_nothing_else(event):
    doubled = dataclasses.replace(
        event, l2_sq=4 * event.l2_sq, l1=2 * event.l1, linf=2 * event.linf
    )
    assert shifted(event, dp.NeighboringRelation.REPLACE_ONE) == doubled
    assert shifted(event, dp.NeighboringRelation.ZERO_OUT) == event


def test_an_absent_client_takes_its_noise_share_along():
    shares = [dp.SkellamEvent(9.0, 1, 1, 1, 1), dp.DiscreteGaussianSumEvent(2.0, 3, 1, 1, 1, 1)]
    for event in shares:
        composed = dp.ComposedEvent((dp.GaussianEvent(1.0), dp.SelfComposedEvent(event, 2)))
        for wrapped in (event, dp.SelfComposedEvent(event, 2), composed):
            with pytest.raises(dp.UnsupportedEventError, match="noise share is absent"):
                shifted(wrapped, dp.NeighboringRelation.ADD_REMOVE)
    central = dp.ComposedEvent((dp.GaussianEvent(1.0), dp.DiscreteGaussianEvent(2.0, 1, 1, 1, 1)))
    assert shifted(central, dp.NeighboringRelation.ADD_REMOVE) == central


def test_numpy_scalars_are_stored_as_python_numbers():
    """4 * np.int16(20000) wraps; the event must hold what it was given."""
    event = dp.SkellamEvent(
        np.float32(1e6), np.int16(20000), np.int8(100), np.int8(100), np.int32(9)
    )
    doubled = shifted(event, dp.NeighboringRelation.REPLACE_ONE)
    assert doubled == dp.SkellamEvent(1e6, 80000, 200, 200, 9)
    assert [type(value) for value in dataclasses.astuple(event)] == [float, int, int, int, int]
    count = dp.SelfComposedEvent(dp.GaussianEvent(np.float16(300)), np.int8(100))
    assert type(count.count) is int
    assert count.event == dp.GaussianEvent(300.0)


@pytest.mark.parametrize("huge", [10**400, 1e200, 1e-200])
def test_noise_that_no_square_holds_is_refused(huge):
    for make in (dp.GaussianEvent, lambda v: dp.SkellamEvent(v, 1, 1, 1, 1)):
        with pytest.raises(dp.ParameterError):
            make(huge)
    with pytest.raises(dp.ParameterError, match="count"):
        dp.SelfComposedEvent(dp.GaussianEvent(1.0), 10**400)


BAD = [0, -1, math.nan, math.inf, None, "1", True]


@pytest.mark.parametrize("value", BAD, ids=str)
def test_noise_out_of_range_is_refused(value):
    for make, field in [
        (dp.GaussianEvent, "noise_multiplier"),
        (lambda v: dp.DiscreteGaussianEvent(v, 1, 1, 1, 1), "sigma"),
        (lambda v: dp.DiscreteGaussianSumEvent(v, 1, 1, 1, 1, 1), "share_sigma"),
        (lambda v: dp.SkellamEvent(v, 1, 1, 1, 1), "variance"),
    ]:
        with pytest.raises(dp.ParameterError) as caught:
            make(value)
        assert caught.value.field == field


@pytest.mark.parametrize("field", ["l2_sq", "l1", "linf", "dim"])
@pytest.mark.parametrize("value", [0, -1, 1.5, True])
def test_bounds_that_are_no_positive_integers_are_refused(field, value):
    for event in EVENTS[1:4]:
        with pytest.raises(dp.ParameterError) as caught:
            dataclasses.replace(event, **{field: value})
        assert caught.value.field == field


@pytest.mark.parametrize(
    "make",
    [
        lambda: dp.ComposedEvent(()),
        lambda: dp.ComposedEvent([dp.GaussianEvent(1.0)]),
        lambda: dp.ComposedEvent((1,)),
        lambda: dp.SelfComposedEvent(dp.GaussianEvent(1.0), 0),
        lambda: dp.SelfComposedEvent("event", 1),
        lambda: dp.DiscreteGaussianSumEvent(1.0, 0, 1, 1, 1, 1),
    ],
    ids=["empty", "list", "no-event", "zero-times", "text", "no-shares"],
)
def test_compositions_that_are_none_are_refused(make):
    with pytest.raises(dp.ParameterError):
        make()


@pytest.mark.parametrize("ends", [(1.0, 0.5), (-1.0, 1.0), (0.0, math.nan), (math.nan, 1.0)])
def test_intervals_are_ordered(ends):
    with pytest.raises(dp.ParameterError):
        dp.Interval(*ends)


def test_error_messages_name_field_value_and_range():
    error = dp.ParameterError("sigma", -1.0, "a positive number")
    assert str(error) == "sigma=-1.0: takes a positive number"
    assert isinstance(error, ValueError)
    many = dp.ReleaseLimitError(range(9), 3)
    assert "0, 1, 2, 3, 4 and 4 more" in str(many)
    assert many.client_ids == tuple(range(9))


def test_every_error_is_a_dp_error():
    names = [name for name in dp.__all__ if name.endswith("Error")]
    assert all(issubclass(getattr(dp, name), dp.DpError) for name in names)
    assert len(names) == 15


def test_promises_exist_and_are_sorted():
    assert all(hasattr(dp, name) for name in dp.__all__)
    assert len(set(dp.__all__)) == len(dp.__all__)


def test_import_loads_numpy_and_the_standard_library_alone():
    code = (
        "import sys, dp; "
        "print(sorted({'jax', 'scipy', 'cryptography', 'optax', 'mpmath'} & set(sys.modules)))"
    )
    root = pathlib.Path(dp.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_slack_bounds_are_drawn_tight_before_they_are_doubled():
    """l2_sq = 3 in one dimension admits -1, 0, 1 alone, so the largest difference is 2, not 3."""
    slack = dp.DiscreteGaussianEvent(1.0, l2_sq=3, l1=3, linf=3, dim=1)
    tight = dp.DiscreteGaussianEvent(1.0, l2_sq=1, l1=1, linf=1, dim=1)
    relation = dp.NeighboringRelation.REPLACE_ONE
    found = dp.epsilon(slack, 1e-5, neighboring=relation)
    truth = dp.epsilon(tight, 1e-5, neighboring=relation)
    assert found.lower <= truth.upper
    assert found.upper >= truth.lower
