"""Evaluation in batches is the mean over all test examples, whatever the last batch holds."""

from typing import Any

import jax
import numpy as np
import pytest
from numpy.typing import NDArray

import fl
from fl import metrics
from fl.metrics import EVAL_BATCH, evaluator
from fl.types import Batch, MetricSums, PyTree
from tests.fl import helpers

PARAMS = {
    "b": np.array([0.1, -0.2, 0.3], np.float32),
    "w": np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32),
}


def examples(size: int, seed: int = 3) -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(seed)
    return {
        "x": rng.normal(size=(size, 4)).astype(np.float32),
        "y": rng.integers(0, 3, size).astype(np.int32),
    }


def direct(fields: dict[str, NDArray[Any]]) -> dict[str, float]:
    """The means in double precision, all examples at once."""
    logits = fields["x"].astype(np.float64) @ PARAMS["w"] + PARAMS["b"]
    right = logits[np.arange(len(logits)), fields["y"]]
    losses = np.log(np.exp(logits).sum(axis=1)) - right
    return {
        "accuracy": float((logits.argmax(axis=1) == fields["y"]).mean()),
        "loss": float(losses.mean()),
    }


@pytest.mark.parametrize("size", [1, 7, 8, 9, 16, 30])
def test_every_example_counts_once(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "EVAL_BATCH", 8)
    fields = examples(size)
    assert evaluator(helpers.MODEL, fields)(PARAMS) == pytest.approx(direct(fields), rel=1e-5)


def test_more_examples_than_a_batch() -> None:
    fields = examples(EVAL_BATCH + 37)
    assert evaluator(helpers.MODEL, fields)(PARAMS) == pytest.approx(direct(fields), rel=1e-5)


def test_a_partial_batch_is_filled_with_masked_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted by the model itself: were padding unmasked, there would be 12 instead of 10."""
    monkeypatch.setattr(metrics, "EVAL_BATCH", 4)
    shapes: list[tuple[int, ...]] = []

    def counting(params: PyTree, batch: Batch) -> MetricSums:
        shapes.append(batch["x"].shape)
        return {"ids": ((batch["x"][:, 0] * batch["mask"]).sum(), batch["mask"].sum() * 0 + 1)}

    model = fl.Model(helpers.MODEL.init, helpers.MODEL.apply, helpers.MODEL.loss, counting)
    fields = {"x": np.arange(10, dtype=np.float32)[:, None]}
    assert evaluator(model, fields)(PARAMS) == {"ids": 45 / 3}
    assert shapes == [(4, 1)]  # traced once: every batch has the same shape


def test_programs_are_compiled_once_per_evaluator() -> None:
    traced: list[int] = []

    def spying(params: PyTree, batch: Batch) -> MetricSums:
        traced.append(1)
        return helpers.MODEL.metrics(params, batch)

    model = fl.Model(helpers.MODEL.init, helpers.MODEL.apply, helpers.MODEL.loss, spying)
    evaluate = evaluator(model, examples(5))
    assert evaluate(PARAMS) == evaluate(PARAMS)
    assert evaluate(jax.tree.map(np.zeros_like, PARAMS)) != evaluate(PARAMS)
    assert len(traced) == 1


def test_an_empty_test_set_has_no_means() -> None:
    assert evaluator(helpers.MODEL, examples(0))(PARAMS) == {}
