"""The run store: what commits together, what is refused, and what is on disk when."""

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import fl
from fl.store import FILE, VERSION, Store, next_run_directory

STATE = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.zeros(3, np.float32)}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store.create(tmp_path / "run", {})
    yield made
    made.close()


@pytest.fixture
def elsewhere(store: Store, tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """A second connection, which sees only what is committed."""
    connection = sqlite3.connect(tmp_path / "run" / FILE)
    yield connection
    connection.close()


def row(index: int = 0, **overrides: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "round": index,
        "attempt": 0,
        "status": "released",
        "reason": None,
        "invited": 12,
        "survivors": 11,
        "metrics": {"accuracy": 0.5},
        "epsilon": 1.25,
        "epsilon_worst_case": 1.5,
        "seconds": {"train": 0.1},
        "upload_bytes": 1000,
        "cost": None,
    }
    return {**values, **overrides}


def count(connection: sqlite3.Connection, table: str) -> int:
    (number,) = connection.execute(f"select count(*) from {table}").fetchone()  # noqa: S608 - a literal of this file
    return int(number)


class Unstorable:
    """What SQLite has no type for."""


def test_a_round_its_metrics_and_its_checkpoint_commit_together(
    store: Store, elsewhere: sqlite3.Connection
) -> None:
    store.finish_round(row(), 0, STATE)
    assert (count(elsewhere, "rounds"), count(elsewhere, "checkpoints")) == (1, 1)
    store.finish_round(row(1), 1, {**STATE, "b": np.ones(3, np.float32)})
    assert (count(elsewhere, "rounds"), count(elsewhere, "checkpoints")) == (2, 1)
    found = store.checkpoint()
    assert found is not None
    assert found.round_index == 1
    assert found.leaves[0].tolist() == [1, 1, 1]


def test_a_round_that_fails_to_commit_leaves_neither_row_nor_checkpoint(
    store: Store, elsewhere: sqlite3.Connection
) -> None:
    store.finish_round(row(), 0, STATE)
    with pytest.raises(sqlite3.IntegrityError):  # the row repeats, the checkpoint would be new
        store.finish_round(row(), 1, STATE)

    def refused() -> Iterator[tuple[int, bytes]]:
        yield 3, b"kept"
        raise OSError("no memory left")

    with pytest.raises(OSError, match="no memory"):  # the row is new, a client's state fails
        store.finish_round(row(1), 1, STATE, refused())
    assert store.client_state(3) is None
    for connection in (elsewhere, store._db):
        assert (count(connection, "rounds"), count(connection, "checkpoints")) == (1, 1)
    found = store.checkpoint()
    assert found is not None
    assert found.round_index == 0
    assert [kept["round"] for kept in store.rounds()] == [0]


def test_a_charge_is_all_or_nothing_and_on_disk_when_it_returns(
    store: Store, elsewhere: sqlite3.Connection
) -> None:
    store.charge(0, 0, [3, 5])
    assert count(elsewhere, "client_charges") == 2
    with pytest.raises(sqlite3.IntegrityError):
        store.charge(0, 0, [7, 8, 5, 9])
    assert store.charges() == [(0, 0, [3, 5])]
    assert count(elsewhere, "client_charges") == 2
    store.charge(0, 1, np.array([5, 3]))  # another attempt is another charge
    assert store.charges() == [(0, 0, [3, 5]), (0, 1, [3, 5])]
    assert (store.attempts(0), store.attempts(1)) == (2, 0)


def test_a_release_is_on_disk_when_it_returns_and_happens_once(
    store: Store, elsewhere: sqlite3.Connection
) -> None:
    store.release(4, 0, tuple(np.array([2, 9])))
    assert elsewhere.execute("select * from releases").fetchall() == [(4, 0, "[2, 9]", None)]
    with pytest.raises(sqlite3.IntegrityError):
        store.release(4, 0, (2,))
    store.release(4, 1, ())
    assert store.releases() == [(4, 0, (2, 9)), (4, 1, ())]


def test_owners_are_told_in_their_own_rows(store: Store) -> None:
    store.charge(0, 0, [1, 2])
    store.charge(0, 1, [1, 2])
    store.charge(1, 0, [1, 2])
    store.note_zeroed(0, 1, [2])
    told = "select round, attempt, client from client_charges where sent_zero"
    assert store._db.execute(told).fetchall() == [(0, 1, 2)]


def test_the_file_is_written_ahead_and_synchronised(store: Store, tmp_path: Path) -> None:
    assert store._db.execute("pragma journal_mode").fetchone() == ("wal",)
    full = 2
    assert store._db.execute("pragma synchronous").fetchone() == (full,)
    store.close()
    reopened = Store.open(tmp_path / "run")
    assert reopened._db.execute("pragma synchronous").fetchone() == (full,)
    reopened.close()


def test_meta_comes_back(tmp_path: Path) -> None:
    meta = {"job": {"epsilon": 4.0, "out": None, "deltas": [1e-5]}, "fingerprint": "a"}
    Store.create(tmp_path / "run", meta).close()
    reopened = Store.open(tmp_path / "run")
    assert reopened.meta() == {"version": VERSION, **meta}
    reopened.close()


def test_a_store_whose_meta_cannot_be_kept_is_no_store(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        Store.create(tmp_path / "run", {"first": 1, "second": Unstorable()})
    with pytest.raises(fl.StoreError, match="version"):
        Store.open(tmp_path / "run")


def test_checkpoints_keep_dtype_shape_and_order(store: Store, tmp_path: Path) -> None:
    state: tuple[Any, ...] = (
        {"z": jnp.float32(1.5), "a": np.arange(4, dtype=np.int32).reshape(2, 2)},
        [np.array(7, np.uint32), np.zeros((0, 3), np.float16)],
        *(np.full(1, i, np.int8) for i in range(12)),  # names "10" and "2" sort the other way
    )
    assert store.checkpoint() is None
    store.finish_round(row(), 0, state)
    store.close()
    reopened = Store.open(tmp_path / "run")
    found = reopened.checkpoint()
    reopened.close()
    assert found is not None
    expected = [state[0]["a"], state[0]["z"], *state[1], *state[2:]]
    assert len(found.leaves) == len(expected)
    for got, wanted in zip(found.leaves, expected, strict=True):
        assert got.dtype == np.asarray(wanted).dtype
        assert got.shape == np.asarray(wanted).shape
        assert (got == np.asarray(wanted)).all()


def test_an_empty_state_is_a_checkpoint_too(store: Store) -> None:
    store.finish_round(row(), 3, ())
    found = store.checkpoint()
    assert found is not None
    assert (found.round_index, found.leaves) == (3, [])


def test_plain_sql_reads_the_rounds(store: Store, elsewhere: sqlite3.Connection) -> None:
    cost = {"upload_bytes": {"mask_input": 900}}
    store.finish_round(row(cost=cost), 0, STATE)
    store.finish_round(row(1, status="aborted", reason="too few", epsilon=None), 1, STATE)
    elsewhere.row_factory = sqlite3.Row
    first, second = elsewhere.execute("select * from rounds order by round").fetchall()
    assert (first["round"], first["survivors"], first["epsilon"]) == (0, 11, 1.25)
    assert json.loads(first["metrics"]) == {"accuracy": 0.5}
    assert (second["status"], second["reason"], second["epsilon"]) == ("aborted", "too few", None)
    (accuracy,) = elsewhere.execute("select metrics ->> '$.accuracy' from rounds").fetchone()
    assert accuracy == 0.5
    assert store.rounds() == [
        {"client_metrics": None, **row(cost=cost)},
        {"client_metrics": None, **row(1, status="aborted", reason="too few", epsilon=None)},
    ]


def test_a_run_is_never_begun_where_one_is(store: Store, tmp_path: Path) -> None:
    store.charge(0, 0, [1])
    store.close()
    with pytest.raises(fl.StoreError, match=r"already holds a run.*; takes a new directory"):
        Store.create(tmp_path / "run", {})
    reopened = Store.open(tmp_path / "run")
    assert reopened.charges() == [(0, 0, [1])]
    reopened.close()
    (tmp_path / "file").write_text("mine")
    with pytest.raises(fl.StoreError, match="out: got"):
        Store.create(tmp_path / "file", {})
    assert (tmp_path / "file").read_text() == "mine"


def test_directories_above_are_made_and_other_files_left_alone(tmp_path: Path) -> None:
    Store.create(tmp_path / "a" / "b", {}).close()
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("mine")
    Store.create(tmp_path / "notes", {}).close()
    assert (tmp_path / "notes" / "mine.txt").read_text() == "mine"


def test_opening_refuses_what_is_no_store_and_makes_none(tmp_path: Path) -> None:
    for name in ("none", "."):
        with pytest.raises(fl.StoreError, match="takes a directory that holds a run"):
            Store.open(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("version", [0, VERSION + 1, "1", None])
def test_opening_refuses_other_versions(store: Store, tmp_path: Path, version: object) -> None:
    with store._db:
        store._db.execute("update meta set value = ? where key = 'version'", [json.dumps(version)])
    store.close()
    with pytest.raises(fl.StoreError, match=f"takes a store of version {VERSION}"):
        Store.open(tmp_path / "run")


@pytest.mark.parametrize("content", [b"not a database, but long enough to be one" * 40, b""])
def test_opening_refuses_a_file_that_is_no_store(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(fl.StoreError):
        Store.open(tmp_path)


def test_stores_in_memory_are_apart(tmp_path: Path) -> None:
    first, second = Store.in_memory({}), Store.in_memory({"of": 2})
    first.charge(0, 0, [1])
    assert (first.charges(), second.charges()) == ([(0, 0, [1])], [])
    first.close()
    second.close()


def test_run_directories_are_numbered_from_the_first_free_one(tmp_path: Path) -> None:
    for name in ("digits-1", "digits-3", "other-2"):
        (tmp_path / name).mkdir()
    (tmp_path / "digits-2").write_text("a file")
    assert next_run_directory(tmp_path, "digits") == tmp_path / "digits-4"
    assert next_run_directory(tmp_path, "digits") == tmp_path / "digits-5"  # 4 is taken now
    assert next_run_directory(tmp_path / "none", "digits") == tmp_path / "none" / "digits-1"
    assert (tmp_path / "none" / "digits-1").is_dir()
    with pytest.raises(fl.StoreError):
        next_run_directory(tmp_path / "digits-2", "digits")


def test_a_store_is_held_by_one_at_a_time(store: Store, tmp_path: Path) -> None:
    with pytest.raises(fl.StoreError, match="another process holds"):
        Store.open(tmp_path / "run")
    with pytest.raises(fl.StoreError, match="already holds a run"):
        Store.create(tmp_path / "run", {})
    store.charge(0, 0, [1])  # the holder goes on
    store.close()
    reopened = Store.open(tmp_path / "run")
    assert reopened.charges() == [(0, 0, [1])]
    reopened.close()


def test_a_store_begins_with_what_describes_the_run(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        Store.create(tmp_path / "broken", {"fingerprint": Unstorable()})
    Store.create(tmp_path / "run", {"fingerprint": "a"}).close()
    reopened = Store.open(tmp_path / "run")
    assert reopened.meta() == {"version": VERSION, "fingerprint": "a"}
    reopened.close()


@pytest.mark.parametrize("name", ["run.sqlite", "summary.json", "report.html"])
def test_a_directory_with_any_file_of_a_run_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(fl.StoreError, match="already holds a run"):
        Store.create(tmp_path, {})
    assert (tmp_path / name).read_text() == "mine"


def test_attempts_are_counted_over_all_rounds(store: Store) -> None:
    assert store.total_attempts() == 0
    for index, attempt in [(0, 0), (0, 1), (2, 0)]:
        store.charge(index, attempt, [1, 2])
    assert store.total_attempts() == 3
