"""Who holds which labels: counted right, drawn to a file, refused where there are none."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fl.datasets import FederatedDataset, label_counts, plot_labels
from fl.errors import DataError, MissingExtraError


def held(clients: int, classes: int | None = 4) -> FederatedDataset:
    rng = np.random.default_rng(0)
    y: Any = rng.integers(0, 4, 3 * clients).astype(np.int32)
    ids = rng.integers(0, clients, 3 * clients)
    return FederatedDataset.from_arrays({"y": y}, ids, num_clients=clients, num_classes=classes)


def test_labels_are_counted_per_client_and_class() -> None:
    y = np.array([0, 2, 2, 1, 0, 0])
    data = FederatedDataset.from_arrays(
        {"y": y}, np.array([0, 0, 0, 2, 2, 2]), num_clients=4, num_classes=3
    )
    assert label_counts(data).tolist() == [[1, 0, 2], [0, 0, 0], [2, 1, 0], [0, 0, 0]]
    windows = FederatedDataset.from_arrays(
        {"y": np.array([[1, 1], [0, 2]])}, np.array([0, 1]), num_classes=3
    )
    assert label_counts(windows).tolist() == [[0, 2, 0], [1, 0, 1]]


@pytest.mark.parametrize("suffix", ["svg", "png", "pdf"])
@pytest.mark.parametrize("clients", [1, 7, 1234])
def test_a_picture_is_written(clients: int, suffix: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs the extra 'report'")
    path = plot_labels(held(clients), tmp_path / f"labels.{suffix}")
    head = {"svg": b"<?xml", "png": b"\x89PNG", "pdf": b"%PDF"}[suffix]
    assert path.read_bytes().startswith(head)


def test_what_cannot_be_drawn_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="without classes"):
        plot_labels(held(3, classes=None), tmp_path / "a.svg")
    with pytest.raises(DataError, match=r"plot: got .*a\.txt; takes a file name that ends in"):
        plot_labels(held(3), tmp_path / "a.txt")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"private-aggregation\[report\]"):
        plot_labels(held(3), tmp_path / "a.svg")
    assert list(tmp_path.iterdir()) == []
