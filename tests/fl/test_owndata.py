"""A member's own examples, and the data set as it and the server see it."""

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest

from fl import datasets
from fl.datasets import FederatedDataset
from fl.engines.deployment import Deployment
from fl.engines.owndata import own_data
from fl.errors import DataError
from fl.job import Job
from fl.secure import STAGES
from tests.fl.helpers import small_data
from tests.fl.originals import DATA_DIR, needs

RECORDS = (3, 2, 4)
JOB = Job(
    dataset="ours", model="logistic", graph="complete", server="semi_honest", corrupt=0.0,
    dropout=0.0, no_dp=True, max_norm=1.0,
)  # fmt: skip
PLAN = Deployment(
    session="s", job=JOB, roster=Path("r"), state=Path("s"), timeouts=dict.fromkeys(STAGES, 9.0),
    records=RECORDS, classes=2,
)  # fmt: skip


def member(i: int, **changes: object) -> Deployment:
    return dataclasses.replace(PLAN, member=i, identity=Path("k"), **changes)  # type: ignore[arg-type]


def write(folder: Path, count: int, *, test: int = 0, clients: int = 1) -> FederatedDataset:
    rng = np.random.default_rng(count)

    def some(n: int) -> dict[str, np.ndarray]:
        x = rng.normal(size=(n, 5)).astype(np.float32)
        return {"x": x, "y": rng.integers(0, 2, n).astype(np.int32)}

    data = FederatedDataset.from_arrays(
        some(count), np.arange(count) % clients, num_clients=clients, test=some(test) or None
    )
    datasets.to_npz(data, folder / "own.npz")
    return data


def test_a_member_sees_its_own_rows_and_the_sizes_of_all(tmp_path: Path) -> None:
    own = write(tmp_path, 2)
    seen = own_data(member(1), 3, tmp_path)
    assert seen.sizes.tolist() == list(RECORDS)
    assert (seen.name, seen.num_classes) == ("ours", 2)
    for name, rows in own.client(0).items():
        np.testing.assert_array_equal(seen.client(1)[name], rows)
        assert not any(seen.client(i)[name].any() for i in (0, 2))


def test_the_server_sees_sizes_and_the_test_set(tmp_path: Path) -> None:
    own = write(tmp_path, 0, test=7)
    seen = own_data(PLAN, 3, tmp_path)
    assert seen.sizes.tolist() == list(RECORDS)
    assert seen.test is not None
    assert own.test is not None
    np.testing.assert_array_equal(seen.test["x"], own.test["x"])
    assert not seen.fields["x"].any()
    _, model, data = JOB.build(seen)  # of a data set that has no loader
    assert data is seen
    assert model is not None


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads Linux's /proc")
def test_the_rows_of_others_take_no_memory(tmp_path: Path) -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    write(tmp_path, 2)
    plan = member(1, records=(3 * 10**7, 2, 2 * 10**7), classes=None)  # labels would all be read
    before = resident()
    seen = own_data(plan, 3, tmp_path)
    assert seen.client(1)["x"].any()
    assert resident() - before < seen.fields["x"].nbytes / 10


def test_another_number_of_examples_is_refused(tmp_path: Path) -> None:
    write(tmp_path, 3)
    with pytest.raises(DataError, match=r"1 clients with 3 examples.* with 2 examples"):
        own_data(member(1), 3, tmp_path)
    with pytest.raises(DataError, match="with 0 examples"):
        own_data(PLAN, 3, tmp_path)
    write(tmp_path, 2, clients=2)
    with pytest.raises(DataError, match="2 clients"):
        own_data(member(1), 3, tmp_path)


def test_sizes_are_of_the_plan(tmp_path: Path) -> None:
    write(tmp_path, 2)
    with pytest.raises(DataError, match="records: got None"):
        own_data(member(1, records=None), 3, tmp_path)


def test_a_public_data_set_has_the_plans_clients_and_sizes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match="dataset: got 'ours'"):  # no folder, and none by this name
        own_data(member(1), 3, None)
    whole = small_data(num_clients=3, examples=2)
    monkeypatch.setattr("fl.datasets.load", lambda name, **_: whole)
    for records in (None, (2, 2, 2)):
        assert own_data(member(1, records=records), 3, tmp_path) is whole
    with pytest.raises(DataError, match="dataset: got 3 clients; takes 2 clients, as the roster"):
        own_data(member(1, records=(2, 2, 2)), 2, tmp_path)
    with pytest.raises(DataError, match=r"got \[2, 2, 2\]; takes \[3, 2, 4\], as the plan says"):
        own_data(member(1), 3, tmp_path)


@needs("heart-disease")
def test_a_hospital_from_its_own_file_is_the_one_of_the_public_files(tmp_path: Path) -> None:
    job = dataclasses.replace(JOB, dataset="heart-disease")
    whole = datasets.heart_disease(DATA_DIR)
    plan = member(2, job=job, records=tuple(whole.sizes.tolist()))
    fields = whole.client(2)
    ids = np.zeros(len(fields["y"]), np.int64)
    datasets.to_npz(FederatedDataset.from_arrays(fields, ids), tmp_path / "own.npz")
    apart, public = own_data(plan, 4, tmp_path), own_data(plan, 4, DATA_DIR)
    for name, rows in public.client(2).items():
        np.testing.assert_array_equal(apart.client(2)[name], rows)
    assert apart.num_classes == public.num_classes
    with pytest.raises(DataError, match="takes 3 clients"):
        own_data(plan, 3, DATA_DIR)
    with pytest.raises(DataError, match="as the plan says"):
        own_data(dataclasses.replace(plan, records=(1, 2, 3, 4)), 4, DATA_DIR)
