"""Flower's own types: a Grid that loses nothing and one that does, the app that is shipped."""

import dataclasses
import functools
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import fl
from fl.engines import pipe, wire
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
        around: (message, forward) -> the reply; calls forward for it.
    """

    def __init__(self, sockets: dict[int, Path]) -> None:
        self.sockets = sockets
        self.change: Any = lambda message, reply: [reply]
        self.around: Any = lambda message, forward: forward()
        self.types: list[str] = []
        self.replies: dict[str, list[Any]] = {}

    def get_node_ids(self) -> list[int]:
        return list(self.sockets)

    def push_messages(self, messages: Iterable[Any]) -> list[str]:
        for number, message in enumerate(messages):
            message.metadata.__dict__["_message_id"] = f"{message.metadata.message_type}{number}"
            self.types.append(message.metadata.message_type)
            path = self.sockets[message.metadata.dst_node_id]
            context = SimpleNamespace(node_config={"socket": str(path)})
            forward = functools.partial(client_app.app, message, context)
            replies = self.change(message, self.around(message, forward))
            self.replies[message.metadata.message_id] = replies
        return [message.metadata.message_id for message in messages]

    def pull_messages(self, message_ids: Iterable[str]) -> list[Any]:
        return [reply for one in message_ids for reply in self.replies.pop(one, [])]


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
    aggregation = helpers.secure(graph="complete", dropout=0.0)  # nobody can be declared dropped
    plan = organisations.shared_plan(rounds=2, aggregation=aggregation)
    found = World(plan, helpers.small_data(num_clients=4), tmp_path)
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


def one_stage(grid: FakeGrid, world: World) -> list[int]:
    """Nodes whose answers to a greeting arrive."""
    asked = {node: wire.Hello(organisations.SESSION, bytes(32)).parts() for node in grid.sockets}
    return sorted(node for node, _ in flower.GridTransport(grid).exchange("hello", asked, 3.0))


def an_error(message: Any, reply: Any) -> list[Any]:
    return [flwr.Message(flwr.Error(5, "node is gone"), reply_to=message)]


def without_control(message: Any, reply: Any) -> list[Any]:
    return [flwr.Message(flwr.RecordDict(), reply_to=message)]


def of_another_kind(message: Any, reply: Any) -> list[Any]:
    content = flwr.RecordDict({"control": flwr.ConfigRecord({"body": "text"})})
    return [flwr.Message(content, reply_to=message)]


def without_a_body(message: Any, reply: Any) -> list[Any]:
    reply.content["bulk"] = flwr.ArrayRecord({"other": flwr.Array("uint8", (1,), "bytes", b"x")})
    return [reply]


def to_another_message(message: Any, reply: Any) -> list[Any]:
    reply.metadata.__dict__["_reply_to_message_id"] = "query.hello0"
    return [reply]


def of_nobody(message: Any, reply: Any) -> list[Any]:
    reply.metadata.__dict__["_src_node_id"] = 77
    return [reply]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda message, reply: [], ""),
        (an_error, "hello: node 1003: Error(code=5, reason='node is gone')"),
        (without_control, "hello: node 1003: an answer of another form"),
        (of_another_kind, "hello: node 1003: an answer of another form"),
        (without_a_body, "hello: node 1003: an answer of another form"),
        (to_another_message, "hello: node 1003 answers what it was not asked"),
        (of_nobody, "hello: node 77 answers what it was not asked"),
    ],
)
def test_what_is_no_answer_is_logged_and_left_out(
    world: World, grid: FakeGrid, caplog: pytest.LogCaptureFixture, change: Any, said: str
) -> None:
    grid.change = lambda m, reply: (
        change(m, reply) if m.metadata.dst_node_id == node_of(3) else [reply]
    )
    assert one_stage(grid, world) == [node_of(0), node_of(1), node_of(2)]
    assert said in caplog.text


def test_a_reply_that_stops_half_way_keeps_nobody_waiting(world: World, grid: FakeGrid) -> None:
    stalled, pull = threading.Event(), grid.pull_messages

    def stall(message_ids: Iterable[str]) -> list[Any]:
        if list(message_ids) == ["query.hello3"]:  # of node 1003; Flower waits for the rest of it
            stalled.wait(60.0)
        return pull(message_ids)

    grid.pull_messages = stall  # type: ignore[method-assign]
    assert one_stage(grid, world) == [node_of(0), node_of(1), node_of(2)]
    assert not stalled.is_set()
    stalled.set()


def test_the_barrier_counts_nodes_and_not_replies(world: World, grid: FakeGrid) -> None:
    pull = grid.pull_messages

    def late(message_ids: Iterable[str]) -> list[Any]:
        if list(message_ids) == ["query.hello3"]:
            time.sleep(0.3)  # the others' replies, twice as many as nodes, are there by then
        return pull(message_ids)

    grid.pull_messages = late  # type: ignore[method-assign]
    grid.change = lambda message, reply: [reply, reply]
    assert one_stage(grid, world) == sorted(2 * [node_of(i) for i in range(4)])


def test_nothing_is_asked_after_the_barrier(
    world: World, grid: FakeGrid, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, lives = list[str](), list[float]()
    monkeypatch.setattr(flower, "_LOOK_SECONDS", 0.01)

    def nothing(message_ids: Iterable[str]) -> list[Any]:
        asked.extend(message_ids)
        return []

    grid.pull_messages = nothing  # type: ignore[method-assign]
    grid.around = lambda message, forward: lives.append(message.metadata.ttl)
    before, request = set(threading.enumerate()), wire.Hello(organisations.SESSION, bytes(32))
    requests = {node: request.parts() for node in grid.sockets}
    assert not list(flower.GridTransport(grid).exchange("hello", requests, 0.2))
    assert lives == [0.2] * 4  # nor does a message lie about for a node that comes later
    assert set(asked) <= {f"query.hello{i}" for i in range(4)}
    for thread in set(threading.enumerate()) - before:
        thread.join(5.0)
    assert set(threading.enumerate()) <= before


def test_where_nobody_is_asked_flower_is_not(world: World, grid: FakeGrid) -> None:
    grid.push_messages = None  # type: ignore[assignment, method-assign]
    assert not list(flower.GridTransport(grid).exchange("hello", {}, 3.0))


def test_a_reply_that_flower_cannot_read_is_lost_alone(
    world: World, grid: FakeGrid, caplog: pytest.LogCaptureFixture
) -> None:
    inflatable: Any = pytest.importorskip("flwr.supercore.inflatable.inflatable_utils")
    pull = grid.pull_messages

    def unreadable(message_ids: Iterable[str]) -> list[Any]:
        if list(message_ids) == ["query.hello3"]:  # what node 1003 made instead of a record
            inflatable.inflate_object_from_contents("id", {"id": b"Message , 4\0junk"})
        return pull(message_ids)

    grid.pull_messages = unreadable  # type: ignore[method-assign]
    assert sorted(one_stage(grid, world)) == [node_of(0), node_of(1), node_of(2)]
    assert "a reply that cannot be read" in caplog.text


def test_what_flower_raises_is_raised_at_the_barrier(world: World, grid: FakeGrid) -> None:
    def broken(*message_ids: Any) -> Any:
        raise ConnectionError("the SuperLink is gone")

    for name in ("pull_messages", "get_node_ids"):
        setattr(grid, name, broken)
    with pytest.raises(ConnectionError, match="the SuperLink is gone"):
        one_stage(grid, world)


def test_what_is_as_long_as_the_model_travels_as_one_uint8_array(
    world: World, grid: FakeGrid
) -> None:
    seen: list[tuple[str, list[Any]]] = []

    def note(message: Any, reply: Any) -> list[Any]:
        for one in (message, reply):
            arrays = [a for r in one.content.array_records.values() for a in r.values()]
            seen.append((message.metadata.message_type, arrays))
        return [reply]

    grid.change = note
    training = world.server(
        transport=flower.GridTransport(grid), timeouts=dict.fromkeys(STAGES, 60.0), join_timeout=60
    )
    training.step()
    training.store.close()
    assert {kind for kind, arrays in seen if arrays} == {"train.mask_input"}
    bulky = [arrays for kind, arrays in seen if kind == "train.mask_input"]
    assert [len(arrays) for arrays in bulky] == [1] * 8
    assert {(a.dtype, a.shape) for (a,) in bulky} == {
        ("uint8", (len(a.data),)) for (a,) in bulky
    }  # fmt: skip


def test_the_pipe_waits_for_a_process_that_is_being_started(world: World, tmp_path: Path) -> None:
    path, stop, organisation = tmp_path / "late.sock", threading.Event(), world.members[0]
    frame = wire.frame(*wire.Hello(organisations.SESSION, bytes(32)).parts())
    thread = threading.Timer(
        0.5, pipe.serve, (path, organisation.handle, organisation.limits),
        {"read_timeout": 5.0, "stop": stop},
    )  # fmt: skip
    thread.start()
    try:
        control, bulk = client_app.ask(str(path), frame, 30.0)
    finally:
        stop.set()
        thread.join()
    assert (control, bulk) == wire.parts(organisation.handle(frame), organisations.ANY)
    with pytest.raises(FileNotFoundError):
        client_app.ask(str(tmp_path / "never.sock"), frame, 0.3)


def attacks(request: wire.Hello | wire.Step) -> Iterator[wire.Hello | wire.Step]:
    """What a program in the place of the byte pipe may ask beside what it was given."""
    if isinstance(request, wire.Hello):
        yield dataclasses.replace(request, session=bytes(32))
        return
    changed = functools.partial(dataclasses.replace, request)
    yield changed(session=bytes(32))
    yield changed(round_index=request.round_index + 1, message=request.message or b"x")
    yield changed(attempt=request.attempt + 1, message=request.message or b"x")
    yield changed(broadcast=request.broadcast[:-1] if request.broadcast else b"1234")
    for at in (0, 1, 2, 20, 38):  # version, kind, client, context, and what is in there
        if request.message:
            data = bytearray(request.message)
            data[at] ^= 3
            yield changed(message=bytes(data))
    for stage in STAGES:
        if stage != request.stage:
            yield changed(stage=stage, message=request.message or b"x")


def test_a_hostile_app_gets_refusals_and_the_run_goes_on(
    world: World, grid: FakeGrid, caplog: pytest.LogCaptureFixture
) -> None:
    answers: list[wire.Reply] = []

    def attack(message: Any) -> None:
        content = message.content
        bulk = content.array_records["bulk"]["body"].data if "bulk" in content else b""
        frame = wire.frame(content.config_records["control"]["body"], bulk)
        path = str(grid.sockets[message.metadata.dst_node_id])
        for request in attacks(wire.read_request(frame, organisations.ANY)):
            control, bulk = client_app.ask(path, wire.frame(*request.parts()), 60.0)
            reply = wire.read_reply(control, bulk, organisations.ANY)
            assert reply.status == wire.Status.REFUSED, request
            answers.append(reply)

    def before_and_after(message: Any, forward: Any) -> Any:
        attack(message)
        reply = forward()
        attack(message)
        return reply

    grid.around = before_and_after
    long = dict.fromkeys(STAGES, 60.0)
    model, rounds = world.run(
        transport=flower.GridTransport(grid), timeouts=long, join_timeout=60.0
    )
    assert model == helpers.params_bytes(fl.train(world.plan, helpers.MODEL, world.data).params)
    assert [r.survivors for r in rounds] == [(0, 1, 2, 3)] * 2
    assert len(answers) > 2 * 2 * 4 * 4 * 8
    assert all(organisations.charges(world, i) == [(0, 0), (1, 0)] for i in range(4))
