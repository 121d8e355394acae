"""Writes special.json: special functions by arbitrary-precision arithmetic (mpmath).

    python tests/dp/vectors/generate_special.py

Needs mpmath; imports nothing of `dp`. Every argument is a double, used exactly; every value has 25
digits. The points are dense near zeros of the functions and where an implementation changes its
method, and reach the ends of the ranges. Running this again writes the same file.
"""

import json
import math
import pathlib
import random
from collections.abc import Callable, Iterable

import mpmath
from mpmath import mpf

HERE = pathlib.Path(__file__).parent
RNG = random.Random(31)
mpmath.mp.dps = 60

Row = list[float | str]
WIDE = 400  # digits: log Phi(37) is about -1e-300


def uniform(count: int, low: float, high: float) -> list[float]:
    return [RNG.uniform(low, high) for _ in range(count)]


def powers(count: int, low: float, high: float) -> list[float]:
    """Values 10^u, u uniform."""
    return [10.0**u for u in uniform(count, low, high)]


def around(*centres: float) -> list[float]:
    """Points at distances 2^-50 .. 1/4 of each centre, and its neighbouring doubles."""
    steps = [2.0**-k for k in range(2, 51, 4)]
    near = [c + sign * step for c in centres for step in steps for sign in (-1.0, 1.0)]
    return near + [math.nextafter(c, side) for c in centres for side in (-math.inf, math.inf)]


def rows(function: Callable[..., mpf], points: Iterable[tuple[float, ...]]) -> list[Row]:
    return [[*point, mpmath.nstr(function(*map(mpf, point)), 25)] for point in points]


def single(function: Callable[[mpf], mpf], points: Iterable[float]) -> list[Row]:
    return rows(function, [(x,) for x in points])


def erfcx(x: mpf) -> mpf:
    return mpmath.exp(x * x) * mpmath.erfc(x)


def ndtr(z: mpf) -> mpf:
    return mpmath.erfc(-z / mpmath.sqrt(2)) / 2


def log_ndtr(z: mpf) -> mpf:
    if z <= 0:
        return mpmath.log(ndtr(z))
    with mpmath.workdps(WIDE):
        return mpmath.log1p(-ndtr(-z))


def ndtri(p: mpf) -> mpf:
    """Quantile: bisection, then Newton's steps on the logarithm."""
    if p > 0.5:
        return -ndtri(1 - p)
    if p == 0.5:
        return mpf(0)
    low, high = -mpmath.sqrt(-2 * mpmath.log(2 * p)) - 1, mpf(0)
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if ndtr(middle) < p else (low, middle)
    x = (low + high) / 2
    for _ in range(5):
        x -= ndtr(x) / mpmath.npdf(x) * mpmath.log(ndtr(x) / p)
    return x


def stirling_error(x: mpf) -> mpf:
    return mpmath.loggamma(x + 1) - (x + 0.5) * mpmath.log(x) + x - mpmath.log(2 * mpmath.pi) / 2


def deviance(x: mpf, mean: mpf) -> mpf:
    return x * mpmath.log(x / mean) + mean - x


def binom_tail(k: mpf, n: mpf, p: mpf) -> mpf:
    """P[Binomial(n, p) >= k], by the sum of the terms above or, near 1, of those below."""
    count, trials, digits = int(k), int(n), mpf(10) ** -45
    if count <= 0 or count > trials:
        return mpf(count <= 0)
    upward = count > n * p
    j = count if upward else count - 1
    term = mpmath.exp(
        mpmath.loggamma(n + 1) - mpmath.loggamma(mpf(j) + 1) - mpmath.loggamma(n - j + 1)
        + j * mpmath.log(p) + (n - j) * mpmath.log1p(-p)
    )  # fmt: skip
    odds, total = p / (1 - p), mpf(0)
    while term > total * digits:
        total += term
        if upward:
            term, j = term * (n - j) / (j + 1) * odds, j + 1
        else:
            term, j = term * j / (n - j + 1) / odds, j - 1
    return total if upward else 1 - total


