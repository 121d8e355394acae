"""Planted bugs: how often probe and attack find them, and how often they alarm without one.

    python -m benchmarks.audit [--seeds 100] [--attacks 20] [--mechanisms skellam gaussian]

Every row is a bug in a plan that claims epsilon 1 at delta 1e-3, planted as the tests plant it
(tests/fl/planted.py). Probe: some detector alarms, at significance 0.01 of all together. Attack: 60
canaries refute some row of the statement, at significance 0.01 shared among the rows.
"""

import argparse

import numpy as np

from fl.audit import audit, probe
from tests.fl import planted

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


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=100, help="of the probes")
    parser.add_argument("--attacks", type=int, default=20, help="seeds of the attacks")
    parser.add_argument("--mechanisms", nargs="+", default=["skellam", "gaussian"])
    asked = parser.parse_args()
    print(f"probes of {asked.seeds} seeds, attacks of {asked.attacks}")
    print("mechanism | bug | probe | attack | detectors that alarmed")
    for mechanism in asked.mechanisms:
        for bug in [*planted.BUGS, "none, Poisson"]:
            if planted.no_such(bug, mechanism):
                continue
            alarms = [alarmed(bug, mechanism, seed) for seed in range(asked.seeds)]
            attacks = [refuted(bug, mechanism, seed) for seed in range(asked.attacks)]
            names = sorted(set().union(*alarms))
            probed = np.mean([bool(found) for found in alarms])
            print(
                f"{mechanism} | {bug} | {probed:.3f} | {np.mean(attacks):.3f} | "
                f"{', '.join(names) or '-'}",
                flush=True,
            )


if __name__ == "__main__":
    main()
