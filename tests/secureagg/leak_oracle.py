"""A linear oracle: masks are formal variables, and what the server learns is linear algebra.

The server shows each honest client a view (who shared, who survived), sees every masked vector, and
gets what the clients' own checks let it have. Masks that it cannot compute are unknowns; the
combinations of masked vectors in which they cancel are what it learns about the inputs.
"""

from types import SimpleNamespace
from typing import Any

import numpy as np

import secureagg
from secureagg import client
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
            self.masked[i, shared] = passes(client.check_shared, state, inbound)
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
