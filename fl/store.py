"""One SQLite file per run: what was charged, what was released, where training stands.

A charge is committed before the message it pays for is sent, and a release before its sum is
read, so a crash can over-count but never under-count. The released round, its metrics and its
checkpoint commit together. Tables are plain: `pandas.read_sql("select * from rounds", connection)`.
"""

import itertools
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fl import blobs
from fl.arrays import leaves_from_npz, tree_to_npz
from fl.errors import StoreError
from fl.types import PyTree

FILE = "run.sqlite"
RUN_FILES = (FILE, "summary.json", "report.html")
VERSION = 6
INLINE_BYTES = blobs.INLINE_BYTES
_SCHEMA = """
create table meta (key text primary key, value text not null);
create table client_charges (
  client integer not null, round integer not null, attempt integer not null,
  sent_zero integer not null default 0, primary key (round, attempt, client));
create table releases (
  round integer not null, attempt integer not null, survivors text not null, attestation blob,
  primary key (round, attempt));
create table rounds (
  round integer not null, attempt integer not null, status text not null, reason text,
  invited integer not null, survivors integer not null, metrics text not null, epsilon real,
  epsilon_worst_case real, seconds text not null, upload_bytes integer, cost text,
  client_metrics text,
  primary key (round, attempt));
create table stages (
  round integer not null, attempt integer not null, stage text not null, asked integer not null,
  answered integer, seconds real, upload_bytes integer, download_bytes integer not null,
  primary key (round, attempt, stage));
create table checkpoints (round integer primary key, state blob, file text, sha256 text);
create table noise (round integer primary key, state blob, file text, sha256 text);
create table client_states (client integer primary key, state blob not null);
"""


class Checkpoint(NamedTuple):
    """Where training stands after a round.

    Attributes:
        round_index: the last finished round.
        leaves: the server state's leaves in canonical order.
    """

    round_index: int
    leaves: list[np.ndarray]


