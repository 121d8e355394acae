"""Byte sources of the parties of a round: secret ones, or derived from the run seed."""

from fl import secure
from fl.encoding import Streams
from fl.plan import Plan, Resolved
from fl.types import Purpose, RandomBytes

SERVER = 2**32  # client ids are below, so the server's seeded streams are its own


def streams(plan: Plan, round_index: int, party: int) -> Streams:
    """Returns one party's byte sources for a round: fresh secrets, or derived from the seed.

    Seeded noise does not depend on the attempt, so that a resumed run gives the same model.
    """

    def source(purpose: Purpose) -> RandomBytes:
        if plan.seeded_secrets:
            return secure.seeded_stream(plan.seed, purpose, round_index, party)
        return secure.secret_stream()

    return source


def invited(resolved: Resolved, num_clients: int, round_index: int) -> list[int]:
    """Returns the ids of a round, ascending; drawn anew at every call where cohorts are secret."""
    cohort, plan = resolved.plan.cohort, resolved.plan
    coins = streams(plan, round_index, SERVER)(Purpose.COHORT) if cohort.secret else None
    ids: list[int] = cohort.members(round_index, num_clients, plan.seed, coins).tolist()
    return ids
