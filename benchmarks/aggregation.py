"""Seconds per round of Plain, Ideal and Secure, side by side, on digits.

    python -m benchmarks.aggregation [--clients 200] [--rounds 10]

One core is enough; set OMP_NUM_THREADS=1 and XLA_FLAGS=--xla_cpu_multi_thread_eigen=false, as
`make bench` does. Medians of wall-clock seconds, all clients in one process; the first round, which
compiles, is left out.
"""

import argparse
import dataclasses
import statistics

import fl
from fl.types import PARTS


def measure(job: fl.Job) -> dict[str, float]:
    """Returns the median seconds of each part over the rounds after the first."""
    plan, model, data = job.build()
    rows = [r.cost.seconds for r in fl.rounds(plan, model, data)][1:]
    return {part: statistics.median(row[part] for row in rows) for part in PARTS}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=10)
    given = parser.parse_args()
    demo = dataclasses.replace(
        fl.PRESETS["digits-demo"], clients=given.clients, rounds=given.rounds, eval_every=10**6
    )
    cases = {
        "plain, no privacy": dataclasses.replace(demo, aggregation="plain", no_dp=True),
        "plain, gaussian": dataclasses.replace(
            demo, aggregation="plain", mechanism="gaussian", against="participants"
        ),
        "ideal, skellam": dataclasses.replace(demo, aggregation="ideal"),
        "ideal, discrete gaussian": dataclasses.replace(
            demo, aggregation="ideal", mechanism="discrete_gaussian"
        ),
        "secure, skellam": demo,
    }
    print(f"{'digits, ' + str(given.clients) + ' clients':26}" + "".join(f"{p:>10}" for p in PARTS))
    for name, job in cases.items():
        seconds = measure(job)
        print(f"{name:26}" + "".join(f"{seconds[part]:10.4f}" for part in PARTS))


if __name__ == "__main__":
    main()
