"""Degree and threshold: published rows, exact tails by other means, what cannot be had."""

import dataclasses
import itertools
import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

import secureagg
from secureagg import _tails
from secureagg.params import floor_of
from tests.secureagg.helpers import choose


def exact_tail(n, marked, draws, low, high) -> Fraction:
    """Pr[low <= Hyp(n, marked, draws) <= high] in fractions."""
    ways = sum(
        math.comb(marked, i) * math.comb(n - marked, draws - i)
        for i in range(max(low, 0), min(high, draws) + 1)
        if draws - i >= 0
    )
    return Fraction(ways, math.comb(n, draws))


# (corrupt, dropout, server, {n: (degree, threshold)}) at 40 and 20 bits, the golden rows of
# google-parfait/federated-compute, fcp/secagg/server/graph_parameter_finder_test.cc
GOLDEN = [
    (0.45, 0.45, "semi_honest", {100: (92, 46), 1000: (822, 417), 10**4: (3494, 1771),
                                 10**5: (5508, 2788), 10**6: (6240, 3156)}),
    (0.33, 0.33, "semi_honest", {10: (8, 4), 100: (68, 34), 1000: (286, 150), 10**4: (422, 221),
                                 10**5: (480, 251), 10**6: (518, 270)}),
    (0.3, 0.3, "malicious", {100: (92, 62), 1000: (872, 584), 10**4: (4822, 3230),
                             10**5: (9388, 6286), 10**6: (11136, 7454)}),
    (0.05, 0.33, "semi_honest", {10: (4, 2), 100: (28, 6), 1000: (72, 24), 10**4: (86, 29),
                                 10**5: (96, 32), 10**6: (102, 34)}),
    (0.05, 0.33, "malicious", {10: (8, 5), 100: (72, 39), 1000: (398, 223), 10**4: (746, 420),
                               10**5: (882, 496), 10**6: (970, 545)}),
    (0.33, 0.05, "semi_honest", {10: (4, 4), 100: (34, 29), 1000: (78, 60), 10**4: (92, 70),
                                 10**5: (102, 77), 10**6: (110, 83)}),
    (0.33, 0.05, "malicious", {10: (4, 4), 100: (42, 37), 1000: (132, 109), 10**4: (178, 146),
                               10**5: (196, 160), 10**6: (212, 173)}),
    (0.05, 0.05, "semi_honest", {10: (2, 2), 100: (12, 6), 1000: (30, 17), 10**4: (34, 20),
                                 10**5: (36, 21), 10**6: (38, 22)}),
    (0.05, 0.05, "malicious", {10: (2, 2), 100: (16, 11), 1000: (52, 37), 10**4: (62, 44),
                               10**5: (68, 48), 10**6: (74, 52)}),
    (0.33, 0, "semi_honest", {10: (4, 4), 100: (26, 25), 1000: (38, 36), 10**4: (42, 40),
                              10**5: (46, 44), 10**6: (50, 47)}),
    (0.33, 0, "malicious", {10: (4, 4), 100: (26, 26), 1000: (38, 37), 10**4: (42, 41),
                            10**5: (46, 45), 10**6: (50, 49)}),
    (0, 0.33, "semi_honest", {10: (4, 2), 100: (26, 2), 1000: (38, 2), 10**4: (42, 2),
                              10**5: (46, 2), 10**6: (50, 2)}),
    (0, 0.33, "malicious", {10: (8, 5), 100: (68, 35), 1000: (228, 115), 10**4: (326, 164),
                            10**5: (372, 187), 10**6: (410, 206)}),
    (0, 0, "semi_honest", dict.fromkeys([10**i for i in range(1, 7)], (2, 2))),
    (0, 0, "malicious", dict.fromkeys([10**i for i in range(1, 7)], (2, 2))),
]  # fmt: skip


@pytest.mark.parametrize(
    ("corrupt", "dropout", "server", "n", "degree", "threshold"),
    [(*row[:3], n, *pair) for row in GOLDEN for n, pair in row[3].items()],
)
def test_published_rule_reaches_the_published_rows(corrupt, dropout, server, n, degree, threshold):
    found = choose(n, corrupt, dropout, server=server, rule="published", correctness_bits=20)
    assert found.degree == degree
    assert found.threshold <= threshold


@pytest.mark.parametrize(
    ("corrupt", "dropout", "n", "degree", "threshold"),
    [
        (0.05, 0.05, 10**3, 70, 50),
        (0.05, 0.05, 10**4, 82, 58),
        (0.05, 0.05, 10**6, 100, 71),
        (0.05, 0.30, 10**3, 406, 234),
        (0.05, 0.30, 10**4, 680, 389),
        (0.05, 0.30, 10**6, 860, 492),
    ],
)
def test_a_server_that_chooses_who_drops_takes_more_neighbours(
    corrupt, dropout, n, degree, threshold
):
    found = choose(n, corrupt, dropout, server="malicious")
    assert (found.degree, found.threshold) == (degree, threshold)
    assert found.failure.privacy <= 2.0**-40
    assert found.failure.correctness <= 2.0**-30
    published = choose(n, corrupt, dropout, server="malicious", rule="published")
    assert published.degree < degree
    assert published.security_bits < 40
    assert published.failure.divided > 2.0**-40


