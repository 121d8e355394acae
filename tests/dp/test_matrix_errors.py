"""Factorizations of the prefix sums: how close to the optimum, and errors against matrices."""

# mypy: allow-untyped-calls

import json
import math
import pathlib

import numpy as np
import pytest

import dp
from dp import matrix
from dp.matrix import _lbfgs, _search, series
from dp.matrix.bandmf import BandedStrategy
from dp.matrix.optimum import square_root


def decoder_of(strategy):
    """B with B C = A, of the least norm."""
    return np.tri(strategy.rounds) @ np.linalg.pinv(strategy.matrix())


def check_errors(strategy, told):
    rows = (decoder_of(strategy) ** 2).sum(axis=1)
    sensitivity = math.sqrt(strategy.sensitivity_sq(told))
    assert strategy.errors(told).max_error == pytest.approx(sensitivity * math.sqrt(rows.max()))
    assert strategy.errors(told).rms_error == pytest.approx(sensitivity * math.sqrt(rows.mean()))


@pytest.mark.parametrize("n", [1, 7, 64])
def test_errors_are_those_of_the_matrices(n):
    told = matrix.single(n)
    for strategy in (
        matrix.banded(told, min(n, 5)),
        matrix.banded(told, min(n, 5), toeplitz=False),
        matrix.blt(told, 3),
    ):
        check_errors(strategy, told)
        product = np.cumsum(np.linalg.inv(strategy.matrix()), axis=0) @ strategy.matrix()
        np.testing.assert_allclose(product, np.tri(n), atol=1e-9)


@pytest.mark.parametrize("n", [1, 5, 8, 21])
def test_tree_errors_are_those_of_its_estimators(n):
    """Each estimator on unit vectors of noise is B; the full one is the pseudo-inverse."""
    told = matrix.single(n)
    nodes = matrix.tree(told).measurements
    for name in ("plain", "honaker"):
        strategy = matrix.tree(told, name)
        scale = 10**9  # so that rounding to integers is out of sight
        units = scale * np.eye(nodes, dtype=np.int64)
        decoder = np.cumsum(strategy.published(units), axis=0) / scale
        np.testing.assert_allclose(decoder @ strategy.matrix(), np.tri(n), atol=1e-8)
        np.testing.assert_allclose((decoder**2).sum(axis=1), strategy.variances, atol=1e-6)
    full = (decoder_of(matrix.tree(told)) ** 2).sum(axis=1)
    found = matrix.tree(told).full_errors(told)
    size = math.sqrt(matrix.tree(told).sensitivity_sq(told))
    assert found.max_error == pytest.approx(math.sqrt(full.max()) * size)
    assert found.rms_error == pytest.approx(math.sqrt(full.mean()) * size)
    plain, below = (matrix.tree(told, name).errors(told) for name in ("plain", "honaker"))
    assert found.rms_error <= below.rms_error <= plain.rms_error


@pytest.mark.parametrize("n", [1, 2, 64, pytest.param(256, marks=pytest.mark.slow)])
def test_the_dense_optimum_is_certified(n):
    """Its strategy attains `upper`, and a dual bound computed apart is `lower`."""
    found = matrix.prefix_optimum(n)
    prefix = np.tri(n)
    norms = np.linalg.norm(found.strategy, axis=0)
    assert norms.max() <= 1.0 + 1e-9
    np.testing.assert_array_equal(found.strategy, np.tril(found.strategy))
    decoder = prefix @ np.linalg.inv(found.strategy)
    attained = math.sqrt(float((decoder**2).sum()) / n)
    assert attained == pytest.approx(found.upper, rel=1e-9)
    # The dual at v = diag of the optimum's root: 2 |D^(1/2) A^T|_* - sum v, by singular values.
    gram = found.strategy.T @ found.strategy
    v = np.diag(np.linalg.solve(gram, prefix.T @ prefix))
    dual = 2.0 * np.linalg.svd(prefix * np.sqrt(v), compute_uv=False).sum() - v.sum()
    assert math.sqrt(dual / n) == pytest.approx(found.lower, rel=1e-4)
    assert found.lower <= found.upper <= found.lower * (1.0 + 1e-6)
    assert matrix.lower_bound(matrix.single(n)) <= found.upper


@pytest.mark.parametrize("n", [64, *(pytest.param(n, marks=pytest.mark.slow) for n in (256, 1024))])
def test_the_optimum_of_one_participation_is_reached(n):
    """BandMF with all bands within 1 %; the best Toeplitz strategies within 4 % of the dense."""
    told, best = matrix.single(n), matrix.prefix_optimum(n)
    reached = matrix.banded(told, n, toeplitz=False).errors(told).rms_error
    assert best.lower * (1.0 - 1e-9) <= reached <= 1.01 * best.lower
    assert matrix.banded(told, n).errors(told).rms_error <= 1.04 * best.lower


