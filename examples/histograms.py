"""Secure aggregation alone: hourly counts of 200 meters are summed, and nobody learns anything.

    python examples/histograms.py

No learning, no JAX: `secureagg` needs numpy and cryptography. Some meters leave at every stage, and
the same sum is taken again with a server that may lie. Nothing here is differentially private: the
exact sum is released.
"""

import argparse
import os

import numpy as np

import secureagg

HOURS = 24


def main() -> None:
    """Sums the histograms twice, prints the sum, who is in it and what it cost."""
    parser = argparse.ArgumentParser(description="Sum histograms without seeing one.")
    parser.add_argument("--quick", action="store_true", help="60 meters in place of 200")
    meters = 60 if parser.parse_args().quick else 200
    rng = np.random.default_rng(0)  # the meters' private data
    evening = rng.normal(19, 3, size=(meters, 40)).astype(int) % HOURS
    histograms = {i: np.bincount(evening[i], minlength=HOURS) for i in range(meters)}

    seed = os.urandom(32)  # in earnest: a public beacon, fixed after the meters are
    for server in ("semi_honest", "malicious"):
        params = secureagg.choose_params(
            meters, {"hours": (HOURS, 16)},
            corrupt=0.1, dropout=0.2, server=server, rounds=1, graph_seed=seed,
        )  # fmt: skip
        result = secureagg.run_round(
            params, histograms,
            dropouts={"share_keys": range(2), "mask_input": range(2, 8), "unmask": range(8, 10)},
        )  # fmt: skip
        total = result.sums["hours"].astype(int)
        in_the_open = sum(histograms[i] for i in result.survivors)
        assert (total == in_the_open).all()  # noqa: S101 - what the lesson is about
        print(f"server: {server}; each meter masks with {params.degree} of {meters} others,")
        print(f"  {params.threshold} of whom must help to unmask it")
        print(f"  {len(result.survivors)} of {meters} meters are in the sum: {total.tolist()}")
        print(f"  busiest hour: {int(total.argmax())}:00; equal to the sum in the open")
        seconds = sum(result.cost.client_seconds.values()) / meters
        sent = sum(result.cost.upload_bytes.values()) / meters
        print(f"  each meter computed for {1000 * seconds:.1f} ms and sent {sent:,.0f} bytes")


if __name__ == "__main__":
    main()
