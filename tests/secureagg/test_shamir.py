import hashlib
import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secureagg import shamir

P = 2**31 - 1


def source(seed: int):
    state = hashlib.shake_256(str(seed).encode())
    pool, used = state.digest(1 << 18), 0

    def rand(size: int) -> bytes:
        nonlocal used
        used += size
        return pool[used - size : used]

    return rand


def interpolate_at_zero(xs: list[int], ys: list[int]) -> int:
    """Lagrange in Python integers, independent of the code under test."""
    total = 0
    for i, x in enumerate(xs):
        numerator = denominator = 1
        for j, other in enumerate(xs):
            if j != i:
                numerator = numerator * -other % P
                denominator = denominator * (x - other) % P
        total += ys[i] * numerator * pow(denominator, -1, P)
    return total % P


def secret_of(limbs: list[int]) -> bytes:
    return sum(v << (30 * i) for i, v in enumerate(limbs)).to_bytes(32, "little")


secrets = st.binary(min_size=32, max_size=32)


@settings(max_examples=60)
@given(st.data())
def test_any_threshold_shares_rebuild_by_an_independent_evaluator(data):
    k = data.draw(st.integers(1, 12))
    t = data.draw(st.integers(1, k))
    xs = data.draw(st.lists(st.integers(1, 1 << 30), min_size=k, max_size=k, unique=True))
    pair = data.draw(st.tuples(secrets, secrets))
    shares = shamir.split(pair, np.array(xs), t, source(data.draw(st.integers(0, 99))))
    chosen = data.draw(st.permutations(range(k)))[:t]
    for s, secret in enumerate(pair):
        points = [xs[i] for i in chosen]
        limbs = [
            interpolate_at_zero(points, [int(shares[s, i, limb]) for i in chosen])
            for limb in range(9)
        ]
        assert secret_of(limbs) == secret
        assert shamir.combine(np.array([points]), shares[s][chosen][None]) == (secret,)


@settings(max_examples=20)
@given(secrets, secrets, st.integers(2, 6))
def test_threshold_less_one_shares_fit_every_secret(secret, other, t):
    xs = list(range(1, t))
    shares = shamir.split((secret,), np.array([*xs, t]), t, source(0))[0]
    number = int.from_bytes(other, "little")
    for limb in range(9):
        wanted = number >> (30 * limb) & (2**30 - 1)
        # the polynomial through 0 and the t - 1 shares exists: some last share completes it
        points = [0, *xs]
        values = [wanted, *(int(v) for v in shares[: t - 1, limb])]
        last = 0
        for i, x in enumerate(points):
            term = values[i]
            for j, y in enumerate(points):
                if j != i:
                    term = term * (t - y) * pow(x - y, -1, P) % P
            last += term
        ys = [*values[1:], last % P]
        assert interpolate_at_zero([*xs, t], ys) == wanted


def test_rows_with_different_holders_rebuild_together():
    pair = (bytes(range(32)), b"\xff" * 32)
    shares = shamir.split(pair, np.arange(1, 8), 3, source(1))
    rows = np.array([[1, 2, 3], [7, 2, 5], [1, 2, 3], [4, 5, 6]])
    which = [0, 1, 1, 0]
    stacked = np.stack([shares[s][row - 1] for s, row in zip(which, rows, strict=True)])
    assert shamir.combine(rows, stacked) == tuple(pair[s] for s in which)


def test_shares_outside_the_secrets_range_give_none():
    low = np.zeros((1, 1, 9), dtype=np.uint32)
    low[0, 0, 3] = 1 << 30  # a limb of 31 bits
    assert shamir.combine(np.array([[5]]), low) == (None,)
    high = np.zeros((1, 1, 9), dtype=np.uint32)
    high[0, 0, 8] = 1 << 16  # bit 256
    assert shamir.combine(np.array([[5]]), high) == (None,)


def test_coefficients_are_drawn_by_rejection():
    prime, one = (P).to_bytes(4, "little"), (1).to_bytes(4, "little")
    draws = iter([prime + b"\xff" * 4 + one * 7, one + prime, one])
    shares = shamir.split((bytes(32),), np.array([1, 2]), 2, lambda size: next(draws))
    # every coefficient is 1 after the redraws, and the secret is 0: the shares are x
    assert shares[0, 0].tolist() == [1] * 9
    assert shares[0, 1].tolist() == [2] * 9


