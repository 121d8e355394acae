"""Values per CPU second of OpenDP's discrete Gaussian noise on a vector of integers.

    python benchmarks/peers/opendp_gaussian.py --scale 10 --values 20000 --repeats 5

For an environment of peers/environments.py; it imports nothing of this project. The last line
printed is JSON: millions of values a CPU second, and versions.
"""

import argparse
import importlib.metadata
import json
import statistics
import time

import opendp.prelude as dp


def main() -> None:
    """Prints the median rate after a first call."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, required=True)
    parser.add_argument("--values", type=int, required=True)
    parser.add_argument("--repeats", type=int, required=True)
    given = parser.parse_args()
    dp.enable_features("contrib")
    space = dp.vector_domain(dp.atom_domain(T="i32")), dp.l2_distance(T=float)
    mechanism, zeros = dp.m.make_gaussian(*space, scale=given.scale), [0] * given.values
    taken = []
    for _ in range(given.repeats + 1):
        begin = time.process_time()
        mechanism(zeros)
        taken.append(time.process_time() - begin)
    rate = given.values / statistics.median(taken[1:]) / 1e6
    used = {"opendp": importlib.metadata.version("opendp")}
    print(json.dumps({"rate": rate, "versions": used}))


if __name__ == "__main__":
    main()
