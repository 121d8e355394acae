"""Nonsense of every kind is a typed error that names its field, before anything is trained."""

import importlib
import math
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import dp
import fl
from fl.tree import clip_by_l2
from fl.types import Purpose
from tests.fl import helpers

ENCODING: Any = importlib.import_module("fl.encoding")
ROUND: Any = importlib.import_module("fl.round")
HUGE = 10**400


def fields_of(plan: fl.Plan) -> list[str]:
    with pytest.raises(fl.PlanError) as caught:
        fl.resolve(plan, helpers.small_data())
    return [line.partition(":")[0] for line in caught.value.faults]


@pytest.mark.parametrize(
    ("overrides", "field"),
    [
        ({"cohort": "full"}, "cohort"),
        ({"cohort": fl.cohort.cyclic(2.5)}, "cohort"),  # type: ignore[arg-type]
        ({"cohort": fl.cohort.cyclic(True)}, "cohort"),
        ({"privacy": None}, "privacy"),
        ({"aggregation": "secure"}, "aggregation"),
        ({"algorithm": None}, "algorithm"),
        ({"rounds": HUGE}, "rounds"),
        ({"seeded_secrets": 1}, "seeded_secrets"),
        ({"privacy": helpers.privacy(epsilon=HUGE)}, "epsilon"),
        ({"privacy": helpers.privacy(report_deltas=0.1)}, "report_deltas"),
        ({"privacy": helpers.privacy(report_deltas=None)}, "report_deltas"),
        ({"privacy": helpers.privacy(clip_norm=1e-50)}, "clip_norm"),
        ({"privacy": helpers.privacy(clip_norm=1e39)}, "clip_norm"),
        ({"privacy": fl.NotPrivate(1e200)}, "max_norm"),
        ({"privacy": fl.NotPrivate(1.0, max_weight=HUGE)}, "max_weight"),
        ({"aggregation": helpers.ideal(simulate_dropout=None)}, "simulate_dropout"),
        ({"aggregation": helpers.ideal(simulate_dropout=["unmask"])}, "simulate_dropout"),
        ({"aggregation": helpers.ideal(dropout="x", expected_dropout=0.1)}, "dropout"),
        ({"aggregation": helpers.ideal(beyond="yes")}, "beyond"),
        ({"aggregation": helpers.ideal(security_bits=HUGE)}, "security_bits"),
        ({"algorithm": helpers.algorithm(batch_size=2.5)}, "batch_size"),
        ({"algorithm": helpers.algorithm(batch_size=math.nan)}, "batch_size"),
        ({"algorithm": helpers.algorithm(local_epochs="2")}, "local_epochs"),
    ],
)
def test_wrong_types_and_sizes_are_faults(overrides: Mapping[str, Any], field: str) -> None:
    assert fields_of(helpers.plan(**overrides)) == [field]


@pytest.mark.parametrize("bits", [0, 9])
def test_a_delta_that_cannot_pay_for_the_protocol_names_the_bits(bits: int) -> None:
    assert fields_of(helpers.plan(aggregation=helpers.secure(security_bits=bits))) == [
        "security_bits"
    ]


def test_messages_are_float32() -> None:
    algorithm = helpers.ALGORITHM
    as_integers = algorithm._replace(
        client_final=lambda step: ({"n": jnp.zeros(3, jnp.int32)}, (), {})
    )
    assert fields_of(helpers.plan(algorithm=as_integers)) == ["client_final"]


@pytest.mark.parametrize("largest", [1e37, 3e38])
@pytest.mark.parametrize("bound", [1e-12, 0.5, 1e12])
def test_the_clip_holds_up_to_the_largest_float(largest: float, bound: float) -> None:
    for vector in ([largest, 0.0, 0.0], [largest] * 40, [largest, 1.0, -largest]):
        x = np.array(vector, dtype=np.float32)
        got = np.asarray(clip_by_l2(jnp.asarray(x), bound), dtype=np.float64)
        np.testing.assert_allclose(got, dp.clip_l2(x, bound), rtol=1e-5, atol=1e-12 * bound)


def test_a_finite_update_that_overflows_when_squared_is_clipped_like_any_other() -> None:
    data = helpers.small_data()
    x = np.array(data.fields["x"], dtype=np.float32)
    x[data.client_slice(4)] = 1e38
    (r,) = fl.rounds(helpers.plan(rounds=1), helpers.MODEL, helpers.small_data(x=x))
    assert len(r.survivors) == 12
    assert np.isfinite(np.asarray(r.params["w"])).all()


def test_a_vector_that_does_not_round_is_sent_as_zero_with_its_noise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resolved = fl.resolve(helpers.plan(seeded_secrets=True), helpers.small_data())
    encoding = resolved.encoding
    assert encoding is not None
    rotation = ENCODING.round_rotation(15, 0, 0)
    streams = ROUND.streams(resolved.plan, 0, 0)
    zero = np.zeros(15, dtype=np.float32)
    honest = encoding.encode(ENCODING.ClientValue(zero, 1, False), rotation, streams)
    genuine = dp.Discretizer.encode

    def failing(self: Any, x: Any, rotation: Any, rng: Any) -> Any:
        genuine(self, np.zeros_like(x), rotation, rng)  # the coins are drawn, then it fails
        raise dp.RoundingError("does not fit")

    monkeypatch.setattr(dp.Discretizer, "encode", failing)
    sent = encoding.encode(ENCODING.ClientValue(zero + 1, 1, False), rotation, streams)
    assert (sent["update"] == honest["update"]).all()
    assert streams(Purpose.ENCODING)(8) != streams(Purpose.CENTRAL_NOISE)(8)
