"""What dropouts do to epsilon, and what the growing variance of noise shares tells an outsider.

    python -m benchmarks.dropout_privacy [--what sweep leak] [--trials 2000] [--show]

*sweep*: the preset "digits-demo" (200 clients, 20 rounds, at most a tenth may leave, a tenth may
collude with the server) trained while more and more clients leave at mask_input. Planned, realised
and worst case are the library's own figures against the server. Beside them what the same total
noise gives if it is sized otherwise, by the same accountant, with as many survivors in every round
as the column says: for the fewest survivors whose noise counts (the library), for the fewest
survivors without colluders, and for all clients, which is what a naive implementation does; that
one claims the planned epsilon and releases every round, whoever is gone. "at least" is a certified
lower end ("pld"): where it exceeds the claim, the claim is false. The last line is a server that
calls everybody dropped but its colluders and one client: nothing in the naive version refuses.

*leak*: an outsider sees one noised sum of d = 100,000 coordinates. Noise shares add up, so its
variance grows with the participants, and the sum of squares tells how many there were. The
distinguisher compares it with a threshold that is fixed beforehand from the laws, knows the other
participants' inputs (zero), and sees s of them with or without client u. Noise is that of
`dp.distributed("skellam")`: the sum of k shares of variance v is drawn as one Skellam value of
variance k v, which is the same law. "absent": u's data is in the data set or is not, and u joins
by a secret coin of probability q. "zero-out": u joins alike and contributes its vector or zero.
Bounds are by Clopper and Pearson, each at 95 % for all the rates in it. The textbook says
log(1 + q (e^eps - 1)) at q delta for the eps of one release; the library refuses it for noise
shares, states nothing for "absent", and for "zero-out" sum_j P[j participations] delta_j
(docs/privacy.md, "Limited participation").
"""

import dataclasses
import itertools
import math
import os
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

import dp
import fl
import secureagg
from benchmarks._results import Results, Row
from benchmarks._script import integer_from, options_of
from dp.auditing import binomial_lower
from fl import workers

RATES = (0.0, 0.02, 0.04, 0.06, 0.08, 0.1, 0.12, 0.15, 0.2, 0.3)
ZERO_OUT = dp.NeighboringRelation.ZERO_OUT

DIM, NOISE_MULTIPLIER, DELTA, SIGNIFICANCE = 100_000, 2.0, 1e-5, 0.05
OTHERS, PROBS = (25, 100), (0.01, 0.1)
_NORMAL = statistics.NormalDist()
_THRESHOLDS = np.linspace(-1.0, 4.0, 51)  # standard deviations above the mean without u


def demo(rate: float) -> fl.Job:
    """The preset with clients that leave at a rate; beyond what it allows where that is asked."""
    job = dataclasses.replace(
        fl.PRESETS["digits-demo"], aggregation="ideal", server=None, expected_dropout=None,
        simulate_dropout=f"mask_input:{rate}",
    )  # fmt: skip
    return dataclasses.replace(job, eval_every=job.rounds)


def train(rate: float) -> Row:
    """Trains the preset; returns the library's figures against the server."""
    plan, model, data = demo(rate).build()
    masked = plan.aggregation
    if not isinstance(masked, fl.Ideal):
        raise TypeError("the preset is masked")
    beyond = rate > masked.dropout
    plan = dataclasses.replace(plan, aggregation=dataclasses.replace(masked, beyond=beyond))
    run = fl.train(plan, model, data)
    row = next(row for row in run.privacy.rows if row.adversary == "server")
    figures = {
        name: None if value is None else value.upper
        for name, value in [
            ("planned", row.planned), ("realised", row.realised), ("worst_case", row.worst_case),
        ]
    }  # fmt: skip
    return {**figures, "accuracy": run.metrics["accuracy"], "rounds": plan.rounds}


def sizings(exposure: fl.privacy.Exposure) -> dict[str, int]:
    """By how many clients the noise is divided into shares."""
    bounds = exposure.bounds
    return {
        "honest survivors": bounds.honest_shares,
        "survivors": bounds.min_survivors,
        "all clients": bounds.invited,
    }


