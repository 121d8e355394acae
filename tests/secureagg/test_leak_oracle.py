"""What the server learns is the one agreed sum or nothing: random and small strategies.

test_leak_exhaustive.py tries all strategies to n = 8.
"""

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest

from secureagg import graph
from secureagg.context import Round
from tests.secureagg.leak_oracle import Oracle, round_of


def all_views(n, least) -> list[Any]:
    """Every (shared, survivors) with that many survivors; the others are refused by everybody."""
    found = []
    for size in range(least, n + 1):
        for shared in itertools.combinations(range(n), size):
            for left in range(least, size + 1):
                found += [
                    (frozenset(shared), frozenset(s)) for s in itertools.combinations(shared, left)
                ]
    return found


def only_the_agreed_sum(oracle, views, told) -> int:
    basis, revealed = oracle.learnt(views, told)
    assert len(revealed) <= 1
    if not revealed:
        assert basis == []
        return 0
    ((_, survivors),) = revealed
    assert basis in ([], [oracle.sum_over(survivors)])
    return len(basis)


@pytest.mark.parametrize(("n", "c", "threshold"), [(4, 0, 3), (4, 1, 3), (5, 1, 4), (5, 2, 4)])
def test_every_pair_of_views_in_the_complete_graph(make_params, n, c, threshold):
    """2 t > n + c: whatever two views the server shows to whom."""
    oracle = Oracle(round_of(make_params, n, threshold, c), range(c))
    views, learnt, tried = all_views(n, c + 2), 0, 0
    for pair in itertools.combinations_with_replacement(views, 2):
        sides = (0,) if pair[0] == pair[1] else (0, 1)
        for choice in itertools.product((*sides, None), repeat=n - c):
            if n == 5 and None in choice:
                continue
            learnt += only_the_agreed_sum(
                oracle, pair, dict(zip(oracle.honest, choice, strict=True))
            )
            tried += 1
    assert tried > 50
    assert learnt > 0


@pytest.mark.parametrize(
    ("n", "degree", "threshold", "c"), [(8, 7, 5, 1), (8, 7, 6, 3), (8, 6, 5, 1), (8, 4, 4, 1)]
)
def test_random_views_of_eight_clients(make_params, n, degree, threshold, c):
    """Leaks on the ring happen only where its conditions fail for these very clients."""
    generator = np.random.default_rng(7)
    learnt = excused = 0
    for seed in range(20):
        round_ = round_of(make_params, n, threshold, c, degree=degree, graph_seed=bytes([seed]))
        corrupt = generator.choice(n, c, replace=False).tolist()
        oracle = Oracle(round_, corrupt)
        sets = [*oracle.near.values(), oracle.witnesses]
        exposed = any(2 * threshold <= len(s) + len(s & oracle.corrupt) for s in sets)
        views = all_views(n, c + 2)
        for _ in range(60):
            # mostly everybody: small views are refused, and teach nothing
            pair = [views[-1 - int(generator.exponential(80)) % len(views)] for _ in range(2)]
            split = generator.choice([0.0, 0.1, 0.3])
            told = {i: int(generator.random() < split) for i in oracle.honest}
            try:
                learnt += only_the_agreed_sum(oracle, pair, told)
            except AssertionError:
                assert exposed or divided(oracle, pair[0]) or divided(oracle, pair[1])
                excused += 1
    assert learnt > 10
    assert excused < 20 * 60 / 4
    assert degree < n - 1 or excused == 0


def divided(oracle, view) -> bool:
    """Whether the honest survivors fall into parts (the events that conditions bound)."""
    _, survivors = view
    honest = set(survivors) & set(oracle.honest)
    part = set(list(honest)[:1])
    while more := {j for i in part for j in oracle.near[i] & honest} - part:
        part |= more
    return part != honest


def ring_of_forty(make_params, threshold, c=4, **changes) -> Round:
    """The ring in the order of its ids, so that windows can be named."""
    round_ = round_of(make_params, 40, threshold, c, degree=8, **changes)
    order = np.arange(40)
    ring = graph.Graph(40, 8, order, order, round_.graph.witnesses)
    return dataclasses.replace(round_, graph=ring, witnesses=tuple(range(5, 13)))


def test_a_ring_that_the_server_divides_by_its_choice_of_dropouts(make_params):
    """One consistent view, 2 t > k + c_u for everybody, and still two sums."""
    oracle = Oracle(ring_of_forty(make_params, 6), [1, 2, 21, 22])
    everybody = frozenset(range(40))
    view = (everybody, everybody - {0, 3, 20, 23})
    assert all(8 + len(oracle.near[i] & oracle.corrupt) < 2 * 6 for i in oracle.honest)
    basis, revealed = oracle.learnt([view], dict.fromkeys(oracle.honest, 0))
    assert revealed == {view}
    arcs = [oracle.sum_over(range(4, 20)), oracle.sum_over(range(24, 40))]
    assert sorted(basis) == sorted(arcs)
    assert divided(oracle, view)
    assert oracle.round.params.failure.divided > 2.0**-40


def test_without_a_quorum_every_client_is_told_of_its_own_dropouts_alone(make_params):
    """What the witnesses are for: each client is promised 38 survivors, and the sum is over 30.

    Nobody is corrupt. Every fourth client of the ring is declared dropped, but only to its
    neighbours, who hold its shares.
    """
    round_ = ring_of_forty(make_params, 6, c=0, min_survivors=38)
    everybody = frozenset(range(40))
    views = [(everybody, everybody - {4 * j, (4 * j + 4) % 40}) for j in range(10)]
    told = {i: i // 4 for i in range(40)}  # the dropped ones mask, and refuse to have dropped
    trusting = Oracle(round_, [], quorum=False)
    leaks, revealed = trusting.learnt(views, told)
    assert len(revealed) == 10
    assert leaks == [trusting.sum_over([i for i in range(40) if i % 4])]
    learnt, revealed = Oracle(round_, []).learnt(views, told)
    assert (learnt, revealed) == ([], set())
