"""The server's side alone: whom it waits for, whom it hears, and what it makes of its record."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import fl
from fl import secure
from fl.books import Books
from fl.engines import coordinator, server, wire
from fl.engines.coordinator import Coordinator, Parts
from fl.engines.wire import Hello, Reply, Status
from fl.errors import StoreError
from fl.round import Clock
from fl.secure import STAGES
from fl.site import Order
from fl.store import Store
from secureagg import FaultyClientError
from tests.fl import helpers, organisations
from tests.fl.leading import terms
from tests.fl.organisations import FIVE, SESSION, key_of, node_of
from tests.fl.test_organisation_states import scaffold

ALL = (0, 1, 2, 3)
LOSSY = terms(organisations.shared_plan(
    rounds=4, aggregation=helpers.secure(graph="complete", corrupt=0.0, dropout=0.25)))  # fmt: skip
ORDER = Order(0, 0, ALL, {}, {})
SILENT = wire.parts(Reply(Status.SILENT).to_bytes(), organisations.ANY)


class Nodes:
    """A Transport: each node says that it is one member, and nothing else.

    Attributes:
        of: node -> the member that it stands for; None where it never answers.
        greeted: every node that was greeted, with its nonce.
        arriving: what (node, answer) come in a stage of the protocol, of whom was asked.
    """

    def __init__(self, members: Sequence[int]) -> None:
        self.of: dict[int, int | None] = {node_of(i): i for i in members}
        self.greeted: list[tuple[int, bytes]] = []
        self.asked: list[int] = []
        self.arriving: list[tuple[int, Parts]] = []

    def node_ids(self) -> list[int]:
        return list(self.of)

    def exchange(
        self, stage: str, requests: Mapping[int, Parts], timeout: float
    ) -> Iterator[tuple[int, Parts]]:
        if stage != "hello":
            self.asked = list(requests)
            yield from self.arriving
            return
        for node, parts in requests.items():
            asked = wire.read_request(wire.frame(*parts), organisations.ANY)
            assert isinstance(asked, Hello)
            self.greeted.append((node, asked.nonce))
            if (member := self.of[node]) is not None:
                yield node, self.presence(member, asked.nonce)

    def presence(self, member: int, nonce: bytes) -> Parts:
        signed = secure.sign_presence(key_of(member), SESSION, member, nonce)
        return wire.parts(wire.presence(member, signed).to_bytes(), organisations.ANY)


class Time(SimpleNamespace):
    """A clock that moves when somebody sleeps; `wake` is called then."""

    def __init__(self) -> None:
        super().__init__(now=0.0, wake=lambda: None, perf_counter=float, process_time=float)

    def monotonic(self) -> float:
        return float(self.now)

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        assert self.now < 60, "waits for ever"
        self.now += seconds
        self.wake()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Time:
    found = Time()
    monkeypatch.setattr(coordinator, "time", found)
    return found


def engine(nodes: Nodes, store: Store | None = None, of: Any = LOSSY) -> Coordinator:
    names, kept = [f"org{i}" for i in range(5)], store or Store.in_memory({})
    return Coordinator(of, names, nodes, kept, dict.fromkeys(STAGES, 1.0), 10.0)


def found(one: Coordinator) -> set[int]:
    return set(one._node_of)


def test_everybody_is_waited_for_before_the_first_round_alone(clock: Time) -> None:
    assert LOSSY.params.required_survivors == 4
    nodes = Nodes((0, 1, 2, 3))
    one = engine(nodes)
    clock.wake = lambda: nodes.of.setdefault(node_of(4), 4)
    one._meet(range(5))
    assert found(one) == {0, 1, 2, 3, 4}
    assert clock.now == 1.0
    del nodes.of[node_of(4)]
    clock.wake = lambda: None
    one._meet(range(5))
    assert found(one) == {0, 1, 2, 3}
    assert clock.now == 1.0  # as many as must survive are there


def test_whoever_is_missing_is_waited_for_until_time_is_up(clock: Time) -> None:
    nodes = Nodes((0, 1, 2, 4))
    one = engine(nodes)
    one._meet(ALL)
    assert found(one) == {0, 1, 2, 4}  # 4 is there, and not invited
    assert clock.now == 10.0


def test_a_node_is_greeted_once_in_a_round_and_not_again_once_it_is_known(clock: Time) -> None:
    nodes = Nodes(ALL)
    nodes.of[node_of(3)] = None
    one = engine(nodes)
    for _ in range(2):
        one._meet(ALL)
    assert [node for node, _ in nodes.greeted] == [node_of(i) for i in (0, 1, 2, 3, 3)]
    nonces = [nonce for _, nonce in nodes.greeted]
    assert len(set(nonces)) == 5
    assert {len(nonce) for nonce in nonces} == {wire.NONCE_BYTES}


def test_a_node_that_is_gone_is_asked_nothing_and_forgotten(clock: Time) -> None:
    nodes = Nodes(ALL)
    nodes.of[node_of(3)] = None
    one = engine(nodes)
    for _ in range(3):
        one._meet(ALL)
    greeted = len(nodes.greeted)
    one._meet(ALL)
    assert len(nodes.greeted) == greeted  # it has not answered three times
    for node in (node_of(2), node_of(3)):
        del nodes.of[node]
    one._meet(ALL)
    one.ask(ORDER, "share_keys", dict.fromkeys(ALL, b"x"), b"")
    assert nodes.asked == [node_of(0), node_of(1)]
    nodes.of[node_of(3)] = 3  # started again
    one._meet(ALL)
    assert found(one) == {0, 1, 3}


def test_an_answer_to_another_greeting_proves_nothing(
    clock: Time, caplog: pytest.LogCaptureFixture
) -> None:
    nodes = Nodes(ALL)
    earlier = nodes.presence(0, bytes(32))
    nodes.presence = lambda member, nonce: earlier  # type: ignore[method-assign]
    one = engine(nodes)
    one._meet((0,))
    assert found(one) == set()
    assert "it does not hold the key that the roster lists for 0" in caplog.text


def test_answers_are_heard_of_whom_the_stage_asked_and_counted_once(
    clock: Time, caplog: pytest.LogCaptureFixture
) -> None:
    nodes, store = Nodes(ALL), Store.in_memory({})
    one = engine(nodes, store)
    one._meet(ALL)
    nodes.arriving = [(node_of(0), SILENT), (node_of(0), SILENT), (node_of(2), SILENT)]
    answers = one.ask(ORDER, "share_keys", {0: b"x", 1: b"x"}, b"")
    assert [member for member, _ in answers] == [0, 0]
    assert "an answer of node 1002, which was not asked" in caplog.text
    assert [(row["asked"], row["answered"]) for row in store.stages()] == [(2, 1)]


def test_an_answer_is_as_long_as_the_roster_lets_it_be(
    clock: Time, caplog: pytest.LogCaptureFixture
) -> None:
    nodes, limit = Nodes(ALL), wire.control_limit(5)
    one = engine(nodes)
    one._meet(ALL)
    header = bytes([wire.VERSION, Status.ANSWER])
    nodes.arriving = [(node_of(i), (header.ljust(limit + i, b"x"), b"")) for i in (0, 1)]
    answers = one.ask(ORDER, "share_keys", dict.fromkeys(ALL, b"x"), b"")
    assert [member for member, _ in answers] == [0]
    assert f"member 1 (org1) is refused: an answer of {limit + 1} + 0 bytes" in caplog.text


def attempted(one: Coordinator) -> str | None:
    exposure = LOSSY.resolved.exposure
    books = Books(exposure, 5, one._store)
    return one.attempt(ORDER, books, Clock()).outcome.reason


def test_who_says_nothing_is_not_refused(clock: Time, caplog: pytest.LogCaptureFixture) -> None:
    nodes = Nodes(ALL)
    nodes.arriving = [(node_of(i), SILENT) for i in ALL]
    said = attempted(engine(nodes, of=terms(aggregation_of_four())))
    assert said == "round 0: 0 clients, needs 3; nothing is released"
    assert "is refused" not in caplog.text
    assert [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING] == [said]


def aggregation_of_four() -> fl.Plan:
    return organisations.shared_plan(
        rounds=4, cohort=fl.cohort.cyclic(4),
        aggregation=helpers.secure(graph="complete", corrupt=0.0, dropout=0.25),
    )  # fmt: skip


def test_a_client_at_fault_ends_the_attempt_and_not_the_server(
    clock: Time, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def blame(session: secure.ServerSession) -> dict[int, bytes]:
        raise FaultyClientError(3, "its shares rebuild another key")

    monkeypatch.setattr(secure.ServerSession, "close_stage", blame)
    one = engine(Nodes(ALL), of=terms(aggregation_of_four()))
    assert attempted(one) == "client 3: its shares rebuild another key"
    assert "round 0: client 3: its shares rebuild another key" in caplog.text


def test_members_are_told_of_rounds_that_were_released_and_ended() -> None:
    store, state = Store.in_memory({}), {"w": np.zeros(1, np.float32)}
    for index, status in ((0, "released"), (1, "aborted"), (2, None)):
        store.charge(index, 0, [0, 1])
        store.release(index, 0, (0,) if index else (0, 1))
        row: dict[str, Any] = {
            "round": index, "attempt": 0, "status": status, "invited": 2, "survivors": 2,
            "metrics": {}, "seconds": {}, "client_metrics": {},
        }  # fmt: skip
        if status is not None:  # the server died in the last one
            store.finish_round(row, index, state)
    keeping = terms(organisations.shared_plan(algorithm=scaffold()))
    one = engine(Nodes(ALL), store, of=keeping)
    assert [one.first_message(i) for i in range(3)] == [wire.settled((0, 0))] * 2 + [b""]


def test_a_store_is_of_one_plan_and_one_session(tmp_path: Path) -> None:
    plan, another = organisations.shared_plan(), organisations.shared_plan(seed=9)
    begun_at(tmp_path, plan, SESSION, resume=False)
    for other, session in ((plan, bytes(32)), (another, SESSION)):
        with pytest.raises(StoreError, match="another plan than the one"):
            begun_at(tmp_path, other, session)
    begun_at(tmp_path, plan, SESSION)


def begun_at(folder: Path, plan: fl.Plan, session: bytes, *, resume: bool = True) -> None:
    keys = {i: key_of(i).public_key for i in range(5)}
    server.start_server(
        plan, helpers.MODEL, FIVE, session=session, roster=keys, names=[f"org{i}" for i in keys],
        transport=Nodes(()), timeouts=dict.fromkeys(STAGES, 1.0), join_timeout=0.0,
        out=folder / "run", resume=resume,
    ).store.close()  # fmt: skip


def test_a_run_is_kept_in_a_directory(tmp_path: Path) -> None:
    (tmp_path / "state").touch()
    with pytest.raises(StoreError, match=r"state: got .*; takes a directory"):
        server._make_private(tmp_path / "state" / "run")
