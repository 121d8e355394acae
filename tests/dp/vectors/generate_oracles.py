"""Writes oracles.json: epsilon of events by tools that know nothing of this project.

    python tests/dp/vectors/generate_oracles.py

Needs dp-accounting and mpmath, in an environment of their own (`pip install dp-accounting mpmath`);
imports nothing of `dp`. Each row brackets the true epsilon at its delta:

    mpmath          arbitrary precision: closed forms, or sums over all outcomes and, for sampled
                    integer noise, over all pairs of inputs within the bounds; relative width 2e-9
    dp-accounting   its optimistic estimate below, its pessimistic one (connect the dots) above;
                    only up to epsilon 200, as further out (q = 0.544, sigma = 0.373, 884 steps,
                    delta 1e-5) the optimistic one was 1645.108, truly 1644.827 (contour integral)

Settings are drawn from a seed, so that running this again writes the same file, up to the tools'
own rounding. Takes a few minutes.
"""

import functools
import importlib
import itertools
import json
import math
import pathlib
import random
from collections.abc import Callable, Sequence
from importlib import metadata
from typing import Any

import mpmath
import numpy as np
from mpmath import mpf

Law = dict[int, mpf]
Curve = Callable[[mpf], mpf]
Row = dict[str, Any]

HERE = pathlib.Path(__file__).parent
RNG = random.Random(20)
NARROW = mpf(10) ** -9
LARGEST = 200.0  # epsilon of dp-accounting's rows
mpmath.mp.dps = 60


# ---- events, as dp.event_to_dict writes them


def gaussian(sigma: float) -> Row:
    return {"type": "GaussianEvent", "noise_multiplier": sigma}


def laplace(scale: float) -> Row:
    return {"type": "LaplaceEvent", "noise_multiplier": scale}


def integer(kind: str, scale: float, size: int) -> Row:
    name = {"DiscreteGaussianEvent": "sigma", "DiscreteLaplaceEvent": "scale"}.get(kind, "variance")
    return {"type": kind, name: scale, "l2_sq": size * size, "l1": size, "linf": size, "dim": 1}


def poisson(q: float, event: Row) -> Row:
    return {"type": "PoissonSampledEvent", "sampling_prob": q, "event": event} if q < 1 else event


def fixed(population: int, sample: int, event: Row) -> Row:
    return {
        "type": "FixedSizeSampledEvent", "population": population, "sample": sample, "event": event
    }  # fmt: skip


def repeated(event: Row, count: int) -> Row:
    return {"type": "SelfComposedEvent", "event": event, "count": count}


def composed(events: Sequence[Row]) -> Row:
    return {"type": "ComposedEvent", "events": list(events)}


def drawn(low: float, high: float) -> float:
    """Three digits, uniform in the logarithm."""
    return float(f"{math.exp(RNG.uniform(math.log(low), math.log(high))):.3g}")


# ---- arbitrary precision


def epsilon_of(curve: Curve, delta: float) -> mpf:
    """Where the falling curve crosses delta, by bisection to NARROW / 10; 0 if it starts below."""
    target = mpf(delta)
    if curve(mpf(0)) <= target:
        return mpf(0)
    low, high = mpf(0), mpf(1)
    while curve(high) > target:
        low, high = high, 2 * high
    while high - low > NARROW / 10 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if curve(middle) > target else (low, middle)
    return high


def exact_row(event: Row, relation: str, delta: float, curves: Sequence[Curve]) -> Row:
    """The largest of the curves' epsilons; every curve is checked to be below there."""
    epsilons = [epsilon_of(curve, delta) for curve in curves]
    best = max(epsilons)
    return {
        "event": event, "neighboring": relation, "delta": delta, "by": "mpmath",
        "lower": float(best * (1 - NARROW)), "upper": float(best * (1 + NARROW)),
    }  # fmt: skip


def gaussian_curve(mu: mpf) -> Curve:
    """Balle, Wang 2018, Theorem 8."""
    return lambda e: mpmath.ncdf(mu / 2 - e / mu) - mpmath.exp(e) * mpmath.ncdf(-mu / 2 - e / mu)


def laplace_curve(scale: float) -> Curve:
    """One release, up to its pure epsilon 1 / scale."""
    return lambda e: 1 - mpmath.exp((e - 1 / mpf(scale)) / 2)


