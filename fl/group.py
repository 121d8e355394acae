"""The processes of one run, as the training loop sees them.

Client i lives in process i mod N and keeps its keys and its state there. Process 0 holds the
server, the store and the ledger.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

Exchange = Callable[[bytes], list[bytes]]


@dataclass(frozen=True)
class Group:
    """One process's view of the N processes of a run; they call `exchange` in step.

    Attributes:
        index: this process, from 0.
        size: N.
        exchange: process 0 gets everybody's bytes, in the order of processes; everybody gets
            those of process 0 as entry 0. Nobody reads other entries.
    """

    index: int
    size: int
    exchange: Exchange

    def mine(self, client_ids: Iterable[int]) -> tuple[int, ...]:
        """Returns the clients that live in this process, ascending."""
        return tuple(sorted(i for i in client_ids if i % self.size == self.index))

    def tell(self, payload: bytes) -> bytes:
        """Returns process 0's payload, in every process; the others' arguments are not read."""
        return self.exchange(payload if self.index == 0 else b"")[0]


def alone() -> Group:
    """Returns the group of a run in one process."""
    return Group(0, 1, lambda payload: [payload])