def test_the_published_rule_can_be_cut_in_two():
    """n = 40, k = 8, t = 6, corrupt 1, 2, 21, 22; the server drops 0, 3, 20, 23 on the ring."""
    n, k, t, corrupt, gone = 40, 8, 6, {1, 2, 21, 22}, {0, 3, 20, 23}
    near = {u: {(u + s) % n for s in range(-k // 2, k // 2 + 1)} - {u} for u in range(n)}
    left = set(range(n)) - gone
    for u in left - corrupt:
        assert len(near[u] & left) >= t
        assert 2 * t > k + len(near[u] & corrupt)
    honest, part = left - corrupt, {4}
    while more := {v for u in part for v in near[u] & honest} - part:
        part |= more
    assert part == set(range(4, 20))
    assert _tails.log_divided(n, 4, k, t) > math.log(2.0**-40)


@pytest.mark.parametrize("rates", [(0.05, 0.1), (0.1, 0.05), (0, 0.2), (0.1, 0.2)])
@pytest.mark.parametrize("n", [40, 61, 97])
def test_malicious_rule_by_exact_enumeration(n, rates):
    c, dropped = (floor_of(rate, n) for rate in rates)
    privacy, correctness = Fraction(1, 2**10), Fraction(1, 2**8)

    def fits(k, t) -> bool:
        window = exact_tail(n, c, k // 2, t - k // 2 - 1, k // 2)
        apart = exact_tail(n, c + dropped, k, k, k)
        pairs = Fraction(n * (n - k - 1), 2)
        return (
            pairs * apart <= privacy
            and pairs * window**2 <= privacy
            and (n + 1) * exact_tail(n, c, k, 2 * t - k, k) <= privacy
            and (n + 1) * exact_tail(n, n - dropped, k, 0, t - 1) <= correctness
        )

    pairs = ((k, t) for k in range(2, n - 1, 2) for t in range(k, 0, -1))
    want = next((pair for pair in pairs if fits(*pair)), (n - 1, n - dropped - 1))
    found = choose(n, *rates, server="malicious", security_bits=8, correctness_bits=8)
    assert (found.degree, found.threshold) == want
    if want[0] < n - 1:
        window = exact_tail(n, c, want[0] // 2, want[1] - want[0] // 2 - 1, want[0] // 2)
        exact = Fraction(n * (n - want[0] - 1), 2) * window**2
        assert found.failure.divided == pytest.approx(float(exact), rel=1e-9, abs=1e-300)


@pytest.mark.parametrize("n", [4, 7, 10])
def test_complete_graph_against_a_malicious_server_by_counting_quorums(n):
    """Two quorums of witnesses meet in an honest one exactly when 2 t > n + c."""
    for c, dropped in itertools.product(range(n - 1), range(n)):
        works = [
            t for t in range(1, n)
            if 2 * t - n > c and t > c and n - dropped - 1 >= t
        ]  # fmt: skip
        rates = {"corrupt": Fraction(c, n), "dropout": Fraction(dropped, n)}
        if not works:
            with pytest.raises(secureagg.ParamsError) as caught:
                choose(n, *rates.values(), server="malicious", graph_seed=None)
            assert caught.value.field in rates
            continue
        large = choose(n, *rates.values(), server="malicious", graph_seed=None)
        small = choose(n, *rates.values(), server="malicious", graph_seed=None, rule="published")
        assert (large.threshold, small.threshold) == (max(works), min(works))
        assert large.failure.privacy == 0.0
        if min(works) > 1:
            with pytest.raises(secureagg.ParamsError, match="threshold"):
                dataclasses.replace(small, threshold=min(works) - 1)


@pytest.mark.parametrize("server", ["semi_honest", "malicious"])
@pytest.mark.parametrize("rates", [(0.33, 0.33), (0.3, 0.32)])
def test_a_million_clients_with_hardly_a_threshold(server, rates):
    """Degrees beyond the exact search: still sound, and infeasible a little further down."""
    found = choose(10**6, *rates, server=server)
    assert found.failure.privacy <= 2.0**-40
    assert found.failure.correctness <= 2.0**-30
    if found.degree > 1 << 15:
        low, high = _tails.threshold_range(
            10**6,
            found.max_corrupt,
            found.max_dropped,
            found.degree // 2 * 2 - found.degree // 100 * 2,
            model=_tails.Model.MALICIOUS,
            log_privacy=-42 * math.log(2),
            log_correctness=-30 * math.log(2),
        )
        assert low > high


def test_published_rule_says_what_it_attains_over_a_run():
    one = choose(1000, 0.05, 0.05, rule="published", correctness_bits=20)
    run = choose(1000, 0.05, 0.05, rule="published", correctness_bits=20, rounds=1000)
    assert (run.degree, run.threshold) == (one.degree, one.threshold)
    assert run.security_bits < 40
    assert run.failure.privacy <= 2.0**-run.security_bits


def test_default_rule_over_a_run():
    found = choose(200, 0.1, 0.1, rounds=20)
    assert (found.degree, found.threshold, found.min_survivors) == (38, 20, 180)
    assert found.failure.privacy <= 2.0**-40
    assert found.failure.correctness <= 2.0**-30
    assert (found.security_bits, found.correctness_bits) == (40, 30)


@pytest.mark.parametrize("n", [40, 60, 97])
@pytest.mark.parametrize("rates", [(0.05, 0.05), (0.1, 0.2), (0.3, 0.3)])
@pytest.mark.parametrize("rounds", [1, 50])
def test_smallest_degree_and_largest_threshold_by_exact_enumeration(n, rates, rounds):
    c, dropped = (floor_of(rate, n) for rate in rates)
    privacy, correctness = Fraction(1, 2**13 * rounds), Fraction(1, 2**10 * rounds)

    def fits(k, t) -> bool:
        apart = Fraction(0)
        if k <= c + dropped:
            apart = Fraction(n * (n - k - 1), 2) * exact_tail(n, c + dropped, k, k, k)
        return (
            apart <= privacy
            and n * exact_tail(n, c, k, t, k) <= privacy
            and n * exact_tail(n, n - dropped, k, 0, t - 1) <= correctness
        )

    pairs = ((k, t) for k in range(2, n - 1, 2) for t in range(k, 0, -1))
    want = next((pair for pair in pairs if fits(*pair)), (n - 1, n - dropped - 1))
    found = choose(n, *rates, rounds=rounds, security_bits=12, correctness_bits=10)
    assert (found.degree, found.threshold) == want


@given(st.integers(5, 60), st.data())
def test_failure_agrees_with_exact_fractions(n, data):
    k = data.draw(st.sampled_from([k for k in range(2, n - 1, 2)]))
    c, dropped = data.draw(st.integers(0, n // 2)), data.draw(st.integers(0, n // 2))
    t = data.draw(st.integers(1, k))
    found = _tails.failure(n, c, dropped, k, t, 3)
    apart = Fraction(0)
    if k <= c + dropped and c + dropped <= n:
        apart = Fraction(n * (n - k - 1), 2) * exact_tail(n, c + dropped, k, k, k)
    want = (
        apart,
        n * exact_tail(n, c, k, t, k),
        n * exact_tail(n, n - dropped, k, 0, t - 1),
    )
    got = (found.disconnected, found.exposed, found.stalled)
    for have, exact in zip(got, want, strict=True):
        assert have == pytest.approx(min(1.0, float(3 * exact)), rel=1e-9, abs=1e-300)


@pytest.mark.parametrize("n", [3, 4, 6])
@pytest.mark.parametrize("corrupt", [0, "1/3", 0.5])
@pytest.mark.parametrize("dropout", [0, "1/3"])
def test_complete_graph_thresholds_by_enumeration(n, corrupt, dropout):
    c, dropped = floor_of(corrupt, n), floor_of(dropout, n)
    if c + dropped + 2 > n:
        with pytest.raises(secureagg.ParamsError):
            choose(n, corrupt, dropout, graph_seed=None)
        return
    # nobody holds its own shares: whoever is left must find t among the others
    works = [
        t
        for t in range(1, n)
        if t > c
        and all(
            sum(v not in gone for v in range(n) if v != u) >= t
            for gone in itertools.combinations(range(n), dropped)
            for u in range(n)
        )
    ]
    large = choose(n, corrupt, dropout, graph_seed=None)
    small = choose(n, corrupt, dropout, graph_seed=None, rule="published")
    assert (large.degree, large.threshold) == (n - 1, max(works))
    assert (small.degree, small.threshold) == (n - 1, min(works))
    assert large.failure == _tails.Failure(0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("n", "corrupt", "dropout", "field"),
    [(10, 0.6, 0.3, "corrupt"), (10, 0.3, 0.6, "dropout"), (1, 0, 0, "num_clients")],
)
@pytest.mark.parametrize("seed", [None, b"seed"])
def test_infeasible_names_the_culprit(n, corrupt, dropout, field, seed):
    with pytest.raises(secureagg.ParamsError) as caught:
        choose(n, corrupt, dropout, graph_seed=seed)
    assert caught.value.field == field
