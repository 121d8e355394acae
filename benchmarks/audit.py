"""Planted bugs: how often probe and attack find them, and how often they alarm without one.

    python -m benchmarks.audit [--mechanisms NAME ...] [--seeds 60] [--runs 300] [--honest 1000]
        [--attacks 5] [--again | --show]

Every row is a bug in a plan that claims epsilon 1 at delta 1e-3, planted as the tests plant it
(tests/fl/planted.py), at a significance of 0.01 in all of a run. *power*: runs in which the
detector made for that bug alarms, and the least probability of it at a confidence of 95 %
(Clopper, Pearson 1934). *false alarms*: honest runs in which any detector alarms, and the largest
probability at 95 %: of whole runs with all cohorts and with Poisson ones, and, under "noise alone",
of sums with the mechanism's noise and inputs at the very bound of the clip, without a run around
them, which are cheap enough for many. *attack*: runs in which 60 canaries refute some row of the
statement; it is made for leaks, and epsilon 1 hides bugs that are within a factor of it.
A row is written to results/audit.json when it is finished and not run again unless `--again`.
Seeds of one mechanism are not those of another: mechanisms that read the same bytes would err
together.
"""

import functools
import time
from collections import Counter
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

import dp
import fl
from benchmarks._results import Results, Row
from benchmarks._script import integer_from, options_of
from dp.auditing import binomial_lower
from dp.detectors import Detection, dependent_noise
from dp.matrix import CorrelatedMechanism
from fl.audit import Probe, audit, probe
from fl.audit.noise import Independent, Release, probe_correlated, probe_independent
from fl.privacy import CENTRAL, DISTRIBUTED
from fl.types import Mechanism
from tests.fl import planted

MECHANISMS = (*DISTRIBUTED, *CENTRAL)
ALONE = "none, noise alone"
HONEST = ("none", "none, Poisson", ALONE)
_ROUNDS, _CLIENTS, _DIM = 4, 80, 130  # of `planted.plan`
_LOUD, _SHARES = _CLIENTS // 2, 12  # that send, and whose shares are compared
_DIRECTION = np.full(_DIM, _DIM**-0.5)
_SIGNIFICANCE = 0.01
_CANARIES = 60
_DOUBT = 0.05  # of what is said of a frequency


def seeds(mechanism: str, count: int) -> range:
    """Seeds of a mechanism's own."""
    first = 10_000 * MECHANISMS.index(mechanism)
    return range(first, first + count)


def alarmed(bug: str, mechanism: str, seed: int) -> set[str]:
    """Returns the detectors that alarm."""
    plan, clients = planted.plan_for(bug, mechanism)
    with planted.bug(bug.partition(",")[0], seed):
        probed = probe(plan, planted.MODEL, planted.data(clients), significance=_SIGNIFICANCE)
    return {one.name for one in probed.alarms}


def refuted(bug: str, mechanism: str, seed: int) -> bool:
    """Returns whether the attack refutes a row."""
    plan, clients = planted.plan_for(bug, mechanism)
    with planted.bug(bug.partition(",")[0], seed) as rand:
        attacked = audit(
            plan, planted.MODEL, planted.data(clients - _CANARIES), canaries=_CANARIES,
            significance=_SIGNIFICANCE / 3, rand=rand,
        )  # fmt: skip
    return any(row.refuted for row in attacked.rows)


def noise_alone(mechanism: str, seed: int) -> set[str]:
    """Returns the detectors that alarm on four rounds of noise and inputs at their bound."""
    claimed = _mechanism(mechanism)
    rng = np.random.default_rng([seed, 1])
    if claimed is None:
        raise TypeError("a plan without noise")
    if isinstance(claimed, CorrelatedMechanism):
        found = _correlated(claimed, rng)
    else:
        found = _independent(claimed, rng)
    return {one.name for one in Probe(tuple(found), _SIGNIFICANCE).alarms}


def _independent(claimed: Independent, rng: np.random.Generator) -> list[Detection]:
    releases, shares = [], []
    for index in range(_ROUNDS):
        if isinstance(claimed, dp.CentralMechanism):
            noise = claimed.sample_noise(rng.bytes)
        else:
            given = np.stack([_share(claimed, rng) for _ in range(_CLIENTS)])
            shares.append(given[:_SHARES].astype(np.float64))
            noise = given.sum(axis=0)
        loud = _LOUD * (index % 2)
        total: NDArray[np.float64] = noise + loud * claimed.reach * _DIRECTION
        releases.append(Release(index, total, _CLIENTS, loud, np.zeros(_DIM)))
    found = probe_independent(claimed, releases, lambda _: _DIRECTION)
    if shares:
        rows = np.concatenate(shares)
        found.append(dependent_noise(rows, [claimed.noise_variance(1)] * len(rows), "clients"))
    return found


