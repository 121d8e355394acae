"""Organisations and a server in one process, and what may go wrong between them."""

import contextlib
import json
import logging
import sqlite3
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import fl
from fl.engines import wire
from fl.engines.client import open_organisation
from fl.engines.coordinator import Parts
from fl.engines.journal import Journal
from fl.engines.organisation import Organisation
from fl.engines.server import start_server
from fl.secure import STAGES, IdentityKey
from fl.train import conclude
from fl.training import Training
from tests.fl import helpers

SESSION = bytes(range(32))
ANY = wire.Limits(2**31, 2**31)
FIVE = helpers.small_data(num_clients=5)
QUARTER = helpers.secure(graph="complete", corrupt=0.1, dropout=0.25)
SECRET: dict[str, Any] = {"seeded_secrets": False, "aggregation": QUARTER}
SEMI_HONEST = tuple(stage for stage in STAGES if stage != "check_consistency")


class Passing(NamedTuple):
    """One request on its way, and the answer to it.

    Attributes:
        stage: "hello" or one of the protocol's.
        member: whose node is asked.
        request: parsed.
        answer: control and bulk.
    """

    stage: str
    member: int
    request: wire.Hello | wire.Step
    answer: Parts

    @property
    def round_index(self) -> int:
        return self.request.round_index if isinstance(self.request, wire.Step) else -1


Fault = Callable[[Passing], list[tuple[int, Parts]] | None]


def key_of(member: int) -> IdentityKey:
    return IdentityKey(bytes([member + 1]) * 32)


def node_of(member: int) -> int:
    return 1000 + member


def shared_plan(**overrides: Any) -> fl.Plan:
    """A seeded plan that can be run across organisations."""
    settings: dict[str, Any] = {
        "aggregation": helpers.secure(graph="complete"), "seeded_secrets": True,
    }  # fmt: skip
    return helpers.plan(**{**settings, **overrides})


@dataclass
class World:
    """Members of a run, each with its own journal, and nodes that lead to them.

    Attributes:
        plan: of everybody.
        data: of everybody; each member keeps its own.
        folder: of journals and of the server's run.
        faults: each says what (node, answer) arrive in place of one; None leaves it alone.
        before: called with (stage, member) before a request is handed over.
        passed: everything that was asked and answered.
    """

    plan: fl.Plan
    data: fl.FederatedDataset
    folder: Path
    model: fl.Model = helpers.MODEL
    keys: dict[int, IdentityKey] = field(default_factory=dict)
    members: dict[int, Organisation] = field(default_factory=dict)
    journals: dict[int, Journal] = field(default_factory=dict)
    nodes: dict[int, Callable[[bytes], bytes]] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    before: Callable[[str, int], None] | None = None
    passed: list[Passing] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.keys = {i: key_of(i) for i in range(self.data.num_clients)} | self.keys
        for member in range(self.data.num_clients):
            self.restart(member)

    @property
    def roster(self) -> dict[int, bytes]:
        return {i: key.public_key for i, key in self.keys.items()}

    def restart(self, member: int, **overrides: Any) -> None:
        """Starts a member's process, after whatever ran before was killed."""
        if member in self.journals:
            self.journals[member].close()
        settings: dict[str, Any] = {
            "plan": self.plan, "model": self.model, "data": self.data, "session": SESSION,
            "roster": self.roster, "member": member, "identity": self.keys[member],
            "state": self.folder / f"member{member}",
        }  # fmt: skip
        self.members[member], self.journals[member] = open_organisation(**{**settings, **overrides})
        self.nodes[node_of(member)] = self.members[member].handle

    def server(self, *, resume: bool = False, **overrides: Any) -> Training:
        settings: dict[str, Any] = {
            "plan": self.plan, "model": self.model, "data": self.data, "session": SESSION,
            "roster": self.roster, "names": [f"org{i}" for i in self.roster], "transport": self,
            "timeouts": dict.fromkeys(STAGES, 1.0), "join_timeout": 0.0,
            "out": self.folder / "run", "resume": resume,
        }  # fmt: skip
        return start_server(**{**settings, **overrides})

    def run(self, **overrides: Any) -> tuple[bytes, list[fl.Round]]:
        """Trains to the end; the model's bytes and the rounds."""
        training = self.server(**overrides)
        found = list(iter(training.step, None))
        model = helpers.params_bytes(training.state.params)
        conclude(training, self.folder / "run")
        return model, [r for r in found if r is not None]

    def close(self) -> None:
        for journal in self.journals.values():
            journal.close()

    # as a Transport

    def node_ids(self) -> list[int]:
        return list(self.nodes)

    def exchange(
        self, stage: str, requests: Mapping[int, Parts], timeout: float
    ) -> Iterator[tuple[int, Parts]]:
        for node, parts in requests.items():
            member = node - node_of(0)
            if self.before is not None:
                self.before(stage, member)
            if node not in self.nodes:
                continue
            frame = wire.frame(*parts)
            answer = wire.parts(self.nodes[node](frame), ANY)
            passing = Passing(stage, member, wire.read_request(frame, ANY), answer)
            self.passed.append(passing)
            arriving = [(node, answer)]
            for fault in self.faults:
                changed = fault(passing)
                arriving = arriving if changed is None else changed
            yield from arriving