def sampled_gaussian_curves(q: float, sigma: float) -> list[Curve]:
    """N(0, 1) against (1 - q) N(0, 1) + q N(mu, 1), both ways; the best sets are half-lines."""
    prob, mu = mpf(q), 1 / mpf(sigma)

    def upper(x: mpf) -> mpf:
        return mpmath.ncdf(-x)

    def remove(e: mpf) -> mpf:
        x = mpmath.log((mpmath.exp(e) - 1 + prob) / prob) / mu + mu / 2
        mixed = (1 - prob) * upper(x) + prob * upper(x - mu)
        return mixed - mpmath.exp(e) * upper(x)

    def add(e: mpf) -> mpf:
        inside = (mpmath.exp(-e) - 1 + prob) / prob
        if inside <= 0:
            return mpf(0)
        x = mpmath.log(inside) / mu + mu / 2
        mixed = (1 - prob) * mpmath.ncdf(x) + prob * mpmath.ncdf(x - mu)
        return mpmath.ncdf(x) - mpmath.exp(e) * mixed

    return [remove, add]


def law_of(event: Row) -> Law:
    """Probabilities on -R .. R; what is left out is below 1e-40."""
    kind = event["type"]
    if kind == "DiscreteGaussianEvent":
        sigma = mpf(event["sigma"])
        reach = math.ceil(14 * event["sigma"]) + 8
        raw = [mpmath.exp(-(mpf(k) ** 2) / (2 * sigma**2)) for k in range(reach + 1)]
    elif kind == "DiscreteLaplaceEvent":
        reach = math.ceil(100 * event["scale"]) + 8
        raw = [mpmath.exp(-k / mpf(event["scale"])) for k in range(reach + 1)]
    else:
        mu = mpf(event["variance"])
        reach = math.ceil(16 * math.sqrt(event["variance"])) + 40
        raw = [mpmath.besseli(k, mu) for k in range(reach + 1)]
    total = 2 * sum(raw) - raw[0]
    return {k: raw[abs(k)] / total for k in range(-reach, reach + 1)}


def moved(law: Law, by: int) -> Law:
    return {k + by: mass for k, mass in law.items()}


def mixed(q: mpf, first: Law, second: Law) -> Law:
    """(1 - q) first + q second."""
    keys = first.keys() | second.keys()
    return {k: (1 - q) * first.get(k, mpf(0)) + q * second.get(k, mpf(0)) for k in keys}


def divergence(first: Law, second: Law) -> Curve:
    """Sum of the positive parts of first - e^epsilon second."""
    masses = [(mass, second.get(k, mpf(0))) for k, mass in first.items()]

    def curve(e: mpf) -> mpf:
        scale = mpmath.exp(e)
        return mpmath.fsum(p - scale * r for p, r in masses if p > scale * r)

    return curve


def largest(curves: list[Curve], delta: float) -> list[Curve]:
    """The curve that a coarse look finds largest near delta, and all that come close to it."""
    epsilon = mpf(0)
    for curve in curves:
        if curve(epsilon) > delta:
            epsilon = max(epsilon, epsilon_of(curve, delta))
    at = [curve(epsilon * (1 - NARROW)) for curve in curves]
    return [c for c, value in zip(curves, at, strict=True) if value >= max(at) * (1 - NARROW)]


def integer_curves(event: Row, relation: str) -> list[Curve]:
    """Every pair of inputs within the bounds, both ways; others are 0 under Poisson sampling."""
    sampler = event["type"]
    inner = event.get("event", event)
    law, size = law_of(inner), inner["linf"]
    places = range(-size, size + 1)
    curves = []
    for a, b in itertools.product(places, places):
        if relation != "replace_one" and b != 0 and a != 0:
            continue
        if sampler == "FixedSizeSampledEvent":
            q, others = mpf(event["sample"]) / event["population"], places
        else:
            q, others = mpf(event.get("sampling_prob", 1)), range(1)
        for c in others:
            first = mixed(q, moved(law, c), moved(law, a))
            second = mixed(q, moved(law, c), moved(law, b))
            curves.append(divergence(first, second))
    return curves


def power(masses: Sequence[mpf], count: int) -> list[mpf]:
    """Masses of the sum of `count` independent copies, by binary powers of plain convolutions."""
    result = [mpf(1)]
    square = list(masses)
    while count:
        if count & 1:
            result = convolved(result, square)
        count >>= 1
        if count:
            square = convolved(square, square)
    return result