def _correlated(claimed: CorrelatedMechanism, rng: np.random.Generator) -> list[Detection]:
    releases, stream = [], claimed.stream()
    for index in range(_ROUNDS):
        loud = _LOUD * (index % 2)
        sent = np.rint(loud * claimed.reach * _DIRECTION)
        total: NDArray[np.float64] = sent + stream.advance(claimed.draw(rng.bytes))
        releases.append(Release(index, total, _CLIENTS, loud, sent))
    return probe_correlated(claimed, releases, _DIRECTION)


@functools.cache
def _mechanism(name: str) -> Mechanism | None:
    plan, clients = planted.plan_for("none", name)
    return fl.resolve(plan, planted.data(clients)).exposure.mechanism


def _share(
    mechanism: dp.DistributedMechanism | dp.PoissonBinomialMechanism, rng: np.random.Generator
) -> NDArray[np.int64]:
    """What a client sends that has nothing to say."""
    if isinstance(mechanism, dp.DistributedMechanism):
        return mechanism.sample_share(rng.bytes)
    fair = rng.binomial(mechanism.trials, 0.5, _DIM)
    return mechanism.unit * fair - mechanism.unit * mechanism.trials // 2


def at_least(successes: int, trials: int) -> float:
    """The least probability that so many successes leave, at a confidence of 95 %."""
    return float(binomial_lower(successes, trials, _DOUBT))


def measure(bug: str, mechanism: str, probes: int, attacks: int) -> Row:
    """The row of a bug, or of none."""
    begin, alone = time.process_time(), bug == ALONE
    alarms = [
        noise_alone(mechanism, seed) if alone else alarmed(bug, mechanism, seed)
        for seed in seeds(mechanism, probes)
    ]
    attacks = 0 if alone else attacks
    broken = [refuted(bug, mechanism, seed) for seed in seeds(mechanism, attacks)]
    row: Row = {
        "mechanism": mechanism, "bug": bug, "probes": probes,
        "alarms": sum(bool(found) for found in alarms),
        "detectors": dict(sorted(Counter(name for found in alarms for name in found).items())),
        "attacks": attacks, "refuted": sum(broken),
    }  # fmt: skip
    if bug in HONEST:
        row["at_most"] = 1.0 - at_least(probes - row["alarms"], probes)
    else:
        row["detector"] = planted.DETECTORS[bug]
        row["found"] = row["detectors"].get(row["detector"], 0)
        row["at_least"] = at_least(row["found"], probes)
    return {**row, "cpu_seconds": round(time.process_time() - begin, 1)}


def table(rows: Mapping[str, Row]) -> str:
    """How often each bug is found, then how often there is an alarm without one."""
    lines = [f"{'noise':18}{'bug':28}{'found by its detector (at least)':>34}{'attack':>12}"]
    for row in (row for row in rows.values() if "found" in row):
        found = f"{row['found']} of {row['probes']} ({row['at_least']:.3f})"
        attacked = f"{row['refuted']} of {row['attacks']}"
        lines.append(f"{row['mechanism']:18}{row['bug']:28}{found:>34}{attacked:>12}")
    lines += ["", f"{'noise':18}{'honest, cohort':28}{'false alarms (at most)':>34}{'attack':>12}"]
    for row in (row for row in rows.values() if "found" not in row):
        cohort = row["bug"].partition(", ")[2] or "full"
        alarms = f"{row['alarms']} of {row['probes']} ({row['at_most']:.4f})"
        attacked = f"{row['refuted']} of {row['attacks']}"
        which = ", ".join(f"{name} {count}" for name, count in row["detectors"].items())
        lines.append(
            f"{row['mechanism']:18}{cohort:28}{alarms:>34}{attacked:>12}  {which}".rstrip()
        )
    return "\n".join(lines)


def main() -> None:
    """Runs the rows that are not finished, and prints the table."""
    parser, number = options_of(__doc__), integer_from(1)
    parser.add_argument("--seeds", type=number, default=60, help="of the probes of planted bugs")
    parser.add_argument("--runs", type=number, default=300, help="seeds of whole honest runs")
    parser.add_argument("--honest", type=number, default=1000, help="seeds of noise alone")
    parser.add_argument("--attacks", type=number, default=5, help="seeds of the attacks")
    parser.add_argument("--mechanisms", nargs="+", choices=MECHANISMS, default=list(MECHANISMS))
    parser.add_argument("--again", action="store_true", help="run finished rows once more")
    given, results = parser.parse_args(), Results("audit")
    for mechanism in () if given.show else given.mechanisms:
        for bug in (*HONEST, *planted.DETECTORS):
            key = f"{mechanism}/{bug}"
            if planted.no_such(bug, mechanism) or (key in results.rows() and not given.again):
                continue
            honest = given.honest if bug == ALONE else given.runs
            probes = honest if bug in HONEST else given.seeds
            row = measure(bug, mechanism, probes, given.attacks)
            results.add(key, row)
            print(key, row, flush=True)
    print(table(results.rows()))


if __name__ == "__main__":
    main()