def published():
    """Rows of the papers' own optimisers; see vectors/generate_factorizations.py."""
    place = pathlib.Path(__file__).parent / "vectors" / "factorizations.json"
    for row in json.loads(place.read_text())["rows"]:
        seconds = row["rounds"] >= {"banded": 256, "dense": 256, "blt": 1024}.get(
            row["kind"], 10**4
        )
        name = "-".join(str(row[key]) for key in ("kind", "size", "rounds", "most"))
        yield pytest.param(row, marks=[pytest.mark.slow] if seconds else [], id=name)


@pytest.mark.parametrize("row", [*published()])
def test_published_optima_are_reached(row):
    """In each class: all strategies, those of these bands, Toeplitz ones, BLTs of these buffers."""
    told = matrix.min_separation(row["rounds"], row["separation"], row["most"])
    makes = {
        "dense": lambda size: matrix.banded(told, size, toeplitz=False),
        "banded": lambda size: matrix.banded(told, size, toeplitz=False),
        "toeplitz": lambda size: matrix.banded(told, size),
        "blt": lambda size: matrix.blt(told, size),
    }
    least = row["rms_error"] / 1.001  # below it, theirs would be no optimum
    if row["kind"] == "dense":  # it is none for 1,024 rounds; here the optimum itself is known
        least = matrix.prefix_optimum(row["rounds"]).lower * (1.0 - 1e-9)
    reached = makes[row["kind"]](row["size"]).errors(told).rms_error
    assert least <= reached <= 1.001 * row["rms_error"]


@pytest.mark.parametrize(("n", "bands"), [(64, 4), (64, 16), (128, 32)])
def test_banded_strategies_are_the_optimum_of_their_bands(n, bands):
    """tr(W X^-1) is convex in X = C^T C; at a nearly stationary banded X the gap is bounded.

    f(Y) >= f(X) - sum over off-diagonal entries of the bands of |gradient| |Y - X|, and entries
    are at most 1. Rounding to integers costs next to nothing.
    """
    told = matrix.single(n)
    strategy = matrix.banded(told, bands, toeplitz=False)
    rows = _search.general_rows(n, _search.toeplitz_column(told, bands))
    unit = BandedStrategy(told, rows).matrix()  # type: ignore[arg-type]  # not rounded
    np.testing.assert_allclose(np.linalg.norm(unit, axis=0), 1.0)
    gram = unit.T @ unit
    inverse, work = np.linalg.inv(gram), np.tri(n).T @ np.tri(n)
    value = float(np.trace(work @ inverse))
    slope = np.abs(inverse @ work @ inverse)
    distance = np.abs(np.subtract.outer(np.arange(n), np.arange(n)))
    free = (distance > 0) & (distance < bands)
    gap = float((slope * (1.0 + np.abs(gram)))[free].sum())
    assert gap <= 0.01 * value, gap / value
    assert strategy.errors(told).rms_error <= 1.001 * math.sqrt(value / n)


@pytest.mark.parametrize(("b", "k"), [(24, 1), (6, 4), (6, 2)])
def test_toeplitz_strategies_are_the_best_that_another_search_finds(b, k):
    """Steps at random from random points, on errors of matrices, find nothing 0.1 % better."""
    told = matrix.min_separation(24, b, k)
    reached = matrix.banded(told, b).errors(told).rms_error
    rng = np.random.default_rng(5)

    def error(column):
        strategy = series.lower_triangular(column, 24)
        decoder = np.cumsum(np.linalg.inv(strategy), axis=0)
        moved = strategy[:, : b * k : b].sum(axis=1)
        return math.sqrt((decoder**2).sum() / 24 * (moved @ moved))

    best = math.inf
    for _ in range(2):
        column, width = np.append(1.0, rng.uniform(0.1, 0.5, b - 1)), 0.1
        value = error(column)
        for _ in range(2000):
            moved = column + np.append(0.0, width * rng.normal(size=b - 1) / math.sqrt(b))
            there = error(moved)
            width *= 1.5 if there < value else 0.97
            if there < value:
                column, value = moved, there
        best = min(best, value)
    assert best <= 1.02 * reached  # the other search is one
    assert reached <= 1.001 * best


@pytest.mark.parametrize("n", [64, 256, 1024, 4096])
def test_a_few_buffers_are_as_good_as_all_bands(n):
    """McMahan, Xu, Zhang 2024: BLTs essentially equal the best Toeplitz strategy."""
    told = matrix.single(n)
    toeplitz = matrix.banded(told, n).errors(told).rms_error
    assert matrix.blt(told, 4).errors(told).rms_error <= 1.001 * toeplitz
    assert matrix.blt(told, 1).errors(told).rms_error >= matrix.blt(told, 2).errors(told).rms_error


