"""FederatedDataset and partitions: every example has one client, and bad input is named."""

import gc
import pickle
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fl import datasets
from fl.datasets import (
    FederatedDataset,
    Partition,
    assign,
    dirichlet,
    iid,
    parse_partition,
    quantity,
    shards,
)
from fl.errors import DataError


def _arrays(count: int = 6) -> dict[str, Any]:
    return {"x": np.arange(2 * count, dtype=np.float32).reshape(count, 2), "y": np.arange(count)}


IDS = np.array([2, 0, 2, 0, 4, 2])


def test_examples_are_grouped_in_their_order():
    data = FederatedDataset.from_arrays(_arrays(), IDS, num_clients=6, name="six")
    assert data.offsets.tolist() == [0, 2, 2, 5, 5, 6, 6]
    assert data.offsets.dtype == np.int64
    assert data.sizes.tolist() == [2, 0, 3, 0, 1, 0]
    assert (data.num_clients, data.num_examples, data.name) == (6, 6, "six")
    assert data.client(2)["y"].tolist() == [0, 2, 5]
    assert data.client(2)["x"].tolist() == [[0, 1], [4, 5], [10, 11]]
    assert data.client(5)["x"].shape == (0, 2)
    assert data.client_slice(2) == slice(2, 5)


def test_clients_are_read_only_views():
    data = FederatedDataset.from_arrays(_arrays(), IDS)
    view = data.client(2)["x"]
    assert np.shares_memory(view, data.fields["x"])
    assert not view.flags.writeable


def test_examples_that_are_regrouped_lie_where_compiled_programs_read_them_in_place():
    fields = {f"f{width}": np.ones((6, width), np.float32) for width in range(1, 20)}
    data = FederatedDataset.from_arrays(fields, IDS)
    assert all(field.ctypes.data % 64 == 0 for field in data.fields.values())


def test_ascending_ids_are_not_copied_and_the_callers_array_stays_writable():
    fields = _arrays()
    data = FederatedDataset.from_arrays(fields, np.array([0, 0, 1, 1, 1, 2]))
    assert np.shares_memory(data.fields["x"], fields["x"])
    assert fields["x"].flags.writeable


@given(
    ids=st.lists(st.integers(0, 9), min_size=1, max_size=60),
    spare=st.integers(0, 3),
    dtype=st.sampled_from([np.int8, np.uint16, np.int64]),
)
def test_grouping_is_a_stable_permutation(ids: list[int], spare: int, dtype: type):
    count = max(ids) + 1 + spare
    rows = np.arange(len(ids))
    data = FederatedDataset.from_arrays({"row": rows}, np.array(ids, dtype), num_clients=count)
    assert data.num_clients == count
    for i in range(count):
        assert data.client(i)["row"].tolist() == [row for row in rows if ids[row] == i]
    assert data.sizes.sum() == data.num_examples == len(ids)


def test_repr_shows_no_data():
    data = FederatedDataset.from_arrays({"x": np.full(3, 12345)}, np.zeros(3, np.int64))
    assert repr(data) == "FederatedDataset('arrays', 1 clients, {'x': 'int64[3]'})"


def test_a_data_set_survives_pickling():
    data = FederatedDataset.from_arrays(_arrays(), IDS, test=_arrays(2))
    copy = pickle.loads(pickle.dumps(data))  # noqa: S301 - our own bytes
    assert copy.client(2)["x"].tolist() == data.client(2)["x"].tolist()


