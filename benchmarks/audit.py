"""Planted bugs: how often probe and attack find them, and how often they alarm without one.

    python benchmarks/audit.py [--seeds 40] [--mechanisms skellam gaussian]

Every row is a bug in a plan that claims epsilon 1 at delta 1e-3, planted as the tests plant it
(tests/fl/planted.py). Probe: some detector alarms, at significance 0.01 of all together. Attack: 60
canaries refute some row of the statement, at significance 0.01 shared among the rows.
"""

import argparse

import numpy as np

from fl.audit import audit
from fl.probes import probe
from tests.fl import planted

_SIGNIFICANCE = 0.01


def found(bug: str, mechanism: str, seed: int) -> tuple[set[str], bool]:
    """Returns the detectors that alarm, and whether the attack refutes a row."""
    plan, clients = planted.plan_for(bug, mechanism)
    with planted.bug(bug.partition(",")[0], seed):
        probed = probe(plan, planted.MODEL, planted.data(clients), significance=_SIGNIFICANCE)
    with planted.bug(bug.partition(",")[0], seed) as rand:
        attacked = audit(
            plan, planted.MODEL, planted.data(clients - 60), canaries=60,
            significance=_SIGNIFICANCE / 3, rand=rand,
        )  # fmt: skip
    return {one.name for one in probed.alarms}, any(row.refuted for row in attacked.rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=40)
    parser.add_argument("--mechanisms", nargs="+", default=["skellam", "gaussian"])
    asked = parser.parse_args()
    print("mechanism | bug | seeds | probe | attack | detectors that alarmed")
    for mechanism in asked.mechanisms:
        for bug in [*planted.BUGS, "none, Poisson"]:
            if planted.no_such(bug, mechanism):
                continue
            rows = [found(bug, mechanism, seed) for seed in range(asked.seeds)]
            names = sorted(set().union(*(alarms for alarms, _ in rows)))
            probed = np.mean([bool(alarms) for alarms, _ in rows])
            attacked = np.mean([refuted for _, refuted in rows])
            print(
                f"{mechanism} | {bug} | {asked.seeds} | {probed:.3f} | {attacked:.3f} | "
                f"{', '.join(names) or '-'}",
                flush=True,
            )


if __name__ == "__main__":
    main()