def binomial_points() -> list[tuple[float, ...]]:
    """Counts from 6 deviations below the mean to 11 above: tails down to about 1e-28."""
    points: set[tuple[float, ...]] = set()
    for n in (1, 2, 7, 60, 1000, 20_000, 1_000_000):
        for p in (1e-7, 1e-4, 0.01, 0.3, 0.5, 0.97):
            spread = math.sqrt(n * p * (1 - p))
            for step in (-6, -3, -1, 0, 0.5, 2, 4, 7, 11):
                k = min(max(round(n * p + step * spread), 0), n + 1)
                points.add((float(k), float(n), p))
    return sorted(points)


def beta_points() -> list[tuple[float, ...]]:
    """Shapes 0.05 .. 300; points within six deviations of the mean, and next to 0 and 1."""
    points: list[tuple[float, ...]] = [
        (a, b, x)
        for a, b in ((1.0, 3.0), (0.05, 0.2), (2.5, 0.01), (0.01, 7.0))
        for x in (1e-13, 1e-3, 0.4999999, 0.5, 0.5000001, 0.999, 1 - 2.0**-52, 1 - 2.0**-53)
    ]
    while len(points) < 150:
        a, b = (10.0 ** RNG.uniform(-1.3, 2.5) for _ in range(2))
        mean = a / (a + b)
        spread = math.sqrt(mean * (1 - mean) / (a + b + 1))
        x = mean + RNG.uniform(-6, 6) * spread
        if 0 < x < 1:
            points.append((a, b, x))
    return points


def bessel_points() -> list[tuple[float, ...]]:
    points: list[tuple[float, ...]] = []
    for x in (1e-9, 1e-4, 0.01, 0.3, 1.0, 1.99, 2.0, 2.01, 7.0, 30.0, 99.9, 1e3, 5e3, 1e5):
        last = int(12 * math.sqrt(x) + 10)
        points += [(float(k), x) for k in (0, 1, 2, 5, last // 3, last // 2, last)]
    return points


def main() -> None:
    zero_to = [*uniform(80, 0, 26), *powers(60, -8, 2.5), *around(1.0, 3.75), 0.0]
    probabilities = [
        *powers(60, -300, -0.4), *uniform(60, 0.2, 0.8), *around(0.5, 0.3), 1e-300,
        *(1 - 2.0**-k for k in range(2, 53, 3)),
    ]  # fmt: skip
    functions = {
        "erfcx": single(erfcx, zero_to + uniform(60, -25, 0)),
        "erfc": single(mpmath.erfc, [*uniform(160, -6, 26), *powers(30, -12, 0), *around(0.0)]),
        "erf_small": single(mpmath.erf, [*uniform(60, -1, 1), *powers(30, -12, -1), 1.0, -1.0]),
        "ndtr": single(ndtr, uniform(200, -37, 8) + around(0.0)),
        "log_ndtr": single(
            log_ndtr,
            [*uniform(240, -40, 37), *(-x for x in powers(40, 0, 6)), *around(0.0)],
        ),
        "ndtri": single(ndtri, [p for p in probabilities if 0 < p < 1]),
        "stirling_error": single(stirling_error, powers(100, -3, 10) + around(10.0, 1.0)),
        "deviance": rows(
            deviance,
            [(x, x * 10.0 ** RNG.uniform(-2, 2)) for x in powers(80, -2, 7)]
            + [(x, x * (1 + e)) for x in powers(20, -2, 7) for e in (1e-9, -1e-4, 0.05, -0.3, 1.0)],
        ),
        "betainc": rows(
            lambda a, b, x: mpmath.betainc(a, b, 0, x, regularized=True), beta_points()
        ),
        "binom_tail": rows(binom_tail, binomial_points()),
        "log_bessel_i": rows(
            lambda k, x: mpmath.log(mpmath.besseli(k, x, maxterms=10**6)), bessel_points()
        ),
    }
    body = ",\n".join(
        f'"{name}": [\n' + ",\n".join(map(json.dumps, table)) + "\n]"
        for name, table in functions.items()
    )
    head = json.dumps({"generator": pathlib.Path(__file__).name, "mpmath": mpmath.__version__})
    text = head[:-1] + ', "functions": {\n' + body + "\n}}\n"
    (HERE / "special.json").write_text(text)


if __name__ == "__main__":
    main()
