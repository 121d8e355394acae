"""What a round cost, by role and stage."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

_T = TypeVar("_T")


@dataclass(frozen=True)
class RoundCost:
    """Measured cost of one round. Every dict has one entry per stage that ran.

    Attributes:
        num_clients: invited clients.
        client_seconds: CPU seconds, all clients together.
        server_seconds: CPU seconds of the server.
        upload_bytes: from all clients to the server.
        download_bytes: from the server to all clients.
    """

    num_clients: int
    client_seconds: dict[str, float]
    server_seconds: dict[str, float]
    upload_bytes: dict[str, int]
    download_bytes: dict[str, int]


class Meter:
    """Adds up the cost of a round as it runs.

    Args:
        stages: the stages that will run.
    """

    def __init__(self, stages: tuple[str, ...]) -> None:
        self._client = dict.fromkeys(stages, 0.0)
        self._server = dict.fromkeys(stages, 0.0)
        self._up = dict.fromkeys(stages, 0)
        self._down = dict.fromkeys(stages, 0)

    def client(self, stage: str, step: Callable[[], _T]) -> _T:
        """Runs a client's step on its clock."""
        return _timed(self._client, stage, step)

    def server(self, stage: str, step: Callable[[], _T]) -> _T:
        """Runs a server's step on its clock."""
        return _timed(self._server, stage, step)

    def upload(self, stage: str, message: bytes) -> None:
        """Counts a client's message."""
        self._up[stage] += len(message)

    def download(self, stage: str, message: bytes) -> None:
        """Counts a server's message."""
        self._down[stage] += len(message)

    def total(self, num_clients: int) -> RoundCost:
        """Returns what was added up."""
        return RoundCost(num_clients, self._client, self._server, self._up, self._down)


def _timed(seconds: dict[str, float], stage: str, step: Callable[[], _T]) -> _T:
    begin = time.process_time()
    result = step()
    seconds[stage] += time.process_time() - begin
    return result
