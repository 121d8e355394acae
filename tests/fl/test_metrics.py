"""Evaluation: means over the test set whatever the batches, and figures over clients."""

import html
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from numpy.typing import NDArray

import fl
from fl import metrics
from fl.metrics import EVAL_BATCH, client_evaluator, evaluator
from fl.report import write_report
from fl.store import Store
from fl.summary import read_summary
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


def uneven_clients() -> fl.FederatedDataset:
    rng = np.random.default_rng(4)
    ids = np.repeat(np.arange(21), [0, *([1] * 10), *([9] * 10)])  # more than one chunk
    y = rng.integers(0, 3, len(ids)).astype(np.int32)
    x = rng.normal(size=(len(ids), 4)).astype(np.float32)
    return fl.FederatedDataset.from_arrays({"x": x, "y": y}, ids, num_clients=21, num_classes=3)


def test_figures_over_clients_are_those_of_each_clients_own_mean() -> None:
    data = uneven_clients()
    rng = np.random.default_rng(0)
    w, b = rng.normal(size=(4, 3)).astype(np.float32), rng.normal(size=3).astype(np.float32)
    found = client_evaluator(helpers.MODEL, data)({"w": w, "b": b})
    accuracies, losses = [], []
    for client in range(1, 21):
        rows = data.client(client)
        logits = np.asarray(rows["x"], np.float64) @ w + b
        y = np.asarray(rows["y"])
        accuracies.append(np.mean(logits.argmax(1) == y))
        log_mass = np.log(np.exp(logits).sum(1))
        losses.append(np.mean(log_mass - logits[np.arange(len(y)), y]))
    for name, values, worst in [("accuracy", accuracies, min), ("loss", losses, max)]:
        got = found[name]
        assert got.clients == 20
        assert got.mean == pytest.approx(np.mean(values), rel=1e-5)
        assert got.worst == pytest.approx(worst(values), rel=1e-5)
        np.testing.assert_allclose(got.deciles, np.quantile(values, np.arange(1, 10) / 10), 1e-5)
        assert got.deciles == tuple(sorted(got.deciles))


@pytest.mark.parametrize(
    ("privacy", "guarantee"),
    [(helpers.privacy(), "outside the guarantee"), (fl.NotPrivate(1.0), "not private")],
)
def test_figures_over_clients_say_what_protects_them(
    privacy: fl.Privacy | fl.NotPrivate, guarantee: str, tmp_path: Path
) -> None:
    plan = helpers.plan(privacy=privacy, client_metrics=True, eval_every=2)
    finished = list(fl.rounds(plan, helpers.MODEL, helpers.small_data(), out=tmp_path))
    assert [bool(r.client_metrics) for r in finished] == [False, True, True]
    assert "accuracy_p50" in finished[-1].client_metrics
    assert "accuracy_p50" not in finished[-1].metrics
    summary = read_summary(tmp_path)
    assert guarantee in summary["client_metrics"]["guarantee"]
    assert summary["client_metrics"]["values"] == finished[-1].client_metrics
    page = write_report(tmp_path, summary, Store.open(tmp_path).rounds()).read_text()
    assert f"own examples ({summary['client_metrics']['guarantee']})" in html.unescape(page)


def test_without_being_asked_no_clients_examples_are_evaluated() -> None:
    (r,) = fl.rounds(helpers.plan(rounds=1), helpers.MODEL, helpers.small_data())
    assert r.client_metrics == {}
