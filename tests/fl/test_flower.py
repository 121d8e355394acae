"""Flower's own types: a Grid that loses nothing and one that does, the app that is shipped."""

import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import fl
from fl.engines import pipe
from fl.secure import STAGES
from tests.fl import helpers, organisations
from tests.fl.organisations import World, node_of

flwr = pytest.importorskip("flwr.app")
flower: Any = pytest.importorskip("fl.engines.flower")
client_app: Any = pytest.importorskip("fl.engines.client_app")


class FakeGrid:
    """Hands messages to the app that is shipped, in this process.

    Attributes:
        sockets: node -> path of its organisation's socket.
        change: (message, reply) -> replies that arrive in its place.
    """

    def __init__(self, sockets: dict[int, Path]) -> None:
        self.sockets = sockets
        self.change: Any = lambda message, reply: [reply]
        self.types: list[str] = []

    def get_node_ids(self) -> list[int]:
        return list(self.sockets)

    def send_and_receive(self, messages: Iterable[Any], *, timeout: float) -> Iterator[Any]:
        for number, message in enumerate(messages):
            message.metadata.__dict__["_message_id"] = f"{message.metadata.message_type}{number}"
            self.types.append(message.metadata.message_type)
            path = self.sockets[message.metadata.dst_node_id]
            context = SimpleNamespace(node_config={"socket": str(path)})
            yield from self.change(message, client_app.app(message, context))


@pytest.fixture
def grid(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGrid]:
    for name in ("_task_id", "_run_id", "_node_id"):  # set by Flower's own processes
        monkeypatch.setattr(f"flwr.supercore.task_identity.TaskIdentity.{name}", 1)
    stop, threads, sockets = threading.Event(), [], {}
    for i, organisation in world.members.items():
        sockets[node_of(i)] = tmp_path / f"{i}.sock"
        threads.append(
            threading.Thread(
                target=pipe.serve,
                args=(sockets[node_of(i)], organisation.handle, organisation.limits),
                kwargs={"read_timeout": 5.0, "stop": stop},
            )
        )
        threads[-1].start()
    yield FakeGrid(sockets)
    stop.set()
    for thread in threads:
        thread.join()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    found = World(organisations.shared_plan(rounds=2), helpers.small_data(num_clients=4), tmp_path)
    yield found
    found.close()


def test_a_run_over_sockets_and_messages_gives_the_model_of_one_process(
    world: World, grid: FakeGrid
) -> None:
    long = dict.fromkeys(STAGES, 60.0)
    model, _ = world.run(transport=flower.GridTransport(grid), timeouts=long, join_timeout=60.0)
    assert model == helpers.params_bytes(fl.train(world.plan, helpers.MODEL, world.data).params)
    expected = {
        "query.hello",
        *(flower.message_type(s) for s in STAGES if s != "check_consistency"),
    }
    assert set(grid.types) == expected
