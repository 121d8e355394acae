"""What clients keep between rounds, in the process where they live.

A state moves on only where the client's message is in a released sum, so what training gave is
pending until the round is over. Both lie in a private temporary database, which spills to disk:
memory does not grow with the clients.
"""

import sqlite3
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping

import jax

from fl.arrays import leaves_from_npz, tree_to_npz
from fl.types import PyTree


class ClientStates:
    """The states of the clients of one process.

    Args:
        fresh: the state of a client that has not taken part; without arrays nothing is kept.
        durable: client id -> npz of its leaves or None, where a store keeps them beside this.
    """

    def __init__(self, fresh: PyTree, durable: Callable[[int], bytes | None] | None = None) -> None:
        self._fresh = fresh
        self._structure = jax.tree.structure(fresh)
        self.keeps = bool(jax.tree.leaves(fresh))
        # One round at a time, from whichever thread.
        self._db = sqlite3.connect("", check_same_thread=False)
        weakref.finalize(self, self._db.close)  # it is nobody else's, and nothing outlives it
        for table in ("kept", "pending"):
            self._db.execute(f"create table {table} (client integer primary key, state blob)")
        self._durable = durable

    def of(self, client: int) -> PyTree:
        """Returns a client's state: as its last release left it, or fresh."""
        if not self.keeps:
            return self._fresh
        data = self._find(client) if self._durable is None else self._durable(client)
        if data is None:
            return self._fresh
        return jax.tree.unflatten(self._structure, leaves_from_npz(data))

    def _find(self, client: int) -> bytes | None:
        row = self._db.execute("select state from kept where client = ?", (client,)).fetchone()
        return None if row is None else row[0]

    def hold(self, client: int, state: PyTree) -> None:
        """Puts what training gave aside until the round is over."""
        if self.keeps:
            self._db.execute(
                "insert or replace into pending values (?, ?)", (client, tree_to_npz(state))
            )

    def pending(self) -> Iterator[tuple[int, bytes]]:
        """Yields (client, npz of its leaves) of what is put aside."""
        yield from self._db.execute("select client, state from pending order by client")

    def settle(self, released: Collection[int]) -> None:
        """Ends a round: states of released clients move on, the others' are forgotten."""
        if self.keeps and self._durable is None:
            self._db.executemany(
                "insert or replace into kept select * from pending where client = ?",
                [(client,) for client in released],
            )
        self._db.execute("delete from pending")

    def load(self, rows: Mapping[int, bytes]) -> None:
        """Takes states from an earlier process of the run."""
        self._db.executemany("insert or replace into kept values (?, ?)", rows.items())
