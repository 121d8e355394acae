"""What the tests of real processes share."""

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fl import datasets
from fl.datasets import FederatedDataset
from fl.job import Job
from fl.presets import PRESETS
from tests.deploy.federation import Federation
from tests.fl.originals import DATA_DIR

JOB = Job(
    **{**vars(PRESETS["heart-disease"]), "graph": "complete", "dropout": 0.25,
       "seeded_secrets": True},
)  # fmt: skip


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[Federation]:
    """A federation that leaves no process behind."""
    if importlib.util.find_spec("flwr") is None:
        pytest.skip("the extra 'deploy' is not installed: make test-deploy installs it")
    if not sys.platform.startswith("linux"):
        pytest.skip("finds processes by Linux's /proc")
    with Federation(tmp_path) as found:
        yield found
    assert found.pids() == []


@pytest.fixture
def hearts() -> FederatedDataset:
    """The four hospitals."""
    if not (DATA_DIR / "heart-disease").is_dir():
        pytest.skip("the original files are not here: set FL_DATA_DIR to what has heart-disease/")
    return datasets.heart_disease(DATA_DIR)


@pytest.fixture
def patients() -> FederatedDataset:
    """Four made-up hospitals, where there are no files of real ones."""
    rng = np.random.default_rng(0)

    def some(count: int) -> dict[str, np.ndarray]:
        x = rng.normal(size=(count, 21)).astype(np.float32)
        return {"x": x, "y": (x[:, 0] + rng.normal(size=count) > 0).astype(np.int32)}

    sizes = (60, 50, 30, 40)
    return FederatedDataset.from_arrays(
        some(sum(sizes)), np.repeat(np.arange(4), sizes), test=some(100), num_classes=2,
        name="heart-disease",
    )  # fmt: skip
