"""Organisations and a server in one process, and what may go wrong between them."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
Fault = Callable[[str, int, Parts], list[Parts] | None]


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
        faults: stage -> (stage, node, answer) -> what arrives instead; None leaves it alone.
        sent: (stage, node, request) as they went out.
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
    sent: list[tuple[str, int, Parts]] = field(default_factory=list)

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
            self.sent.append((stage, node, parts))
            if node not in self.nodes:
                continue
            answer = wire.parts(self.nodes[node](wire.frame(*parts)), ANY)
            answers = [answer]
            for change in self.faults:
                changed = change(stage, node, answer)
                answers = answers if changed is None else changed
            yield from ((node, one) for one in answers)


def charges(world: World, member: int) -> list[tuple[int, int]]:
    """What the member's own ledger holds."""
    return world.journals[member].charges()
