"""Cohorts: who takes part, and the bound on participations that noise is sized for."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl import cohort


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 40), st.integers(0, 2**63 - 1))
def test_no_client_exceeds_the_promised_participations(
    num_clients: int, size: int, rounds: int, seed: int
) -> None:
    schedule = cohort.cyclic(min(size, num_clients))
    counts = np.zeros(num_clients, dtype=int)
    for t in range(rounds):
        members = schedule.members(t, num_clients, seed)
        assert len(members) == schedule.count(num_clients) == len(set(members.tolist()))
        assert (np.diff(members) > 0).all()
        counts[members] += 1
    assert counts.max() == schedule.max_participations(rounds, num_clients)
    assert counts.max() - counts.min() <= 1


def test_full_invites_everybody() -> None:
    assert cohort.full().members(3, 5, 0).tolist() == [0, 1, 2, 3, 4]
    assert cohort.full().max_participations(7, 5) == 7


def test_cyclic_order_depends_on_the_seed_alone() -> None:
    first = [cohort.cyclic(4).members(t, 20, 1).tolist() for t in range(5)]
    again = [cohort.cyclic(4).members(t, 20, 1).tolist() for t in range(5)]
    other = [cohort.cyclic(4).members(t, 20, 2).tolist() for t in range(5)]
    assert first == again != other
    assert sorted(np.concatenate(first).tolist()) == list(range(20))


@pytest.mark.parametrize("size", [0, -1, 6])
def test_sizes_outside_the_population_are_faults(size: int) -> None:
    (line,) = cohort.cyclic(size).faults(5, 1)
    assert line == f"cohort: got {size}; takes an integer, 1 to 5"
    assert not cohort.cyclic(5).faults(5, 1)