@pytest.mark.parametrize(
    ("fields", "ids", "options", "field"),
    [
        ({}, IDS, {}, "fields"),
        ([np.zeros(6)], IDS, {}, "fields"),
        ({"x": [1, 2]}, IDS, {}, "fields['x']"),
        ({"x": np.float32(1)}, IDS, {}, "fields['x']"),
        ({"x": np.array(1.0)}, IDS, {}, "fields['x']"),
        ({"x": np.array([object()] * 6)}, IDS, {}, "fields['x']"),
        ({"x": np.zeros(6), "y": np.zeros(5)}, IDS, {}, "fields"),
        (_arrays(), IDS[:5], {}, "client_ids"),
        (_arrays(), IDS.reshape(2, 3), {}, "client_ids"),
        (_arrays(), IDS.astype(float), {}, "client_ids"),
        (_arrays(), IDS.tolist(), {}, "client_ids"),
        (_arrays(), IDS - 1, {}, "client_ids"),
        (_arrays(), IDS, {"num_clients": 4}, "client_ids"),
        (_arrays(), IDS, {"num_clients": 0}, "num_clients"),
        (_arrays(0), IDS[:0], {}, "num_clients"),
        (_arrays(), IDS, {"test": {"x": np.zeros((2, 2), np.float32)}}, "test"),
        (_arrays(), IDS, {"test": {}}, "test"),
        (_arrays(), IDS, {"test": {"x": np.zeros((2, 2)), "y": np.zeros(2, int)}}, "test['x']"),
        (
            _arrays(),
            IDS,
            {"test": {"x": np.zeros((2, 3), np.float32), "y": np.zeros(2, int)}},
            "test['x']",
        ),
        (_arrays(), IDS, {"num_classes": 5}, "fields['y']"),
        ({"y": np.array([-1] * 6)}, IDS, {"num_classes": 5}, "fields['y']"),
        ({"y": np.zeros(6)}, IDS, {"num_classes": 5}, "fields['y']"),
        ({"y": IDS}, IDS, {"num_classes": 5, "test": {"y": np.array([5])}}, "test['y']"),
        (_arrays(), IDS, {"num_classes": 0}, "num_classes"),
    ],
)
def test_bad_arrays_are_named(fields, ids, options, field):
    with pytest.raises(DataError) as caught:
        FederatedDataset.from_arrays(fields, ids, **options)
    assert caught.value.field == field
    assert f"{field}: got " in str(caught.value)
    assert "; takes " in str(caught.value)


@pytest.mark.parametrize(
    "offsets",
    [
        [0, 6],
        np.array([0, 6], np.int32),
        np.array([[0, 6]]),
        np.array([6]),
        np.array([1, 6]),
        np.array([0, 5]),
        np.array([0, 4, 3, 6]),
    ],
)
def test_bad_offsets_are_named(offsets):
    with pytest.raises(DataError) as caught:
        FederatedDataset(name="bad", fields=_arrays(), offsets=offsets)
    assert caught.value.field == "offsets"


@pytest.mark.parametrize("i", [-1, 5, 10**9])
def test_a_client_out_of_range_is_refused(i: int):
    data = FederatedDataset.from_arrays(_arrays(), IDS)
    with pytest.raises(DataError, match=f"client: got {i}; takes 0 to 4"):
        data.client(i)


def test_clients_may_all_be_without_an_example():
    empty: dict[str, Any] = {"x": np.zeros((0, 4)), "y": np.zeros(0, np.int32)}
    ids = np.zeros(0, np.int64)
    data = FederatedDataset.from_arrays(empty, ids, num_clients=2, num_classes=3)
    assert data.sizes.tolist() == [0, 0]
    assert data.client(1)["x"].shape == (0, 4)


def test_no_classes_are_checked_without_labels():
    data = FederatedDataset.from_arrays({"x": np.zeros(6)}, IDS, num_classes=3)
    assert data.num_classes == 3


@given(st.integers(0, 200), st.integers(1, 50), st.integers(0, 2**32 - 1))
def test_iid_sizes_differ_by_at_most_one(num_examples: int, num_clients: int, seed: int):
    ids = iid(num_examples, num_clients, np.random.default_rng(seed))
    assert ids.dtype == np.int64
    assert ids.shape == (num_examples,)
    sizes = np.bincount(ids, minlength=num_clients)
    assert len(sizes) == num_clients
    assert sizes.max() - sizes.min() <= 1


@given(
    labels=st.lists(st.integers(-3, 5), max_size=80),
    num_clients=st.integers(1, 40),
    alpha=st.floats(1e-9, 1e9),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=200)
def test_dirichlet_gives_every_example_one_client(
    labels: list[int], num_clients: int, alpha: float, seed: int
):
    ids = dirichlet(np.array(labels, np.int64), num_clients, alpha, np.random.default_rng(seed))
    assert ids.dtype == np.int64
    assert ids.shape == (len(labels),)
    assert ((ids >= 0) & (ids < num_clients)).all()


