"""What every party of a deployment derives from its own plan and roster, never from the wire."""

from collections.abc import Mapping
from dataclasses import dataclass

import jax

from fl import secure
from fl.aggregate import Secure
from fl.encoding import Encoding
from fl.errors import PlanError, fault
from fl.plan import Plan, Resolved
from fl.prepare import Prepared
from fl.streams import invited
from fl.types import PyTree

# What a run across organisations takes; plan files say the same of their strings.
GRAPHS = "complete, or a seed that nobody could foresee at roster time"
COHORTS = "a cohort that every member computes itself: full, cyclic, fixed, separated"
CLIENT_METRICS = "False: figures do not leave a member"


@dataclass(frozen=True)
class Terms:
    """A plan that is bound to a session and a roster.

    Attributes:
        session: 32 bytes that stand for run, plan and members.
        resolved: the plan with everything derived; its parameters are of no session.
        params: of the protocol, bound to the session, for round 0, attempt 0.
        encoding: what travels.
        roster: member -> identity key, of all members.
        broadcast: shapes and dtypes of what the server sends.
    """

    session: bytes
    resolved: Resolved
    params: secure.Params
    encoding: Encoding
    roster: Mapping[int, bytes]
    broadcast: PyTree

    @property
    def plan(self) -> Plan:
        """The plan."""
        return self.resolved.plan

    @property
    def keeps_state(self) -> bool:
        """Whether the algorithm has clients keep something between rounds."""
        return self.plan.algorithm.client_state is not None

    def members(self, round_index: int) -> list[int]:
        """Returns who takes part in a round, ascending, as everybody computes it."""
        return invited(self.resolved, len(self.roster), round_index)

    def params_of(self, round_index: int, attempt: int) -> secure.Params:
        """Returns the protocol's parameters of one attempt."""
        return secure.round_params(self.params, round_index, attempt)

    def roster_of(self, members: list[int]) -> dict[int, bytes]:
        """Returns the roster of a round: without keys where the server is trusted to be one."""
        signed = self.params.server == "malicious"
        return {member: self.roster[member] if signed else b"" for member in members}


def terms_of(
    ready: Prepared,
    session: bytes,
    roster: Mapping[int, bytes],
    graph_seed: bytes | None = None,
) -> Terms:
    """Binds a prepared plan to a session.

    Args:
        ready: the plan.
        session: 32 bytes, of this run alone; who holds another plan holds another session.
        roster: member -> identity key; every member has signed it together with the session.
        graph_seed: of a sparse graph, 32 bytes: `fl.engines.roster.Roster.graph_seed`.

    Raises:
        PlanError: the plan cannot be run across organisations.
    """
    resolved = ready.resolved
    found, encoding = faults(resolved.plan, graph_seed), resolved.encoding
    if found or resolved.params is None or encoding is None:
        raise PlanError(found)
    params = secure.bind(resolved.params, session + (graph_seed or b""))
    broadcast = jax.eval_shape(resolved.plan.algorithm.broadcast, ready.state)
    return Terms(session, resolved, params, encoding, dict(roster), broadcast)


def faults(plan: Plan, graph_seed: bytes | None = None) -> tuple[str, ...]:
    """Returns what keeps a plan from being run across organisations, with or without a seed."""
    found, masked = [], plan.aggregation
    if not isinstance(masked, Secure):
        return (fault("aggregation", type(masked).__name__, "Secure"),)
    if masked.graph != "complete" and graph_seed is None:
        found.append(fault("graph", masked.graph, GRAPHS))
    if masked.simulate_dropout:
        found.append(fault("simulate_dropout", dict(masked.simulate_dropout), "nothing"))
    if plan.cohort.secret:
        found.append(fault("cohort", str(plan.cohort), COHORTS))
    if plan.client_metrics:
        found.append(fault("client_metrics", True, CLIENT_METRICS))
    return tuple(found)
