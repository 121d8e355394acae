"""A program that asks an organisation's process for anything, by the protocol until it lets go."""

from pathlib import Path
from typing import NamedTuple

import fl
from fl.arrays import tree_bytes
from fl.engines import wire
from fl.engines.client import open_organisation
from fl.engines.terms import Terms, terms_of
from fl.engines.wire import Hello, Reply, Status, Step
from fl.group import alone
from fl.prepare import prepare
from fl.runners import Execution
from fl.secure import ServerSession
from tests.fl import helpers, organisations
from tests.fl.organisations import ANY, FIVE, SESSION, World, contents

PLAN = organisations.shared_plan(
    seeded_secrets=False,
    rounds=4,
    cohort=fl.cohort.cyclic(4),
    aggregation=helpers.secure(graph="complete", corrupt=0.25, dropout=0.0),
)


def terms(plan: fl.Plan = PLAN) -> Terms:
    ready = prepare(plan, helpers.MODEL, FIVE, Execution(), alone())
    keys = {i: organisations.key_of(i).public_key for i in range(5)}
    return terms_of(ready, SESSION, keys)


TERMS = terms()
MODEL = bytes(tree_bytes(TERMS.broadcast))


class Master(NamedTuple):
    """A server that leads members through a round up to a stage, then lets go.

    Attributes:
        world: the members.
        session: of the server, once the last stage was closed.
        outbound: what it would send next.
        place: round and attempt.
    """

    world: World
    session: ServerSession
    outbound: dict[int, bytes]
    place: tuple[int, int]

    @property
    def member(self) -> int:
        return min(self.outbound)

    def step(self, stage: str, message: bytes, broadcast: bytes = b"") -> Step:
        return Step(SESSION, stage, *self.place, message, broadcast)


def ask(world: World, member: int, request: Hello | Step) -> Reply:
    frame = wire.frame(*request.parts())
    return wire.read_reply(*wire.parts(world.members[member].handle(frame), ANY), ANY)


def lead(world: World, until: str, place: tuple[int, int] = (0, 0), of: Terms = TERMS) -> Master:
    """All stages before `until`, by the protocol."""
    members = of.members(place[0])
    session = ServerSession(of.params_of(*place), of.roster_of(members))
    outbound: dict[int, bytes] = dict.fromkeys(members, b"")
    for stage in of.params_of(*place).stages:
        if stage == until:
            break
        broadcast = MODEL if stage == "mask_input" else b""
        for member, message in outbound.items():
            reply = ask(world, member, Step(SESSION, stage, *place, message, broadcast))
            assert reply.status == Status.ANSWER, reply.reason
            session.receive(member, reply.message)
        outbound = session.close_stage()
    return Master(world, session, outbound, place)


def refused(world: World, member: int, request: Hello | Step) -> str:
    before = contents(world, member)
    reply = ask(world, member, request)
    assert reply.status == Status.REFUSED
    assert contents(world, member) == before
    return reply.reason


def finish(master: Master, stage: str) -> None:
    """The rest of the round, by the protocol: nothing that was refused has broken it."""
    outbound = dict(master.outbound)
    while outbound:
        broadcast = MODEL if stage == "mask_input" else b""
        for member, message in outbound.items():
            reply = ask(master.world, member, master.step(stage, message, broadcast))
            assert reply.status == Status.ANSWER, reply.reason
            master.session.receive(member, reply.message)
        outbound = master.session.close_stage()
        stage = master.session.stage or ""
    assert master.session.result.survivors == tuple(TERMS.members(master.place[0]))


def reopened(folder: Path, session: bytes = SESSION) -> None:
    keys = {i: organisations.key_of(i).public_key for i in range(5)}
    open_organisation(
        PLAN, helpers.MODEL, FIVE, session=session, roster=keys, member=0,
        identity=organisations.key_of(0), state=folder / "member0",
    )  # fmt: skip