def test_dirichlet_follows_its_proportions():
    # The same stream, read independently: class after class, a permutation and then proportions.
    labels = np.array([0] * 1000 + [1] * 500)
    ids = dirichlet(labels, 7, 0.8, np.random.default_rng(5))
    rng = np.random.default_rng(5)
    for label, count in ((0, 1000), (1, 500)):
        rng.permutation(np.flatnonzero(labels == label))
        expected = count * rng.dirichlet([0.8] * 7)
        found = np.bincount(ids[labels == label], minlength=7)
        assert np.abs(found - expected).max() < 1  # each cut rounds down


def test_dirichlet_shuffles_within_a_class():
    ids = dirichlet(np.zeros(400, np.int64), 4, 1e6, np.random.default_rng(0))
    assert np.any(ids[1:] < ids[:-1])


def test_small_alpha_gives_few_classes_and_large_alpha_all():
    labels = np.repeat(np.arange(10), 100)

    def classes_per_client(alpha: float) -> float:
        ids = dirichlet(labels, 20, alpha, np.random.default_rng(1))
        held = [len(np.unique(labels[ids == client])) for client in range(20)]
        return float(np.mean(held))

    assert classes_per_client(0.05) < 4
    assert classes_per_client(1e4) == 10


@pytest.mark.parametrize("alpha", [0.0, -1.0, float("nan"), float("inf"), 1e300])
def test_a_bad_alpha_is_refused(alpha: float):
    with pytest.raises(DataError, match="alpha"):
        dirichlet(np.zeros(3, np.int64), 2, alpha, np.random.default_rng(0))


@pytest.mark.parametrize("labels", [np.zeros(3), np.zeros((3, 1), np.int64)])
def test_labels_must_be_integers(labels):
    with pytest.raises(DataError, match="labels"):
        dirichlet(labels, 2, 1.0, np.random.default_rng(0))


def test_no_client_is_too_few():
    rng = np.random.default_rng(0)
    with pytest.raises(DataError, match="clients: got 0"):
        iid(3, 0, rng)
    with pytest.raises(DataError, match="clients: got 0"):
        dirichlet(np.zeros(3, np.int64), 0, 1.0, rng)


def test_partitions_are_read():
    assert parse_partition("iid") == Partition("iid")
    assert parse_partition("natural") == Partition("natural")
    assert parse_partition("dirichlet:0.3") == Partition("dirichlet", 0.3)
    assert parse_partition("quantity:2") == Partition("quantity", 2.0)
    assert parse_partition("shards:2") == Partition("shards", 2)
    assert parse_partition("natural:month") == Partition("natural", "month")


@pytest.mark.parametrize(
    "text",
    [
        *("", "IID", "iid:1", "dirichlet", "dirichlet:", "dirichlet:x", "dirichlet:0"),
        *("dirichlet:-1", "dirichlet:nan", "dirichlet:inf", "quantity", "quantity:0", "shards"),
        *("shards:0", "shards:2.5", "shards:-1", "shards:²", "natural:", "naturally"),
    ],
)
def test_other_partitions_are_refused(text: str):
    with pytest.raises(DataError, match="partition: got ") as caught:
        parse_partition(text)
    assert repr(text) in str(caught.value)


def test_assign_follows_the_partition():
    labels = np.arange(100) % 3
    for partition, direct in (
        (Partition("iid"), iid(100, 9, np.random.default_rng(2))),
        (Partition("dirichlet", 0.5), dirichlet(labels, 9, 0.5, np.random.default_rng(2))),
        (Partition("quantity", 0.5), quantity(100, 9, 0.5, np.random.default_rng(2))),
        (Partition("shards", 2), shards(labels, 9, 2, np.random.default_rng(2))),
    ):
        found = assign(partition, labels, 9, np.random.default_rng(2))
        assert found.tolist() == direct.tolist()
    for other in (Partition("natural"), Partition("shards"), Partition("dirichlet", "0.5")):
        with pytest.raises(DataError, match="partition"):
            assign(other, labels, 9, np.random.default_rng(2))


@given(
    labels=st.lists(st.integers(-3, 5), max_size=80),
    num_clients=st.integers(1, 40),
    per_client=st.integers(1, 5),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=200)