def convolved(first: Sequence[mpf], second: Sequence[mpf]) -> list[mpf]:
    """Exact integers: one product of two long numbers (Kronecker), rounded to 2^-200."""
    bits, width = 200, 440
    whole = [sum(int(mpmath.floor(m * 2**bits)) << (width * i) for i, m in enumerate(side))
             for side in (first, second)]  # fmt: skip
    product = whole[0] * whole[1]
    raw = product.to_bytes((product.bit_length() + 7) // 8 + width // 8, "little")
    step = width // 8
    count = len(first) + len(second) - 1
    return [
        mpf(int.from_bytes(raw[i * step : (i + 1) * step], "little")) / mpf(2) ** (2 * bits)
        for i in range(count)
    ]


def composed_lattice_curve(event: Row, count: int) -> Curve:
    """Unsampled noise whose loss is a step times an integer: discrete Gaussian and Laplace."""
    law, size = law_of(event), event["linf"]
    if event["type"] == "DiscreteGaussianEvent":
        step = mpf(size) / mpf(event["sigma"]) ** 2
        low = min(law)
        masses = [law[k] for k in sorted(law)]
        # A draw x = size + z has loss step (z + size / 2).
        sums = power(masses, count)
        atoms = [(m, step * (low * count + i + mpf(size * count) / 2)) for i, m in enumerate(sums)]
    else:
        # A draw has loss (|x| - |x - size|) / scale, a step 1 / scale of sizes -size .. size.
        table = dict.fromkeys(range(-size, size + 1), mpf(0))
        for k, mass in moved(law, size).items():
            table[abs(k) - abs(k - size)] += mass
        sums = power([table[k] for k in sorted(table)], count)
        scale = mpf(event["scale"])
        atoms = [(m, (i - size * count) / scale) for i, m in enumerate(sums)]

    def curve(e: mpf) -> mpf:
        return mpmath.fsum(m * (1 - mpmath.exp(e - loss)) for m, loss in atoms if loss > e)

    return curve


def two_skellam_curve(event: Row) -> Curve:
    """Two releases: all pairs of outcomes."""
    law, size = law_of(event), event["linf"]
    losses = [
        (mass, mpmath.log(mass / law[k + size])) for k, mass in law.items() if k + size in law
    ]
    pairs = [(p * r, a + b) for (p, a), (r, b) in itertools.product(losses, losses)]

    def curve(e: mpf) -> mpf:
        return mpmath.fsum(m * (1 - mpmath.exp(e - loss)) for m, loss in pairs if loss > e)

    return curve


def exact_rows() -> list[Row]:
    deltas = (1e-3, 1e-5, 1e-6, 1e-8, 1e-10, 1e-12)
    rows = []
    for _ in range(60):
        sigma, count = drawn(0.2, 100), round(drawn(1, 1e6))
        mu, delta = mpmath.sqrt(count) / mpf(sigma), RNG.choice(deltas)
        relation = RNG.choice(["add_remove", "replace_one", "zero_out"])
        shift = 2 * mu if relation == "replace_one" else mu
        event = repeated(gaussian(sigma), count)
        rows.append(exact_row(event, relation, delta, [gaussian_curve(shift)]))
    for _ in range(20):
        parts = [(drawn(0.2, 100), round(drawn(1, 1e4))) for _ in range(RNG.randint(2, 6))]
        mu = mpmath.sqrt(sum(n / mpf(s) ** 2 for s, n in parts))
        event = composed([repeated(gaussian(s), n) for s, n in parts])
        rows.append(exact_row(event, "add_remove", RNG.choice(deltas), [gaussian_curve(mu)]))
    for _ in range(36):
        q, sigma = drawn(1e-6, 0.99), drawn(0.2, 5)
        event = poisson(q, gaussian(sigma))
        curves = sampled_gaussian_curves(q, sigma)
        rows.append(exact_row(event, "add_remove", RNG.choice(deltas), curves))
    for _ in range(6):
        scale = drawn(0.3, 5)
        rows.append(
            exact_row(laplace(scale), "zero_out", RNG.choice(deltas), [laplace_curve(scale)])
        )
    return rows + exact_integer_rows(deltas)


def exact_integer_rows(deltas: Sequence[float]) -> list[Row]:
    kinds = ("DiscreteGaussianEvent", "DiscreteLaplaceEvent", "SkellamEvent")
    rows = []
    for kind, relation in itertools.product(kinds, ("zero_out", "replace_one")):
        for _ in range(6):
            scale = drawn(0.4, 6) if kind != "SkellamEvent" else drawn(0.3, 30)
            event, delta = integer(kind, scale, RNG.randint(1, 4)), RNG.choice(deltas)
            curves = largest(integer_curves(event, relation), delta)
            rows.append(exact_row(event, relation, delta, curves))
    for kind, relation in itertools.product(kinds[:2], ("zero_out", "replace_one")):
        for _ in range(7):
            inner = integer(kind, drawn(0.4, 4), RNG.randint(1, 3))
            event, delta = poisson(drawn(1e-3, 0.9), inner), RNG.choice(deltas[:4])
            curves = largest(integer_curves(event, relation), delta)
            rows.append(exact_row(event, relation, delta, curves))
    for kind, relation in itertools.product(kinds[:2], ("zero_out", "replace_one")):
        for _ in range(5):
            population = RNG.choice([10, 100, 1000])
            inner = integer(kind, drawn(0.5, 4), RNG.randint(1, 2))
            event = fixed(population, RNG.randint(1, population - 1), inner)
            delta = RNG.choice([d for d in deltas if d < 1 / population])
            curves = largest(integer_curves(event, relation), delta)
            rows.append(exact_row(event, relation, delta, curves))
    for kind in kinds[:2]:
        for _ in range(14):
            event, count = integer(kind, drawn(0.4, 3), RNG.randint(1, 3)), RNG.randint(2, 60)
            curve = composed_lattice_curve(event, count)
            rows.append(exact_row(repeated(event, count), "zero_out", RNG.choice(deltas), [curve]))
    for _ in range(5):
        event = integer("SkellamEvent", drawn(0.3, 4), RNG.randint(1, 2))
        curve = two_skellam_curve(event)
        rows.append(exact_row(repeated(event, 2), "zero_out", RNG.choice(deltas), [curve]))
    return rows


# ---- dp-accounting


def loss_scale(event: Row, relation: str) -> tuple[float, float]:
    """(standard deviation, span) of the loss of one release, roughly: it only places a grid."""
    q = event.get("sampling_prob", 1.0)
    inner = event.get("event", event)
    shift = 2.0 if relation == "replace_one" else 1.0
    if inner["type"] == "GaussianEvent":
        mu = shift / inner["noise_multiplier"]
        x = np.linspace(-9.0, 9.0 + mu, 4001)
        ratio, weight = mu * x - mu * mu / 2, np.exp(-x * x / 2) + q * np.exp(-((x - mu) ** 2) / 2)
    else:
        size = inner.get("linf", 1)
        scale = inner.get("scale", inner.get("sigma", inner.get("noise_multiplier")))
        if inner["type"] == "DiscreteGaussianEvent":
            x = np.arange(-12 * scale, 12 * scale + size)
            ratio, weight = size * (x - size / 2) / scale**2, np.exp(-((x / scale) ** 2) / 2)
        else:
            x = np.linspace(-9 * scale, 9 * scale + size, 4001)
            ratio, weight = (np.abs(x) - np.abs(x - size)) / scale, np.exp(-np.abs(x) / scale)
    loss = np.log1p(q * np.expm1(np.clip(ratio, -30, 30)))
    weight = weight / weight.sum()
    mean = float((weight * loss).sum())
    return math.sqrt(float((weight * (loss - mean) ** 2).sum())), float(np.ptp(loss))


def distribution(event: Row, relation: str, step: float, *, pessimistic: bool) -> Any:
    """dp-accounting's privacy loss distribution of one release."""
    privacy_accountant = importlib.import_module("dp_accounting.privacy_accountant")
    pld = importlib.import_module("dp_accounting.pld.privacy_loss_distribution")

    inner = event.get("event", event)
    given: dict[str, Any] = {
        "sampling_prob": event.get("sampling_prob", 1.0),
        "value_discretization_interval": step,
        "pessimistic_estimate": pessimistic,
        "use_connect_dots": pessimistic,
    }
    if inner["type"] == "GaussianEvent":
        relations = privacy_accountant.NeighboringRelation
        if relation == "replace_one":
            given["neighboring_relation"] = relations.REPLACE_ONE
        return pld.from_gaussian_mechanism(inner["noise_multiplier"], **given)
    if inner["type"] == "LaplaceEvent":
        return pld.from_laplace_mechanism(inner["noise_multiplier"], **given)
    if inner["type"] == "DiscreteGaussianEvent":
        return pld.from_discrete_gaussian_mechanism(inner["sigma"], inner["linf"], **given)
    return pld.from_discrete_laplace_mechanism(1.0 / inner["scale"], inner["linf"], **given)


def bracket(parts: Sequence[tuple[Row, int]], relation: str, delta: float) -> tuple[float, float]:
    scales = [loss_scale(event, relation) for event, _ in parts]
    total = math.sqrt(sum(n * s * s for (_, n), (s, _) in zip(parts, scales, strict=True)))
    releases = sum(n for _, n in parts)
    coarsest = max(max(span for _, span in scales) / 4e5, 20 * total / 1e6)
    ends = []
    for pessimistic in (False, True):
        fine = min(s for s, _ in scales) / 20 if pessimistic else 0.02 * total / releases
        step = max(fine, coarsest)
        whole = None
        for event, count in parts:
            one = distribution(event, relation, step, pessimistic=pessimistic)
            one = one.self_compose(count) if count > 1 else one
            whole = one if whole is None else whole.compose(one)
        assert whole is not None
        ends.append(float(whole.get_epsilon_for_delta(delta)))
    return ends[0], ends[1]


def tool_row(draw: Callable[[], tuple[Sequence[tuple[Row, int]], str, float]]) -> Row:
    """The row of the first draw whose epsilon is at most LARGEST."""
    while True:
        parts, relation, delta = draw()
        low, high = bracket(parts, relation, delta)
        if high <= LARGEST:
            break
    whole = [repeated(event, count) for event, count in parts]
    return {
        "event": composed(whole) if len(whole) > 1 else whole[0],
        "neighboring": relation, "delta": delta, "by": "dp-accounting", "lower": low, "upper": high,
    }  # fmt: skip


def tool_rows() -> list[Row]:
    deltas = (1e-3, 1e-5, 1e-6, 1e-8)
    makers: list[Callable[[], Row]] = [
        lambda: laplace(drawn(0.5, 10)),
        lambda: integer("DiscreteGaussianEvent", drawn(0.5, 8), RNG.randint(1, 3)),
        lambda: integer("DiscreteLaplaceEvent", drawn(0.5, 8), RNG.randint(1, 3)),
    ]

    def single() -> tuple[list[tuple[Row, int]], str, float]:
        event, count = poisson(drawn(1e-5, 0.9), gaussian(drawn(0.3, 20))), round(drawn(2, 1e6))
        return [(event, count)], RNG.choice(["add_remove", "replace_one"]), RNG.choice(deltas)

    def several() -> tuple[list[tuple[Row, int]], str, float]:
        parts = [
            (poisson(RNG.choice([1.0, drawn(1e-3, 0.9)]), gaussian(drawn(0.5, 10))),
             round(drawn(1, 1e3)))
            for _ in range(RNG.randint(2, 5))
        ]  # fmt: skip
        return parts, "add_remove", RNG.choice(deltas)

    def scalar(make: Callable[[], Row]) -> tuple[list[tuple[Row, int]], str, float]:
        event = poisson(RNG.choice([1.0, drawn(1e-2, 0.9)]), make())
        return [(event, round(drawn(1, 1e3)))], "zero_out", RNG.choice(deltas)

    def different() -> tuple[list[tuple[Row, int]], str, float]:
        parts = [(make(), round(drawn(1, 100))) for make in RNG.sample(makers, 2)]
        parts.append((poisson(drawn(0.01, 0.5), gaussian(drawn(0.5, 5))), round(drawn(1, 300))))
        return parts, "zero_out", RNG.choice(deltas)

    rows = [tool_row(single) for _ in range(36)]
    rows += [tool_row(several) for _ in range(24)]
    rows += [tool_row(functools.partial(scalar, make)) for make in makers for _ in range(18)]
    return rows + [tool_row(different) for _ in range(16)]


def main() -> None:
    rows = [*exact_rows(), *tool_rows()]
    lines = ",\n".join(json.dumps(row) for row in rows)
    versions = {name: metadata.version(name) for name in ("dp-accounting", "mpmath")}
    head = json.dumps({"generator": "generate_oracles.py", "versions": versions})[:-1]
    (HERE / "oracles.json").write_text(f'{head}, "rows": [\n{lines}\n]}}\n')


if __name__ == "__main__":
    main()