def test_largest_field_elements_do_not_overflow():
    top = (P - 1).to_bytes(4, "little")
    xs = [1, 2**30 - 1, 2**30]
    shares = shamir.split((b"\xff" * 32,), np.array(xs), 3, lambda size: top * (size // 4))
    for i, x in enumerate(xs):
        for limb in range(9):
            constant = 2**30 - 1 if limb < 8 else 2**16 - 1
            assert int(shares[0, i, limb]) == (constant - x - x * x) % P


def test_threshold_one_gives_everybody_the_secret():
    shares = shamir.split((b"\x07" * 32,), np.array([4, 9]), 1, source(0))
    assert shamir.combine(np.array([[9]]), shares[0, 1:][None]) == (b"\x07" * 32,)


@pytest.mark.parametrize("fewer", [1, 2])
def test_fewer_shares_do_not_rebuild(fewer):
    shares = shamir.split((bytes(range(32)),), np.arange(1, 6), 4, source(3))[0]
    xs = np.arange(1, 5 - fewer)
    assert shamir.combine(xs[None], shares[: len(xs)][None]) != (bytes(range(32)),)


@settings(max_examples=60)
@given(st.data())
def test_surplus_shares_of_rows_that_lack_different_points(data):
    """Rows over few common points and rows over many: one polynomial each, or not."""
    t = data.draw(st.integers(1, 5))
    m = data.draw(st.integers(t + 1, 8))
    spread = data.draw(st.integers(m, 3 * m))
    points = data.draw(
        st.lists(st.integers(1, 1 << 30), min_size=spread, max_size=spread, unique=True)
    )
    rows = [
        sorted(data.draw(st.permutations(points))[:m]) for _ in range(data.draw(st.integers(1, 4)))
    ]
    shares = np.stack(
        [
            shamir.split((bytes([g]) * 32,), np.array(row), t, source(g))[0]
            for g, row in enumerate(rows)
        ]
    )
    xs = np.array(rows)
    assert shamir.consistent(xs, shares, t, source(99)).all()
    assert shamir.combine(xs[:, :t], shares[:, :t]) == tuple(
        bytes([g]) * 32 for g in range(len(rows))
    )
    wrong = data.draw(st.integers(0, len(rows) - 1))
    at, limb = data.draw(st.integers(0, m - 1)), data.draw(st.integers(0, 8))
    shares[wrong, at, limb] = (int(shares[wrong, at, limb]) + 1) % P
    # passes for one wrong row in 2^31
    fine = shamir.consistent(xs, shares, t, source(98))
    assert fine.tolist() == [g != wrong for g in range(len(rows))]


def wrong_at(shares: Any, at: Any, generator: np.random.Generator) -> Any:
    """The shares with other values in all limbs at some holders."""
    other = shares.copy()
    shift = generator.integers(1, P, (len(at), 9), dtype=np.uint64)
    other[at] = (shares[at] + shift) % np.uint64(P)
    return other


def dealt(m: int, t: int, seed: int, spread: int = 1) -> tuple[Any, Any, bytes]:
    """(points, shares, secret) of m holders out of spread * m."""
    generator = np.random.default_rng(seed)
    xs = np.sort(generator.choice(spread * m, m, replace=False)) + 1
    secret = generator.bytes(32)
    return xs, shamir.split((secret,), xs, t, source(seed))[0], secret


@settings(max_examples=80)
@given(st.integers(2, 40), st.data())
def test_as_many_wrong_shares_as_can_be_decoded_anywhere(m, data):
    t = data.draw(st.integers(1, m - 1))
    wrong = data.draw(st.integers(1, max(1, (m - t) // 2)))
    seed = data.draw(st.integers(0, 10**6))
    xs, shares, secret = dealt(m, t, seed, data.draw(st.integers(1, 3)))
    generator = np.random.default_rng(seed + 1)
    at = generator.choice(m, wrong, replace=False)
    found = list(shamir.candidates(xs, wrong_at(shares, at, generator), t))
    assert secret in found
    assert len(found) <= 1 + shamir.WINDOWS + (t + 2) * (t + 1) // 2


@pytest.mark.parametrize(("m", "t"), [(12, 6), (15, 5), (300, 200)])
def test_wrong_shares_in_every_run_of_holders_are_decoded(m, t):
    """Spaced so that no run of t holders is free of them: only decoding helps."""
    xs, shares, secret = dealt(m, t, m)
    at = np.arange(0, m, 6 if m == 300 else t - 2)
    assert len(at) <= (m - t) // 2
    assert secret in list(shamir.candidates(xs, wrong_at(shares, at, np.random.default_rng(0)), t))


def test_limbs_wrong_at_different_holders_are_decoded():
    xs, shares, secret = dealt(12, 6, 4)
    for limb in range(9):
        for j in range(3):
            shares[(limb + 4 * j) % 12, limb] ^= 1
    assert secret in list(shamir.candidates(xs, shares, 6))


@pytest.mark.parametrize("m", [16, 100])
def test_a_run_of_wrong_shares_is_left_out_beyond_what_decodes(m):
    xs, shares, secret = dealt(m, 8, m)
    for first in range(m):
        at = (first + np.arange(m - 8 - (m > shamir.WINDOWS))) % m
        other = wrong_at(shares, at, np.random.default_rng(first))
        assert secret in list(shamir.candidates(xs, other, 8))


@pytest.mark.parametrize(("surplus", "wrong"), [(1, 1), (2, 2), (3, 2)])
def test_one_or_two_wrong_shares_are_left_out_wherever_they_are(surplus, wrong):
    m = 6 + surplus
    xs, shares, secret = dealt(m, 6, surplus)
    for at in itertools.combinations(range(m), wrong):
        other = wrong_at(shares, list(at), np.random.default_rng(0))
        assert secret in list(shamir.candidates(xs, other, 6))


def test_no_share_to_spare_leaves_nothing_to_try():
    xs, shares, _ = dealt(5, 5, 0)
    assert list(shamir.candidates(xs, shares, 5)) == []