@pytest.mark.parametrize("n", [16, 64, 1024, 4096])
def test_no_strategy_is_below_the_lower_bound_nor_the_square_root_above_its_formula(n):
    for told in (matrix.single(n), matrix.min_separation(n, n // 8), matrix.cyclic(n, n // 4)):
        bound = matrix.lower_bound(told)
        for strategy in (
            matrix.banded(told, 4),
            matrix.banded(told, n // 8),
            matrix.blt(told, 3),
            matrix.tree(told),
        ):
            assert strategy.errors(told).rms_error >= bound
    error = matrix.square_root_max_error(n)
    # Fichtenberger, Henzinger, Upadhyay 2023: between (log n) / pi + 1 and a little above it.
    assert (math.log(n) + 0.57) / math.pi < error < 1.0 + math.log(n) / math.pi + 0.07
    root = series.lower_triangular(square_root(min(n, 64)), min(n, 64))
    np.testing.assert_allclose(root @ root, np.tri(min(n, 64)), atol=1e-12)


def test_correlation_never_loses_to_independent_noise():
    for told in (matrix.single(100), matrix.min_separation(100, 10), matrix.min_separation(50, 1)):
        independent = matrix.banded(told, 1).errors(told)
        assert independent.max_error == pytest.approx(math.sqrt(told.rounds * told.most))
        for bands in (2, 5, 10, 30):
            reached = matrix.banded(told, bands).errors(told).rms_error
            assert reached <= independent.rms_error * (1.0 + 1e-6)


@pytest.mark.parametrize(("b", "k", "bands"), [(5, 1, 7), (3, 4, 7), (12, 1, 12), (4, 2, 3)])
def test_gradients_are_those_of_differences(b, k, bands):
    told = matrix.min_separation(12, b, k)
    column = square_root(bands) * np.linspace(1.0, 0.8, bands)
    columns = np.tile(column, (12, 1)) + 0.01 * np.cos(np.arange(12.0 * bands)).reshape(12, bands)
    general = _search.banded_loss(12, bands)
    for loss, point in (
        (lambda c: _search.toeplitz_loss(c, told), column),
        (lambda c: general(c.reshape(12, bands)), columns.ravel()),
    ):
        slope = loss(point)[1].ravel()
        for i in range(len(point)):
            step = 1e-6 * np.eye(len(point))[i]
            numeric = (loss(point + step)[0] - loss(point - step)[0]) / 2e-6
            assert slope[i] == pytest.approx(numeric, abs=1e-8)


def test_series_are_products_and_inverses_of_matrices():
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=13), np.append(1.0, 0.3 * rng.normal(size=5))
    full_a, full_b = series.lower_triangular(a, 13), series.lower_triangular(b, 13)
    np.testing.assert_allclose(series.multiply(a, b, 13), (full_a @ full_b)[:, 0], atol=1e-12)
    np.testing.assert_allclose(series.transposed(b, a), full_b.T @ a, atol=1e-12)
    np.testing.assert_allclose(series.inverse(b, 13), np.linalg.inv(full_b)[:, 0], atol=1e-9)
    big = np.tril(rng.normal(size=(150, 150))) / 20 + np.eye(150)
    np.testing.assert_allclose(series.triangular_inverse(big), np.linalg.inv(big), atol=1e-9)


def test_the_minimiser_finds_minima_and_respects_forbidden_points():
    def rosenbrock(p):
        x, y = p
        if x > 1.5:
            return math.inf, p
        slope = [-400 * x * (y - x * x) - 2 * (1 - x), 200 * (y - x * x)]
        return 100 * (y - x * x) ** 2 + (1 - x) ** 2, np.array(slope)

    point, value = _lbfgs.minimize(rosenbrock, np.array([-1.2, 1.0]), steps=200)
    np.testing.assert_allclose(point, [1.0, 1.0], atol=1e-4)
    assert value < 1e-9


REFUSED = [
    (lambda: matrix.single(0), "rounds"),
    (lambda: matrix.single(4097), "rounds"),
    (lambda: matrix.min_separation(8, 9), "separation"),
    (lambda: matrix.min_separation(8, 4, 0), "most"),
    (lambda: matrix.Participation(8, 4, 3), "most"),
    (lambda: matrix.Participation(8, 4, 2, fixed=1), "fixed"),  # type: ignore[arg-type]
    (lambda: matrix.single(8).at_most(0), "count"),
    (lambda: matrix.banded(matrix.single(8), 0), "bands"),
    (lambda: matrix.banded(matrix.single(8), 9), "bands"),
    (lambda: matrix.banded(matrix.single(1025), 2, toeplitz=False), "rounds"),
    (lambda: matrix.banded(matrix.min_separation(8, 2), 3, toeplitz=False), "bands"),
    (lambda: matrix.blt(matrix.single(8), 13), "buffers"),
    (lambda: matrix.BltStrategy(matrix.single(8), (0.5,), (0.6, 0.1)), "weights"),
    (lambda: matrix.BltStrategy(matrix.single(8), (0.5, 0.6), (0.6, 0.6)), "weights"),
    (lambda: matrix.BltStrategy(matrix.single(8), (1.0,), (0.6,)), "decays"),
    (lambda: matrix.tree(matrix.single(8), "full"), "estimator"),
    (lambda: matrix.tree(matrix.single(2048)).full_errors(matrix.single(2048)), "rounds"),
    (lambda: matrix.prefix_optimum(1025), "rounds"),
]


@pytest.mark.parametrize(
    ("make", "field"), REFUSED, ids=[f"{k}-{f}" for k, (_, f) in enumerate(REFUSED)]
)
def test_what_cannot_be_made_is_refused(make, field):
    with pytest.raises(dp.ParameterError) as caught:
        make()
    assert caught.value.field == field
