"""The presets reach what the change log and README say of them."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fl
from fl.__main__ import main
from fl.summary import read_summary
from tests.fl.originals import DATA_DIR, needs


def metrics(name: str, **changed: Any) -> Mapping[str, float]:
    """What a preset reaches under Ideal, whose models are those of Secure."""
    changed = {"aggregation": "ideal", "data_dir": str(DATA_DIR), "eval_every": 1000, **changed}
    plan, model, data = dataclasses.replace(fl.PRESETS[name], **changed).build()
    return fl.train(plan, model, data).metrics


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
@needs("mnist")
def test_mnist_writers_gives_one_model_under_ideal_and_secure() -> None:
    preset = dataclasses.replace(
        fl.PRESETS["mnist-writers"], rounds=2, seeded_secrets=True, data_dir=str(DATA_DIR)
    )
    models = []
    for aggregation in ("ideal", "secure"):
        plan, model, data = dataclasses.replace(preset, aggregation=aggregation).build()
        run = fl.train(plan, model, data)
        models.append(np.asarray(run.params["w"]).tobytes())
    assert models[0] == models[1]


# The noise is fresh in every run. Without it, and in the centre, logistic regression reaches 84.7 %
# on adult, 82.1 on credit default, 74.8 on wisdm and 81.2 on heart disease; the most frequent class
# is 76.4, 78.5, 36.5 and 55.4 %.


@pytest.mark.slow
@needs("adult")
def test_adult_at_epsilon_four() -> None:
    """84.4 % in each of three runs."""
    assert metrics("adult")["accuracy"] > 0.835


@pytest.mark.slow
@needs("credit-card-default")
def test_credit_default_at_epsilon_four() -> None:
    """82.0 % in each of three runs."""
    assert metrics("credit-default")["accuracy"] > 0.81


@pytest.mark.slow
@needs("wisdm")
def test_wisdm_at_epsilon_eight() -> None:
    """62.9, 65.9 and 67.2 % in three runs: 27 people are few to hide among."""
    assert np.mean([metrics("wisdm", seed=seed)["accuracy"] for seed in range(3)]) > 0.58


@pytest.mark.slow
@needs("beijing-air-quality")
def test_beijing_air_at_epsilon_four() -> None:
    """0.11 to 0.13 in three runs; least squares in the centre 0.076, the variance is 0.68."""
    assert metrics("beijing-air")["mse"] < 0.17


@pytest.mark.slow
@needs("heart-disease")
def test_heart_disease_hides_patients_at_epsilon_two() -> None:
    """80.5, 80.9 and 78.5 % in three runs of the setting that was chosen on them."""
    assert np.mean([metrics("heart-disease", seed=seed)["accuracy"] for seed in range(3)]) > 0.77


@pytest.mark.slow
@needs("mnist")
def test_five_rounds_of_mcmahans_2nn() -> None:
    """91.9 % after five of the preset's 90 rounds."""
    assert metrics("mnist", rounds=5)["accuracy"] > 0.9


@pytest.mark.slow
@needs("shakespeare")
def test_the_character_lstm_learns_more_than_the_most_frequent_character() -> None:
    """23.9 % in three runs of three, 22.6 to 26.8 with other seeds; the blank alone is 16.4 %."""
    assert metrics("shakespeare")["accuracy"] > 0.2


@pytest.mark.slow
@needs("heart-disease")
@pytest.mark.parametrize("name", ["heart-disease", "wisdm", "adult", "credit-default"])
def test_the_command_line_trains_the_small_sets_under_the_protocol(
    name: str, tmp_path: Path
) -> None:
    words = ["train", "--dataset", name, "--data-dir", str(DATA_DIR), "--rounds", "2"]
    assert main([*words, "--out", str(tmp_path / "run")]) == 0
    summary = read_summary(tmp_path / "run")
    assert summary["dataset"] == name
    assert summary["aggregation"] == "secure"
    assert summary["accuracy"] > 0.3