def resized(mechanism: dp.DistributedMechanism, shares: int) -> dp.DistributedMechanism:
    """The same total noise, divided into that many shares."""
    variance = mechanism.share_variance * mechanism.shares / shares
    return dataclasses.replace(mechanism, share_variance=variance, shares=shares)


def against_server(resolved: fl.plan.Resolved, sized_for: int, survivors: int) -> dp.Interval:
    """Epsilon of all rounds with that many survivors, some of them colluding."""
    exposure, privacy = resolved.exposure, resolved.plan.privacy
    if not isinstance(privacy, fl.Privacy) or not isinstance(
        exposure.mechanism, dp.DistributedMechanism
    ):
        raise TypeError("the preset has noise shares")
    release = resized(exposure.mechanism, sized_for).event(survivors - exposure.colluders("server"))
    whole = dp.SelfComposedEvent(release, exposure.max_releases)
    return dp.epsilon(whole, privacy.delta, neighboring=ZERO_OUT)


def sweep() -> Iterator[tuple[str, Row]]:
    """One row per dropout rate, and one for a server that lies about it."""
    plan, model, data = demo(0.0).build()
    resolved = fl.resolve(plan, data, model=model)
    bounds = resolved.exposure.bounds
    for rate in RATES:
        survivors = bounds.invited - fl.privacy.floor_fraction(rate, bounds.invited)
        figures = {
            name: dataclasses.asdict(against_server(resolved, shares, survivors))
            for name, shares in sizings(resolved.exposure).items()
        }
        row = {"rate": rate, "survivors": survivors, "sized_for": figures, **train(rate)}
        row["released"] = survivors >= bounds.min_survivors
        yield f"sweep/dropout-{rate:.2f}", row
    alone = resolved.exposure.colluders("server") + 1
    found = against_server(resolved, bounds.invited, alone)
    yield "sweep/lying-server", {"survivors": alone, **dataclasses.asdict(found)}


class Seen(NamedTuple):
    """What the distinguisher computes of releases, in standard deviations without u.

    Attributes:
        size: float64[n], sum of squares: how many took part.
        along: float64[n], along u's vector.
    """

    size: NDArray[np.float64]
    along: NDArray[np.float64]

    def beyond(self, size: float, along: float) -> int:
        """How many releases exceed both thresholds."""
        return int(((self.size > size) & (self.along > along)).sum())


class Releases(NamedTuple):
    """Releases of a round of s others: without u, with u's zero vector, with u's vector."""

    absent: Seen
    zero: Seen
    vector: Seen


def releases(mechanism: dp.DistributedMechanism, others: int, trials: int) -> Releases:
    """Draws `trials` releases of each kind; the last two share their noise."""
    rng, size = secureagg.byte_stream(os.urandom(32)), mechanism.discretizer
    unit = np.zeros(size.dim)
    unit[0] = size.clip_norm
    encoded = size.encode(unit, dp.Rotation.from_seed(size.dim, b"public"), rng)
    direction = encoded / np.linalg.norm(encoded)
    variance = others * mechanism.share_variance
    # The fourth cumulant of a Skellam value is its variance: var(x^2) = 2 v^2 + v.
    spread = math.sqrt(size.dim * (2.0 * variance**2 + variance))

    def seen(release: NDArray[np.int64]) -> tuple[float, float]:
        values = release.astype(np.float64)
        excess = float(values @ values) - size.dim * variance
        return excess / spread, float(values @ direction) / math.sqrt(variance)

    kinds: tuple[list[tuple[float, float]], ...] = ([], [], [])
    for _ in range(trials):
        kinds[0].append(seen(dp.skellam(rng, variance, size.dim)))
        noise = dp.skellam(rng, variance + mechanism.share_variance, size.dim)
        kinds[1].append(seen(noise))
        kinds[2].append(seen(noise + encoded))
    return Releases(*(Seen(*np.array(kind).T) for kind in kinds))


def absent_bound(absent: int, joined: int, trials: int, prob: float) -> float:
    """Epsilon at least, of u in the data or not: of two laws, one a mixture of both strata."""
    part = SIGNIFICANCE / 2
    high = 1.0 - float(binomial_lower(trials - absent, trials, part))
    low = float(binomial_lower(joined, trials, part))
    ratio = 1.0 - prob + (prob * low - DELTA) / high
    return max(0.0, math.log(ratio)) if ratio > 0 else 0.0