def test_shards_are_sorted_even_and_each_of_one_client(
    labels: list[int], num_clients: int, per_client: int, seed: int
):
    array = np.array(labels, np.int64)
    ids = shards(array, num_clients, per_client, np.random.default_rng(seed))
    assert ids.dtype == np.int64
    assert ids.shape == (len(labels),)
    assert ((ids >= 0) & (ids < num_clients)).all()
    # Of the sorted examples each shard is a run within a client: so a client has few classes.
    sizes = np.bincount(ids, minlength=num_clients)
    smallest = len(labels) // (num_clients * per_client)
    assert (sizes >= per_client * smallest).all()
    assert (sizes <= per_client * (smallest + 1)).all()
    for label in np.unique(array):
        holders = np.unique(ids[array == label])
        count = int((array == label).sum())
        assert len(holders) <= min(num_clients, -(-count // max(1, smallest)) + 1)


def test_shards_of_mcmahan_et_al():
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(10), 6000))
    ids = shards(labels, 100, 2, np.random.default_rng(1))
    assert np.bincount(ids).tolist() == [600] * 100
    held = [len(np.unique(labels[ids == client])) for client in range(100)]
    assert max(held) == 2  # 6,000 is a multiple of 300: no shard spans two classes
    other = shards(labels, 100, 2, np.random.default_rng(2))
    assert not np.array_equal(ids, other)
    # Which examples of a class a shard holds is random too, not their order in the file.
    first = np.flatnonzero(labels == 0)
    assert np.any(np.diff(ids[first[:300]]) != 0)


@given(
    num_examples=st.integers(0, 200),
    num_clients=st.integers(1, 40),
    alpha=st.floats(1e-9, 1e9),
    seed=st.integers(0, 2**32 - 1),
)
def test_quantity_skew_gives_every_example_one_client(
    num_examples: int, num_clients: int, alpha: float, seed: int
):
    ids = quantity(num_examples, num_clients, alpha, np.random.default_rng(seed))
    assert ids.dtype == np.int64
    assert ids.shape == (num_examples,)
    assert ((ids >= 0) & (ids < num_clients)).all()


def test_quantity_skew_follows_its_shares_and_not_the_order():
    ids = quantity(5000, 6, 0.7, np.random.default_rng(3))
    rng = np.random.default_rng(3)
    order = rng.permutation(5000)
    expected = 5000 * rng.dirichlet([0.7] * 6)
    assert np.abs(np.bincount(ids, minlength=6) - expected).max() < 1
    assert (np.diff(ids[order]) >= 0).all()
    even, skewed = (quantity(5000, 20, a, np.random.default_rng(0)) for a in (1e6, 0.05))
    assert np.ptp(np.bincount(even, minlength=20)) < 20
    assert np.bincount(skewed, minlength=20).max() > 1500


def test_bad_skews_are_refused():
    rng, labels = np.random.default_rng(0), np.zeros(3, np.int64)
    for clients, parameter in ((0, 1), (2, 0)):
        with pytest.raises(DataError):
            quantity(3, clients, parameter, rng)
        with pytest.raises(DataError):
            shards(labels, clients, parameter, rng)
    with pytest.raises(DataError, match="labels"):
        shards(np.zeros(3), 2, 1, rng)  # type: ignore[arg-type]


def test_a_million_clients_cost_arrays_and_no_objects():
    count = 1_000_000
    ids = np.repeat(np.arange(count, dtype=np.int32), 2)
    x = np.zeros((2 * count, 4), np.uint8)
    gc.collect()
    objects = len(gc.get_objects())
    tracemalloc.start()
    data = FederatedDataset.from_arrays({"x": x}, ids, num_clients=count + 5)
    sizes = data.sizes
    kept, peak = tracemalloc.get_traced_memory()
    assert data.client(999_999)["x"].shape == (2, 4)
    assert data.client(count + 4)["x"].shape == (0, 4)
    assert data.sizes is sizes  # once, not for every client that is asked for
    during = tracemalloc.get_traced_memory()[0] - kept
    tracemalloc.stop()
    assert kept < 17 * count  # offsets and sizes, 8 bytes each; the examples are views
    assert peak < 60 * count
    assert during < 10_000
    gc.collect()
    assert len(gc.get_objects()) - objects < 1000


def test_sizes_cannot_be_written():
    data = FederatedDataset.from_arrays(_arrays(), IDS)
    with pytest.raises(ValueError, match="read-only"):
        data.sizes[0] = 3


def test_the_list_of_data_sets_is_complete():
    assert [entry.name for entry in datasets.describe()] == list(datasets.DATASETS)
    assert all(entry.summary and entry.needs for entry in datasets.describe())
