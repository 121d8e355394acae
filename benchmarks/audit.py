"""Planted bugs: how often probe and attack find them, and how often they alarm without one.

    python -m benchmarks.audit [--mechanisms NAME ...] [--seeds 100] [--honest 500] [--attacks 20]
        [--again | --show]

Every row is a bug in a plan that claims epsilon 1 at delta 1e-3, planted as the tests plant it
(tests/fl/planted.py), at a significance of 0.01 in all of a run. *power*: runs in which the
detector made for that bug alarms, and the least probability of it at a confidence of 95 %
(Clopper, Pearson 1934). *false alarms*: honest runs in which any detector alarms, and the largest
probability at 95 %. *attack*: runs in which 60 canaries refute some row of the statement; it is
made for leaks, and epsilon 1 hides bugs that are within a factor of it.
A row is written to results/audit.json when it is finished and not run again unless `--again`.
Seeds of one mechanism are not those of another: mechanisms that read the same bytes would err
together.
"""

import argparse
import time
from collections import Counter
from collections.abc import Mapping

from benchmarks._results import Results, Row
from dp.auditing import binomial_lower
from fl.audit import audit, probe
from fl.privacy import CENTRAL, DISTRIBUTED
from tests.fl import planted

RESULTS = Results("audit")
MECHANISMS = (*DISTRIBUTED, *CENTRAL)
HONEST = ("none", "none, Poisson")
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


def at_least(successes: int, trials: int) -> float:
    """The least probability that so many successes leave, at a confidence of 95 %."""
    return float(binomial_lower(successes, trials, _DOUBT))


def measure(bug: str, mechanism: str, probes: int, attacks: int) -> Row:
    """The row of a bug, or of none."""
    begin = time.process_time()
    alarms = [alarmed(bug, mechanism, seed) for seed in seeds(mechanism, probes)]
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
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=100, help="of the probes of a bug")
    parser.add_argument("--honest", type=int, default=500, help="seeds of honest probes")
    parser.add_argument("--attacks", type=int, default=20, help="seeds of the attacks")
    parser.add_argument("--mechanisms", nargs="+", choices=MECHANISMS, default=list(MECHANISMS))
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--show", action="store_true")
    asked = parser.parse_args()
    for mechanism in () if asked.show else asked.mechanisms:
        for bug in (*HONEST, *planted.DETECTORS):
            key = f"{mechanism}/{bug}"
            if planted.no_such(bug, mechanism) or (key in RESULTS.rows() and not asked.again):
                continue
            probes = asked.honest if bug in HONEST else asked.seeds
            row = measure(bug, mechanism, probes, asked.attacks)
            RESULTS.add(key, row)
            print(key, row, flush=True)
    print(table(RESULTS.rows()))


if __name__ == "__main__":
    main()
