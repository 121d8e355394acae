"""NumPy's files as data sets: what was written is read, client by client, and no more."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fl.datasets import FederatedDataset, from_npy, from_npz, to_npz
from fl.errors import DataError


def small() -> FederatedDataset:
    rng = np.random.default_rng(0)
    fields: dict[str, Any] = {
        "x": rng.normal(size=(9, 3, 2)).astype(np.float32),
        "y": rng.integers(0, 4, 9).astype(np.int32),
    }
    test = {key: value[:2].copy() for key, value in fields.items()}
    ids = np.array([0, 0, 2, 2, 2, 3, 5, 5, 5])
    return FederatedDataset.from_arrays(fields, ids, test=test, num_clients=7, num_classes=4)


def alike(found: FederatedDataset, wanted: FederatedDataset) -> None:
    assert found.offsets.tolist() == wanted.offsets.tolist()
    for i in range(wanted.num_clients):
        for key, value in wanted.client(i).items():
            assert found.client(i)[key].dtype == value.dtype
            assert np.array_equal(found.client(i)[key], value)
    assert (found.test is None) == (wanted.test is None)
    for key, value in (wanted.test or {}).items():
        assert found.test is not None
        assert np.array_equal(found.test[key], value)


@pytest.mark.parametrize("mapped", [True, False])
def test_what_was_written_is_read(mapped: bool, tmp_path: Path) -> None:
    to_npz(small(), tmp_path / "a.npz")
    found = from_npz(tmp_path / "a.npz", name="a", num_classes=4, mapped=mapped)
    alike(found, small())
    assert (found.name, found.num_classes) == ("a", 4)
    assert isinstance(found.fields["x"], np.memmap) == mapped
    assert not found.client(2)["x"].flags.writeable


@given(
    shape=st.lists(st.integers(0, 3), min_size=0, max_size=3),
    dtype=st.sampled_from(["<f4", ">i2", "u1", "<i8", "?"]),
    name=st.sampled_from(["x", "a_rather_long_name_of_a_field", "ä"]),
    sizes=st.lists(st.integers(0, 4), min_size=1, max_size=5),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_array_is_mapped_where_it_lies(
    shape: list[int], dtype: str, name: str, sizes: list[int], tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    field: Any = rng.integers(0, 100, (sum(sizes), *shape)).astype(dtype)
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    wanted = FederatedDataset(name="any", fields={name: field}, offsets=offsets)
    to_npz(wanted, tmp_path / "any.npz")
    alike(from_npz(tmp_path / "any.npz", name="any"), wanted)


def test_columns_first_arrays_and_client_ids_are_mapped_too(tmp_path: Path) -> None:
    x = np.asfortranarray(np.arange(12.0).reshape(4, 3))
    ids = np.array([0, 0, 1, 3], np.uint8)
    np.savez(tmp_path / "f.npz", x=x, client_ids=ids)
    alike(from_npz(tmp_path / "f.npz", name="f"), FederatedDataset.from_arrays({"x": x}, ids))


def test_ids_that_fall_are_grouped_only_where_all_is_read(tmp_path: Path) -> None:
    x, ids = np.arange(4.0), np.array([1, 0, 1, 3])
    np.savez(tmp_path / "f.npz", x=x, client_ids=ids)
    with pytest.raises(DataError, match="client_ids: got ids that fall; takes ascending ids"):
        from_npz(tmp_path / "f.npz", name="f")
    found = from_npz(tmp_path / "f.npz", name="f", mapped=False)
    alike(found, FederatedDataset.from_arrays({"x": x}, ids))


def test_compressed_arrays_are_not_mapped_silently(tmp_path: Path) -> None:
    data = small()
    np.savez_compressed(tmp_path / "c.npz", offsets=data.offsets, x=data.fields["x"])
    with pytest.raises(DataError, match=r"got a compressed array; takes .* or mapped=False"):
        from_npz(tmp_path / "c.npz", name="c")
    found = from_npz(tmp_path / "c.npz", name="c", mapped=False)
    assert np.array_equal(found.fields["x"], data.fields["x"])


def written(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


OFFSETS = np.array([0, 2])


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"x": np.zeros(2)}, "neither of offsets and client_ids"),
        ({"x": np.zeros(2), "offsets": OFFSETS, "client_ids": np.zeros(2, int)}, "both"),
        ({"x": np.zeros(3), "offsets": OFFSETS}, "offsets"),
        ({"offsets": OFFSETS}, "fields"),
        ({"x": np.zeros(2), "offsets": OFFSETS.astype(np.int32)}, "offsets"),
        ({"x": np.array([None, 1]), "offsets": OFFSETS}, "Python objects"),
    ],
)
def test_files_that_lack_something_are_named(
    arrays: dict[str, Any], says: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=says):
        from_npz(written(tmp_path / "bad.npz", **arrays), name="bad")


def test_no_npz_is_named(tmp_path: Path) -> None:
    (tmp_path / "b.npz").write_bytes(b"PK no zip")
    with pytest.raises(DataError, match=r"b\.npz: got broken"):
        from_npz(tmp_path / "b.npz", name="b")
    with pytest.raises(DataError, match="no such file"):
        from_npz(tmp_path / "none.npz", name="b")
    with pytest.raises(DataError, match="without npy files"):
        from_npy(tmp_path, name="b")
    (tmp_path / "x.npy").write_bytes(b"no npy")
    with pytest.raises(DataError, match=r"x\.npy: got unreadable"):
        from_npy(tmp_path, name="b")


@pytest.mark.parametrize("name", ["offsets", "client_ids", "test/x"])
def test_names_with_a_meaning_are_not_written(name: str, tmp_path: Path) -> None:
    data = FederatedDataset.from_arrays({name: np.zeros(2)}, np.zeros(2, int))
    with pytest.raises(DataError, match="another name"):
        to_npz(data, tmp_path / "a.npz")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_npy_files(tmp_path: Path) -> None:
    data = small()
    (tmp_path / "test").mkdir()
    np.save(tmp_path / "offsets.npy", data.offsets)
    for key, value in data.fields.items():
        np.save(tmp_path / f"{key}.npy", value)
        assert data.test is not None
        np.save(tmp_path / "test" / f"{key}.npy", data.test[key])
    alike(from_npy(tmp_path, name="folder", num_classes=4), data)


def test_labels_of_a_mapped_file_are_checked_when_their_client_is_read(tmp_path: Path) -> None:
    data = small()
    labels = data.fields["y"].copy()
    labels[5] = 4
    path = written(tmp_path / "l.npz", offsets=data.offsets, x=data.fields["x"], y=labels)
    found = from_npz(path, name="l", num_classes=4)
    found.client(2)
    with pytest.raises(DataError, match=r"fields\['y'\] of client 3: got labels 4 to 4"):
        found.client(3)
    with pytest.raises(DataError, match=r"fields\['y'\]: got labels"):
        from_npz(path, name="l", num_classes=4, mapped=False)


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
def test_any_of_ten_thousand_clients_is_read_without_the_others(tmp_path: Path) -> None:
    """The file would take 2.6 GB of memory; three clients take 1 MB, and no others are read."""
    clients, each, width = 10_000, 256, 256
    x = np.lib.format.open_memmap(
        tmp_path / "x.npy", "w+", np.dtype(np.float32), (clients * each, width)
    )
    y = np.lib.format.open_memmap(tmp_path / "y.npy", "w+", np.dtype(np.int32), (clients * each,))
    asked = (0, 7_123, 9_999)
    for i in asked:  # the rest of the files are holes, which take no disk
        x[i * each : (i + 1) * each] = i
        y[i * each : (i + 1) * each] = i % 7
    x.flush()
    y.flush()
    del x, y
    np.save(tmp_path / "offsets.npy", np.arange(clients + 1) * each)
    before = resident_bytes()
    data = from_npy(tmp_path, name="large", num_classes=7)
    for i in asked:
        mine = data.client(i)
        assert mine["x"].shape == (each, width)
        assert (np.asarray(mine["x"]) == i).all()
        assert (np.asarray(mine["y"]) == i % 7).all()
    assert resident_bytes() - before < 100e6