def zero_out_bound(absent: int, zero: int, vector: int, trials: int, prob: float) -> float:
    """Epsilon at least, of u's vector or zero; without u both are the same."""
    part = SIGNIFICANCE / 3
    rest, least = (
        1.0 - float(binomial_lower(trials - count, trials, part)) for count in (absent, zero)
    )
    most = float(binomial_lower(vector, trials, part))
    ratio = ((1.0 - prob) * rest + prob * most - DELTA) / ((1.0 - prob) * rest + prob * least)
    return max(0.0, math.log(ratio)) if ratio > 0 else 0.0


class Expected(NamedTuple):
    """Normal laws of what is seen, from which thresholds are chosen before anything is drawn.

    Attributes:
        apart: mean sum of squares with u, in standard deviations without.
        wider: standard deviation of it with u, likewise.
        shift: of u's vector along itself.
    """

    apart: float
    wider: float
    shift: float

    def counts(self, size: float, along: float, trials: int) -> tuple[int, int, int]:
        """Expected counts beyond both thresholds: absent, zero, vector."""
        joined = _NORMAL.cdf((self.apart - size) / self.wider)
        rates = (
            _NORMAL.cdf(-size) * _NORMAL.cdf(-along),
            joined * _NORMAL.cdf(-along),
            joined * _NORMAL.cdf(self.shift - along),
        )
        found = [round(trials * rate) for rate in rates]
        return found[0], found[1], found[2]


def expected(mechanism: dp.DistributedMechanism, others: int) -> Expected:
    """The laws for a round of `others`, by the central limit over coordinates."""
    size = mechanism.discretizer
    variance = others * mechanism.share_variance
    spread = math.sqrt(size.dim * (2.0 * variance**2 + variance))
    return Expected(
        size.dim * mechanism.share_variance / spread, (others + 1) / others,
        size.clip_norm / size.granularity / math.sqrt(variance),
    )  # fmt: skip


def bounds_of(seen: Releases, laws: Expected, prob: float) -> dict[str, float]:
    """Both relations' lower bounds, each at the thresholds at which it is expected to be best."""
    trials = seen.absent.size.size
    head = max(
        _THRESHOLDS,
        key=lambda t: absent_bound(*laws.counts(t, -math.inf, trials)[:2], trials, prob),
    )
    both = max(
        itertools.product(_THRESHOLDS, _THRESHOLDS),
        key=lambda t: zero_out_bound(*laws.counts(t[0], t[1], trials), trials, prob),
    )
    counts = [kind.beyond(head, -math.inf) for kind in (seen.absent, seen.zero)]
    joint = [kind.beyond(*both) for kind in seen]
    return {
        "absent": absent_bound(counts[0], counts[1], trials, prob),
        "zero-out": zero_out_bound(joint[0], joint[1], joint[2], trials, prob),
    }


def roc(absent: NDArray[np.float64], joined: NDArray[np.float64]) -> list[tuple[float, float]]:
    """(false, true) positive rates of "u took part", at 40 thresholds."""
    places = np.quantile(np.concatenate([absent, joined]), np.linspace(1.0, 0.0, 41))
    return [(float((absent > t).mean()), float((joined > t).mean())) for t in places]


def head_count(seen: Releases, laws: Expected) -> Row:
    """How well the sum of squares tells whether u took part."""
    absent, joined = seen.absent.size, seen.zero.size
    middle = laws.apart / 2.0
    order = np.searchsorted(np.sort(absent), joined)
    return {
        "advantage": float((joined > middle).mean() - (absent > middle).mean()),
        "advantage_predicted": _NORMAL.cdf(middle / laws.wider) - _NORMAL.cdf(-middle),
        "auc": float(order.mean()) / absent.size, "roc": roc(absent, joined),
    }  # fmt: skip