class Store:
    """The store of one run. One process at a time may hold it; close it when done."""

    def __init__(self, path: str, lock: sqlite3.Connection | None) -> None:
        self._lock = lock
        self._dir = None if path == ":memory:" else Path(path).parent
        self._db = sqlite3.connect(path)
        with self._closed_on_error():
            self._db.execute("pragma journal_mode = wal")
            # Charges must be on disk before what they pay for leaves the process.
            self._db.execute("pragma synchronous = full")

    @contextmanager
    def _closed_on_error(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.close()
            raise

    @classmethod
    def create(cls, out: Path, meta: Mapping[str, Any]) -> "Store":
        """Makes the directory and, in one transaction, a store that holds `meta`.

        Raises:
            StoreError: the directory holds a run already, or cannot be made.
        """
        with _as_store_error(out):
            if taken := [name for name in RUN_FILES if (out / name).exists()]:
                got = f"{out}, which already holds a run ({', '.join(taken)})"
                raise StoreError("out", got, "a new directory")
            out.mkdir(parents=True, exist_ok=True)
            return cls(str(out / FILE), _lock(out))._begin(meta)

    @classmethod
    def in_memory(cls, meta: Mapping[str, Any]) -> "Store":
        """Makes a store that lives as long as this object, without checkpoints."""
        return cls(":memory:", None)._begin(meta)

    def _begin(self, meta: Mapping[str, Any]) -> "Store":
        with self._closed_on_error(), self._db:
            self._db.execute("begin")
            for statement in _SCHEMA.split(";"):
                self._db.execute(statement)
            self._insert_meta({"version": VERSION, **meta})
        return self

    @classmethod
    def open(cls, out: Path) -> "Store":
        """Opens the store of an earlier run.

        Raises:
            StoreError: there is none, another process holds it, or another version wrote it.
        """
        if not (out / FILE).is_file():
            raise StoreError("out", str(out), f"a directory that holds a run ({FILE})")
        with _as_store_error(out):
            store = cls(str(out / FILE), _lock(out))
            with store._closed_on_error():
                store._check_version()
            return store

    def _check_version(self) -> None:
        tables = {name for (name,) in self._db.execute("select name from sqlite_master")}
        version = self.meta().get("version") if "meta" in tables else None
        if version != VERSION:
            raise StoreError("version", version, f"a store of version {VERSION}")

    def close(self) -> None:
        """Closes the file and lets other processes have it."""
        self._db.close()
        if self._lock is not None:
            self._lock.close()

    def _insert_meta(self, values: Mapping[str, Any]) -> None:
        self._db.executemany(
            "insert into meta values (?, ?)",
            [(key, json.dumps(value)) for key, value in values.items()],
        )

    def meta(self) -> dict[str, Any]:
        """Returns what describes the run, as `create` was given it."""
        return {key: json.loads(value) for key, value in self._db.execute("select * from meta")}

    def charge(self, round_index: int, attempt: int, clients: Iterable[int]) -> None:
        """Commits the clients' own charges, before any of them sends a masked vector."""
        with self._db:
            self._db.executemany(
                "insert into client_charges (client, round, attempt) values (?, ?, ?)",
                [(int(client), round_index, attempt) for client in clients],
            )

    def note_zeroed(self, round_index: int, attempt: int, clients: Iterable[int]) -> None:
        """Tells clients, in their own rows, that they sent the zero vector."""
        with self._db:
            self._db.executemany(
                "update client_charges set sent_zero = 1"
                " where client = ? and round = ? and attempt = ?",
                [(int(client), round_index, attempt) for client in clients],
            )

    def release(
        self,
        round_index: int,
        attempt: int,
        survivors: Sequence[int],
        noise: bytes | None = None,
    ) -> None:
        """Commits the server's ledger row, before the sum is read.

        `noise` is the state of correlated noise after this round's was drawn.
        """
        kept = self._kept(f"noise-{round_index}", noise)
        with self._db:
            self._keep_noise(round_index, kept)
            self._db.execute(
                "insert into releases (round, attempt, survivors) values (?, ?, ?)",
                (round_index, attempt, json.dumps([int(client) for client in survivors])),
            )

    def attest(self, round_index: int, attempt: int, attestation: bytes) -> None:
        """Puts beside a release what witnesses signed of it, a `secureagg.Attestation`."""
        with self._db:
            self._db.execute(
                "update releases set attestation = ? where round = ? and attempt = ?",
                (attestation, round_index, attempt),
            )

    def unattested(self) -> set[tuple[int, int]]:
        """Returns (round, attempt) of the releases that nothing is put beside."""
        rows = self._db.execute("select round, attempt from releases where attestation is null")
        return {(index, attempt) for index, attempt in rows}

    def charges(self) -> list[tuple[int, int, list[int]]]:
        """Returns (round, attempt, clients) of every attempt that charged."""
        query = "select round, attempt, client from client_charges order by 1, 2, 3"
        rows = self._db.execute(query).fetchall()
        groups = itertools.groupby(rows, key=lambda row: row[:2])
        return [(index, attempt, [row[2] for row in group]) for (index, attempt), group in groups]

    def releases(self) -> list[tuple[int, int, tuple[int, ...]]]:
        """Returns (round, attempt, survivors) of every release."""
        query = "select round, attempt, survivors from releases order by round, attempt"
        rows = self._db.execute(query)
        return [(r, attempt, tuple(json.loads(survivors))) for r, attempt, survivors in rows]

    def attempts(self, round_index: int) -> int:
        """Returns how often a round was begun."""
        query = (
            "select coalesce(max(attempt) + 1, 0) from (select round, attempt from client_charges"
            " union all select round, attempt from stages) where round = ?"
        )
        return int(self._db.execute(query, (round_index,)).fetchone()[0])

    def begin_stage(
        self, round_index: int, attempt: int, stage: str, asked: int, download_bytes: int
    ) -> None:
        """Commits that a stage is asked of clients elsewhere, before it is."""
        with self._db:
            self._db.execute(
                "insert into stages (round, attempt, stage, asked, download_bytes)"
                " values (?, ?, ?, ?, ?)",
                (round_index, attempt, stage, asked, download_bytes),
            )

    def close_stage(
        self, place: tuple[int, int, str], answered: int, seconds: float, upload_bytes: int
    ) -> None:
        """Commits what came of a stage; `place` is its round, attempt and name."""
        with self._db:
            self._db.execute(
                "update stages set answered = ?, seconds = ?, upload_bytes = ?"
                " where round = ? and attempt = ? and stage = ?",
                (answered, seconds, upload_bytes, *place),
            )

    def stages(self) -> list[dict[str, Any]]:
        """Returns the rows of table `stages` in the order in which they were begun."""
        cursor = self._db.execute("select * from stages order by rowid")
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, values, strict=True)) for values in cursor]

    def total_attempts(self) -> int:
        """Returns how many attempts charged anybody."""
        query = "select count(*) from (select distinct round, attempt from client_charges)"
        return int(self._db.execute(query).fetchone()[0])

    def finish_round(
        self,
        row: Mapping[str, Any],
        round_index: int,
        state: PyTree,
        client_states: Iterable[tuple[int, bytes]] = (),
        noise: bytes | None = None,
    ) -> None:
        """Commits a round, its metrics, checkpoint and client states in one transaction.

        Args:
            row: values of the columns of table `rounds`; mappings are stored as JSON.
            round_index: of the checkpoint.
            state: the server state after the round, a pytree of arrays.
            client_states: (client, npz of its leaves) of those whose state the round changed.
            noise: the state of correlated noise that passed over the round.
        """
        values = {
            key: blobs.finite_json(value) if isinstance(value, Mapping) else value
            for key, value in row.items()
        }
        columns, marks = ", ".join(values), ", ".join("?" * len(values))
        kept = self._kept(f"checkpoint-{round_index}", tree_to_npz(state))
        passed = self._kept(f"noise-{round_index}", noise)
        with self._db:
            self._db.execute(
                f"insert into rounds ({columns}) values ({marks})",  # noqa: S608 - own column names
                tuple(values.values()),
            )
            if kept is not None:
                self._db.execute("delete from checkpoints")
                self._db.execute(
                    "insert into checkpoints values (?, ?, ?, ?)", (round_index, *kept)
                )
            self._db.executemany(
                "insert or replace into client_states values (?, ?)", client_states
            )
            self._keep_noise(round_index, passed)
            self._db.execute("delete from noise where round < ?", (round_index,))
        if kept is not None:
            self._remove_files_but(kept[1])

    def _keep_noise(self, round_index: int, kept: blobs.Kept | None) -> None:
        """Inside a transaction: the state after the round's noise, whatever was there."""
        if kept is not None:
            row = (round_index, *kept)
            self._db.execute("insert or replace into noise values (?, ?, ?, ?)", row)

    def has_noise(self, round_index: int) -> bool:
        """Returns whether a round's noise was drawn, or passed over."""
        query = "select 1 from noise where round = ?"
        return self._db.execute(query, (round_index,)).fetchone() is not None

    def noise(self, round_index: int) -> bytes:
        """Returns the state of correlated noise after a round.

        Raises:
            StoreError: there is none, or its file is gone or is not the one that was written.
        """
        query = "select state, file, sha256 from noise where round = ?"
        found = self._db.execute(query, (round_index,)).fetchone()
        if found is None:
            raise StoreError("noise", None, f"the state after round {round_index}")
        return blobs.read(self._dir, "noise", found)

    def _kept(self, name: str, data: bytes | None) -> blobs.Kept | None:
        """Returns (state, file, sha256); a file is on disk when this returns.

        None without data, and in memory, from which nobody resumes.
        """
        if data is None or self._dir is None:
            return None
        return blobs.keep(self._dir, name, data, INLINE_BYTES)

    def _remove_files_but(self, checkpoint: str | None) -> None:
        if self._dir is not None:
            noise = [name for (name,) in self._db.execute("select file from noise")]
            blobs.sweep(self._dir, ("checkpoint-", "noise-"), [checkpoint, *noise])

    def client_state(self, client: int) -> bytes | None:
        """Returns a client's state as npz of its leaves, or None before its first release."""
        query = "select state from client_states where client = ?"
        found = self._db.execute(query, (int(client),)).fetchone()
        return None if found is None else found[0]

    def client_states(self) -> Iterator[tuple[int, bytes]]:
        """Yields (client, npz of its leaves) of every client that keeps something."""
        yield from self._db.execute("select client, state from client_states order by client")

    def rounds(self) -> list[dict[str, Any]]:
        """Returns the rows of table `rounds` in order, with their JSON read."""
        cursor = self._db.execute("select * from rounds order by round, attempt")
        names = [column[0] for column in cursor.description]
        rows = [dict(zip(names, values, strict=True)) for values in cursor]
        for row in rows:
            for key in ("metrics", "seconds", "cost", "client_metrics"):
                row[key] = None if row[key] is None else json.loads(row[key])
        return rows

    def checkpoint(self) -> Checkpoint | None:
        """Returns the last checkpoint, or None before the first round ended.

        Raises:
            StoreError: its file is gone or is not the one that was written.
        """
        found = self._db.execute("select round, state, file, sha256 from checkpoints").fetchone()
        if found is None:
            return None
        index, *kept = found
        return Checkpoint(
            int(index), leaves_from_npz(blobs.read(self._dir, "checkpoint", tuple(kept)))
        )


def _lock(out: Path) -> sqlite3.Connection:
    """Takes the run for this process; the operating system gives it back when the process ends."""
    lock = sqlite3.connect(out / "run.lock", timeout=0, isolation_level=None)
    try:
        lock.execute("begin exclusive")
    except sqlite3.OperationalError as error:
        lock.close()
        raise StoreError("out", f"{out}, which another process holds", "a run at rest") from error
    return lock


@contextmanager
def _as_store_error(out: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        raise StoreError("out", f"{out}: {error}", "a directory that can be written") from error


def next_run_directory(base: Path, dataset: str) -> Path:
    """Makes and returns base/<dataset>-<next free number>.

    Raises:
        StoreError: it cannot be made.
    """
    with _as_store_error(base):
        base.mkdir(parents=True, exist_ok=True)
        for number in itertools.count(1):
            try:
                (base / f"{dataset}-{number}").mkdir()
            except FileExistsError:
                continue
            break
    return base / f"{dataset}-{number}"