def losing(lost: Callable[[int], Mapping[str, Collection[int]]]) -> Fault:
    """Answers of members that have left by a stage do not arrive; round -> stage -> who leaves."""

    def fault(passing: Passing) -> list[tuple[int, Parts]] | None:
        if passing.stage not in STAGES:
            return None
        gone = lost(passing.round_index)
        so_far = STAGES[: STAGES.index(passing.stage) + 1]
        left = {member for stage in so_far for member in gone.get(stage, ())}
        return [] if passing.member in left else None

    return fault


def charges(world: World, member: int) -> list[tuple[int, int]]:
    """What the member's own ledger holds."""
    return world.journals[member].charges()


def server_charges(world: World) -> dict[int, list[tuple[int, int]]]:
    """What the server's ledger holds, by member."""
    with contextlib.closing(sqlite3.connect(world.folder / "run" / "run.sqlite")) as db:
        rows = db.execute("select client, round, attempt from client_charges order by 1, 2, 3")
        found: dict[int, list[tuple[int, int]]] = {member: [] for member in world.members}
        for member, index, attempt in rows:
            found[member].append((index, attempt))
    return found


def releases(world: World) -> dict[tuple[int, int], tuple[int, ...]]:
    """(round, attempt) -> survivors, of the server's ledger."""
    with contextlib.closing(sqlite3.connect(world.folder / "run" / "run.sqlite")) as db:
        rows = db.execute("select round, attempt, survivors from releases").fetchall()
    return {(index, attempt): tuple(json.loads(survivors)) for index, attempt, survivors in rows}


def contents(world: World, member: int) -> list[str]:
    """Everything in a member's journal."""
    return list(world.journals[member]._db.iterdump())


def in_process(plan: fl.Plan, model: fl.Model, data: fl.FederatedDataset) -> bytes:
    """The model that one process trains."""
    return helpers.params_bytes(fl.train(plan, model, data).params)


def refusals(caplog: pytest.LogCaptureFixture) -> str:
    """What the log warns of."""
    return "\n".join(r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING)


class KilledError(Exception):
    pass


def kill_at(world: World, round_index: int, stage: str, *, before: bool) -> None:
    """The server ends at a stage: before it asks the last member, or once that has answered."""

    def fault(passing: Passing) -> None:
        if (passing.round_index, passing.stage, passing.member) == (round_index, stage, 4):
            raise KilledError

    def kill(asked: str, member: int) -> None:
        rounds = sum(p.stage == "unmask" and p.member == 4 for p in world.passed)
        if (rounds, asked, member) == (round_index, stage, 4):
            raise KilledError

    if before:
        world.before = kill
    else:
        world.faults = [fault]