def leak(others: int, trials: int) -> Row:
    """The distinguisher on a round of `others` and u."""
    mechanism = dp.distributed(
        "skellam", dim=DIM, clip_norm=1.0, noise_multiplier=NOISE_MULTIPLIER,
        num_clients=others + 1, shares=others,
    )  # fmt: skip
    seen, laws = releases(mechanism, others, trials), expected(mechanism, others)
    event = mechanism.event(others)
    found = {}
    for prob in PROBS:
        one = dp.epsilon(event, DELTA / prob, neighboring=ZERO_OUT, accountant="rdp").upper
        secret = dp.SecretParticipationEvent(event, 1, prob, 1)
        found[f"{prob:g}"] = {
            "textbook": math.log1p(prob * math.expm1(one)),
            "library": dp.epsilon(secret, DELTA, neighboring=ZERO_OUT, accountant="rdp").upper,
            **bounds_of(seen, laws, prob),
        }
    nats = DIM / 2 * (math.log1p(1.0 / others) - 1.0 / (others + 1))
    return {
        "others": others, "dim": DIM, "trials": trials, "delta": DELTA,
        "noise_multiplier": NOISE_MULTIPLIER, "kl_nats": nats, "by_prob": found,
        **head_count(seen, laws),
    }  # fmt: skip


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def sweep_table(rows: Mapping[str, Row]) -> list[str]:
    """The figures against the server, by dropout rate."""
    names = ("honest survivors", "survivors", "all clients")
    lines = [
        f"{'gone':>6}{'planned':>9}{'realised':>10}{'worst case':>12}{'accuracy, %':>13}"
        "   epsilon at most (at least), noise sized for",
        " " * 53 + "".join(f"{name:>18}" for name in names),
    ]
    for row in (row for key, row in rows.items() if key.startswith("sweep/dropout")):
        shown = [
            f"{row['sized_for'][name]['upper']:.2f} ({row['sized_for'][name]['lower']:.2f})"
            for name in names
        ]
        if not row["released"]:
            shown[0] = shown[1] = "refused"
        lines.append(
            f"{row['rate']:6.0%}{_figure(row['planned']):>9}{_figure(row['realised']):>10}"
            f"{_figure(row['worst_case']):>12}{100 * row['accuracy']:13.1f}   "
            + "".join(f"{text:>18}" for text in shown)
        )
    if lying := rows.get("sweep/lying-server"):
        lines.append(
            f"a server that calls all but {lying['survivors']} dropped, noise sized for all"
            f" clients: {lying['upper']:.1f}, at least {lying['lower']:.1f}"
        )
    return lines


def leak_table(rows: Mapping[str, Row]) -> list[str]:
    """What the distinguisher found, by others and probability."""
    lines = []
    for row in (row for key, row in rows.items() if key.startswith("leak/")):
        lines.append(
            f"\n{row['others']} others, d = {row['dim']:,}, {row['trials']} releases each:"
            f" {row['kl_nats']:.2f} nats; u took part: advantage {row['advantage']:.3f}"
            f" (predicted {row['advantage_predicted']:.3f}), area under the curve {row['auc']:.3f}"
        )
        lines.append(
            f"{'q':>6}{'textbook':>10}{'measured, absent':>18}{'measured, zero-out':>20}"
            f"{'library, zero-out':>19}"
        )
        lines += [
            f"{prob:>6}{found['textbook']:10.3f}{found['absent']:18.3f}{found['zero-out']:20.3f}"
            f"{found['library']:19.3f}"
            for prob, found in row["by_prob"].items()
        ]
    return lines


def table(rows: Mapping[str, Row]) -> str:
    """All that is there."""
    return "\n".join([*sweep_table(rows), *leak_table(rows)])


def main(argv: Sequence[str] | None = None) -> None:
    """Measures what is asked for, or prints what is there."""
    parser = options_of(__doc__)
    parser.add_argument("--what", nargs="+", choices=("sweep", "leak"), default=["sweep", "leak"])
    parser.add_argument(
        "--trials", type=integer_from(1), default=2000, help="releases of each kind"
    )
    given = parser.parse_args(argv)
    results = Results("dropout_privacy")
    if not given.show:
        workers.use_one_thread()
        if "sweep" in given.what:
            for key, row in sweep():
                results.add(key, row)
        if "leak" in given.what:
            for others in OTHERS:
                results.add(f"leak/others-{others:03}", leak(others, given.trials))
    print(table(results.rows()))


if __name__ == "__main__":
    main()
