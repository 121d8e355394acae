"""A linear oracle: masks are formal variables, and what the server learns is linear algebra.

The server shows each honest client one of two views (who shared, who survived), sees every masked
vector, and gets what the clients' own checks let it have. Masks that it cannot compute are
unknowns; the combinations of masked vectors in which they cancel are what it learns about the
inputs. That must be the one sum that the witnesses agreed on, or nothing.
"""

import dataclasses
import itertools
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import secureagg
from secureagg import client, graph
from secureagg.context import Round, open_round
from secureagg.messages import Status

P = 2**31 - 1


class Oracle:
    """One round's parties; `learnt` plays one strategy of the server."""

    def __init__(self, round_: Round, corrupt, *, quorum=True) -> None:
        self.round, self.corrupt, self.quorum = round_, frozenset(corrupt), quorum
        self.honest = [i for i in round_.ids if i not in self.corrupt]
        self.near = {i: set(round_.mask_neighbours(i)) for i in round_.ids}
        self.witnesses = set(round_.witnesses)
        self.masked: dict[Any, bool] = {}
        self.accepted: dict[Any, bool] = {}

    def masks(self, i, shared) -> bool:
        """Whether client i sends a masked vector, by its own check."""
        if (i, shared) not in self.masked:
            near = sorted(self.near[i] & shared)
            inbound: Any = SimpleNamespace(
                shared=self.round.flags(shared), boxes=dict.fromkeys(near)
            )
            me = SimpleNamespace(round=self.round, client_id=i)
            state: Any = SimpleNamespace(me=me, bundles=dict.fromkeys(self.near[i]))
            self.masked[i, shared] = passes(client._check_shared, state, inbound)
        return self.masked[i, shared]

    def accepts(self, i, shared, survivors) -> bool:
        """Whether it takes the statuses, having masked with `shared`."""
        key = i, shared, survivors
        if key not in self.accepted:
            here, there = self.round.flags(shared), self.round.flags(survivors)
            statuses = np.where(there, Status.SURVIVOR, np.where(here, Status.SHARED, 0))
            state: Any = SimpleNamespace(round=self.round, client_id=i, shared=here)
            self.accepted[key] = passes(client._check_statuses, state, statuses)
        return self.accepted[key]

    def learnt(self, views, told) -> tuple[list[list[int]], set[Any]]:
        """What the server learns, as combinations of honest inputs; and the views revealed.

        Args:
            views: (shared, survivors) pairs.
            told: index of the view that each honest client is shown, or None: it is left alone.
        """
        masking = {
            i: views[v] for i, v in told.items() if v is not None and self.masks(i, views[v][0])
        }
        holding = {i: view for i, view in masking.items() if self.accepts(i, *view)}
        need = self.round.params.threshold
        revealing = {}
        for i, view in holding.items():
            signed = {j for j, other in holding.items() if other == view} | self.corrupt
            if not self.quorum or len(signed & self.witnesses) >= need:
                revealing[i] = view
        known: dict[str, set[int]] = {"seed": set(self.corrupt), "key": set(self.corrupt)}
        for dealer in self.honest:
            for kind in known:
                have = len(self.near[dealer] & self.corrupt)
                for i in self.near[dealer] & set(revealing):
                    shared, survivors = revealing[i]
                    if dealer in shared:
                        have += (dealer in survivors) == (kind == "seed")
                if have >= need:
                    known[kind].add(dealer)
        return self.combinations(masking, known), set(revealing.values())

    def combinations(self, masking, known) -> list[list[int]]:
        """A basis of the combinations of masked vectors without unknown masks."""
        unknown: dict[Any, int] = {}
        rows = []
        for i, (shared, _) in masking.items():
            row: dict[Any, int] = {("seed", i): 1} if i not in known["seed"] else {}
            for j in self.near[i] & shared:
                if i not in known["key"] and j not in known["key"]:
                    row["key", min(i, j), max(i, j)] = 1 if i < j else -1
            for name in row:
                unknown.setdefault(name, len(unknown))
            rows.append(row)
        matrix = [[0] * len(unknown) for _ in rows]
        for at, row in enumerate(rows):
            for name, sign in row.items():
                matrix[at][unknown[name]] = sign
        basis = left_kernel(matrix)
        at_of = {i: at for at, i in enumerate(masking)}
        return [[v[at_of[i]] if i in at_of else 0 for i in self.honest] for v in basis]

    def sum_over(self, survivors) -> list[int]:
        return [int(i in survivors) for i in self.honest]


def passes(check, *arguments) -> bool:
    try:
        check(*arguments)
    except secureagg.SecureAggError:
        return False
    return True


def left_kernel(matrix) -> list[list[int]]:
    """A basis of {v: v matrix = 0} over GF(2^31 - 1), each vector scaled to start with 1."""
    rows = [[*row, *(int(i == j) for j in range(len(matrix)))] for i, row in enumerate(matrix)]
    width, rank = len(matrix[0]) if matrix else 0, 0
    for column in range(width):
        pivot = next((r for r in range(rank, len(rows)) if rows[r][column] % P), None)
        if pivot is None:
            continue
        rows[rank], rows[pivot] = rows[pivot], rows[rank]
        inverse = pow(rows[rank][column], P - 2, P)
        rows[rank] = [value * inverse % P for value in rows[rank]]
        for r in range(len(rows)):
            if r != rank and rows[r][column] % P:
                factor = rows[r][column]
                pairs = zip(rows[r], rows[rank], strict=True)
                rows[r] = [(a - factor * b) % P for a, b in pairs]
        rank += 1
    kernel = [row[width:] for row in rows[rank:]]
    scaled = []
    for vector in kernel:
        lead = pow(next(value for value in vector if value), P - 2, P)
        scaled.append([value * lead % P for value in vector])
    return scaled


def round_of(make_params, n, threshold, c, **changes) -> Round:
    fields = {"server": "malicious", "corrupt": f"{c}/{n}", "min_survivors": 1, **changes}
    params = make_params(n, threshold=threshold, **fields)
    roster = {i: secureagg.IdentityKey(bytes([i]) * 32).public_key for i in range(n)}
    return open_round(params, roster)


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
