"""Planted bugs: how often probe and attack find them, and how often they alarm without one.

    python -m benchmarks.audit [--seeds 100] [--attacks 20] [--mechanisms skellam gaussian] [--show]

Every row is a bug in a plan that claims epsilon 1 at delta 1e-3, planted as the tests plant it
(tests/fl/planted.py). Probe: some detector alarms, at significance 0.01 of all together. Attack: 60
canaries refute some row of the statement, at significance 0.01 shared among the rows. Finished
rows are written to results/audit.json, over older ones; `--show` prints those.
"""

import argparse
from collections.abc import Mapping

from benchmarks._results import Results, Row
from fl.audit import audit, probe
from tests.fl import planted

RESULTS = Results("audit")
_SIGNIFICANCE = 0.01


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
            plan, planted.MODEL, planted.data(clients - 60), canaries=60,
            significance=_SIGNIFICANCE / 3, rand=rand,
        )  # fmt: skip
    return any(row.refuted for row in attacked.rows)


def tried(bug: str, mechanism: str, seeds: int, attacks: int) -> Row:
    """How often a bug is found, and by which detectors."""
    alarms = [alarmed(bug, mechanism, seed) for seed in range(seeds)]
    return {
        "mechanism": mechanism, "bug": bug, "seeds": seeds, "attacks": attacks,
        "probed": sum(map(bool, alarms)),
        "refuted": sum(refuted(bug, mechanism, seed) for seed in range(attacks)),
        "detectors": sorted(set().union(*alarms)),
    }  # fmt: skip


def text(row: Row) -> str:
    """One line."""
    probe, attack = (
        f"{row[found]} of {row[of]}" for found, of in [("probed", "seeds"), ("refuted", "attacks")]
    )
    return (
        f"{row['mechanism']:9}{row['bug']:28}{probe:>12}{attack:>10}"
        f"  {', '.join(row['detectors']) or '-'}"
    )


def table(rows: Mapping[str, Row]) -> str:
    """Header and one line per bug; first the plans without one, which should not alarm."""
    ordered = sorted(rows.values(), key=lambda row: not row["bug"].startswith("none"))
    return "\n".join([
        f"{'noise':9}{'bug':28}{'probe':>12}{'attack':>10}  detectors that alarmed",
        *map(text, ordered),
    ])  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=100, help="of the probes")
    parser.add_argument("--attacks", type=int, default=20, help="seeds of the attacks")
    parser.add_argument("--mechanisms", nargs="+", default=["skellam", "gaussian"])
    parser.add_argument("--show", action="store_true", help="print what is there, run nothing")
    given = parser.parse_args()
    for mechanism in () if given.show else given.mechanisms:
        for bug in [*planted.BUGS, "none, Poisson"]:
            if not planted.no_such(bug, mechanism):
                row = tried(bug, mechanism, given.seeds, given.attacks)
                RESULTS.add(f"{mechanism}/{bug}", row)
    print(table(RESULTS.rows()))


if __name__ == "__main__":
    main()
