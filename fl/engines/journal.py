"""What an organisation must never forget: one SQLite file, mode 0600, on disk before each answer.

It holds the keys of steps taken (`once`), the client's own ledger, the open session, the answer to
the last request, and what the algorithm has a client keep between rounds. Everything that one
request changes commits together, before its answer leaves, or not at all. Copying an older file
back undoes that: keep it where backups do not reach. A file of another member would too, so it
takes no other.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from fl.errors import StoreError

_SCHEMA = """
create table if not exists session (
  id integer primary key check (id = 0), name blob not null, member integer not null);
create table if not exists once (key blob primary key);
create table if not exists charges (
  round integer not null, attempt integer not null, primary key (round, attempt));
create table if not exists attempt (
  id integer primary key check (id = 0), round integer not null, attempt integer not null,
  state blob not null, asked blob not null, answer blob not null);
create table if not exists kept (
  pending integer primary key check (pending in (0, 1)),
  round integer not null, attempt integer not null, state blob not null);
"""


class Open(NamedTuple):
    """The last attempt that this client began; older ones are forgotten, keys and all.

    Attributes:
        round_index: from 0.
        attempt: from 0.
        state: the ClientSession.
        asked: hash of the last request that was answered.
        answer: to it.
    """

    round_index: int
    attempt: int
    state: bytes
    asked: bytes
    answer: bytes


class Journal:
    """The file of one organisation in one session; one process at a time may hold it.

    Args:
        path: the file; made with mode 0600 if there is none.
        session: 32 bytes; the file takes no other session afterwards.
        member: whose it is; it takes no other afterwards.
        trace: a file that is left elsewhere, to show that there has been a journal. It is the only
            thing that tells a lost journal, or one in another directory, from a first start.

    Attributes:
        is_new: whether there was none.

    Raises:
        StoreError: it cannot be made or read, others may read it, another process holds it, it is
            of another session or member, or it is new though there has been one.
    """

    def __init__(self, path: Path, session: bytes, member: int, trace: Path | None = None) -> None:
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            mode = path.stat().st_mode & 0o777
            if mode & 0o077:
                raise StoreError("journal", f"{path}, mode {mode:04o}", "a file of mode 0600")
            # One request at a time, from whichever thread.
            self._db = sqlite3.connect(
                path, timeout=0, isolation_level=None, check_same_thread=False
            )
        except (OSError, sqlite3.Error) as error:
            raise StoreError("journal", f"{path}: {error}", "a file of one's own") from error
        try:
            self._open(session, member, trace)
            if trace is not None:
                trace.touch(mode=0o600)
        except (StoreError, OSError, sqlite3.Error) as error:
            self._db.close()
            if isinstance(error, StoreError):
                raise
            takes = "a journal that no other process holds"
            if isinstance(error, OSError):
                takes = "a directory where a trace of the journal can be left"
            raise StoreError("journal", f"{path}: {error}", takes) from error

    def _open(self, session: bytes, member: int, trace: Path | None) -> None:
        # EXTRA syncs the directory too: a deleted rollback journal must not come back. Under an
        # exclusive lock it is kept instead, and without a limit with all its pages: old keys.
        for pragma in (
            "locking_mode = exclusive", "synchronous = extra", "secure_delete = on",
            "journal_size_limit = 0",
        ):  # fmt: skip
            self._db.execute(f"pragma {pragma}")
        with self.transaction():
            for statement in _SCHEMA.split(";"):
                self._db.execute(statement)
            begun = self._db.execute(
                "insert or ignore into session values (0, ?, ?)", (session, member)
            )
            self.is_new = begun.rowcount == 1
            if self.is_new and trace is not None and trace.exists():
                takes = f"the journal that this member began ({trace} is its trace)"
                raise StoreError("journal", "a new one in a session that has begun", takes)
            name, whose = self._db.execute("select name, member from session").fetchone()
        if name != session:
            takes = "the journal of this session; another plan or roster is another session"
            raise StoreError("journal", f"a journal of session {name.hex()}", takes)
        if whose != member:
            raise StoreError("journal", f"that of member {whose}", f"that of member {member}")

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All that is written inside is on disk afterwards, or, where it raises, none of it."""
        self._db.execute("begin exclusive")
        try:
            yield
            self._db.execute("commit")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("rollback")
            raise

    def close(self) -> None:
        """Lets another process have the file."""
        self._db.close()

    def once(self, key: bytes) -> bool:
        """Returns whether this is the first time, ever, that `key` is used."""
        return self._db.execute("insert or ignore into once values (?)", (key,)).rowcount == 1

    def charges(self) -> list[tuple[int, int]]:
        """Returns (round, attempt) of every masked vector that may have left, ascending."""
        return self._db.execute("select round, attempt from charges order by 1, 2").fetchall()

    def charge(self, round_index: int, attempt: int) -> None:
        """Charges one masked vector."""
        self._db.execute("insert into charges values (?, ?)", (round_index, attempt))

    def open_attempt(self) -> Open | None:
        """Returns the last attempt that was begun, or None."""
        found = self._db.execute("select round, attempt, state, asked, answer from attempt")
        row = found.fetchone()
        return None if row is None else Open(*row)

    def keep(self, attempt: Open) -> None:
        """Puts an attempt in the place of whatever was there."""
        self._db.execute("insert or replace into attempt values (0, ?, ?, ?, ?, ?)", attempt)

    def hold(self, round_index: int, attempt: int, state: bytes) -> None:
        """Puts aside what the client keeps if the vector of this attempt is in a released sum."""
        row = (round_index, attempt, state)
        self._db.execute("insert or replace into kept values (1, ?, ?, ?)", row)

    def settle(self, released: tuple[int, int] | None) -> None:
        """Keeps what was put aside in this round and attempt; what another left is dropped."""
        found = self._db.execute("select round, attempt from kept where pending = 1").fetchone()
        if found is not None and found == released:
            self._db.execute("delete from kept where pending = 0")
            self._db.execute("update kept set pending = 0")
        self._db.execute("delete from kept where pending = 1")

    def kept(self) -> bytes | None:
        """Returns what the client keeps since its last released vector; None before the first."""
        row = self._db.execute("select state from kept where pending = 0").fetchone()
        return None if row is None else row[0]
