"""The presets reach what the change log and README say of them."""

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest

import fl

DATA = Path(os.environ.get("FL_DATA_DIR", Path(__file__).parents[2].parent / "shared" / "data"))


def final_accuracy(job: fl.Job) -> float:
    plan, model, data = job.build()
    return fl.train(plan, model, data).metrics["accuracy"]


@pytest.mark.slow
def test_the_digits_demo_reaches_its_accuracy_at_epsilon_four() -> None:
    """Mean of five seeds 92.8 %, single runs spread by 1.2 points; 91 is three errors below."""
    demo = dataclasses.replace(fl.PRESETS["digits-demo"], aggregation="ideal", eval_every=20)
    means = [final_accuracy(dataclasses.replace(demo, seed=seed)) for seed in range(5)]
    assert np.mean(means) > 0.91


@pytest.mark.slow
@pytest.mark.skipif(not (DATA / "mnist").is_dir(), reason="needs the MNIST files: FL_DATA_DIR")
def test_mnist_writers_gives_one_model_under_ideal_and_secure() -> None:
    preset = dataclasses.replace(
        fl.PRESETS["mnist-writers"], rounds=2, seeded_secrets=True, data_dir=str(DATA)
    )
    models = []
    for aggregation in ("ideal", "secure"):
        plan, model, data = dataclasses.replace(preset, aggregation=aggregation).build()
        run = fl.train(plan, model, data)
        models.append(np.asarray(run.params["w"]).tobytes())
    assert models[0] == models[1]
