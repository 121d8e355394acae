"""Cost of secure aggregation beside the cost of its primitives, measured in the same run.

    python -m benchmarks.bench_secureagg [--rows NAME ...] [--repeats 3]
        [--peer flower --peer-python PATH]

Pinned to one core. CPU seconds, medians over the repeats. A row's last columns are its ratio to
what its AES-CTR bytes, additions, X25519 operations and signatures take by themselves, and how far
`predict_cost` is off. Parameters are cost points (security_bits=0), not sound choices.

`--peer flower` runs Flower's SecAgg+ right after each row, on the same n, degree, threshold, length
and dropout (peers/flower_secagg.py), and prints how many times our CPU seconds it takes. PATH is
the interpreter of an environment with flwr, made for 1.41.0. Flower's modulus is 2^32, its server
semi-honest; other rows are refused.
"""

import argparse
import gc
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import secureagg
from secureagg import prg
from secureagg._codec import word_dtype
from secureagg.primitives import agreement, is_signed, public_key


@dataclass(frozen=True)
class Row:
    """One cost point: n, degree, threshold, server, dropout after sharing, length, bits."""

    n: int
    degree: int
    threshold: int
    server: str
    drop: float
    length: int = 100_000
    bits: int = 32


ROWS = {
    "n100": Row(100, 20, 11, "semi_honest", 0.0),
    "n100-drop": Row(100, 20, 11, "semi_honest", 0.3),
    "n100-malicious": Row(100, 20, 11, "malicious", 0.0),
    "n100-malicious-drop": Row(100, 20, 11, "malicious", 0.3),
    "n1000-drop": Row(1000, 76, 25, "semi_honest", 0.3),
    "n1000-malicious-drop": Row(1000, 406, 234, "malicious", 0.3),
    "n500-complete": Row(500, 499, 251, "semi_honest", 0.0),
    "n500-complete-drop": Row(500, 499, 251, "semi_honest", 0.3),
    "n5000-drop": Row(5000, 92, 30, "semi_honest", 0.1, length=10_000),
    "n10000-malicious": Row(10_000, 82, 58, "malicious", 0.05, length=10_000),
    "d1e7": Row(20, 19, 11, "semi_honest", 0.1, length=10_000_000),
}
PEER_ROWS = [n for n, row in ROWS.items() if row.server == "semi_honest" and row.bits == 32]
DEFAULT = [name for name in ROWS if name not in ("n10000-malicious", "n1000-malicious-drop")]


@dataclass(frozen=True)
class Rates:
    """Seconds of each primitive by itself."""

    agree: float
    base: float
    sign: float
    verify: float
    mask: float
    """One key stream of the row's length, added to a vector."""


def rate(call: Callable[[], object], times: int) -> float:
    """Median CPU seconds of one call."""
    found = []
    for _ in range(5):
        begin = time.process_time()
        for _ in range(times):
            call()
        found.append((time.process_time() - begin) / times)
    return statistics.median(found)


def rates_of(row: Row) -> Rates:
    secret, words = bytes(range(32)), np.zeros(row.length, dtype=word_dtype(row.bits))
    agree, other, key = agreement(secret), public_key(bytes(32)), secureagg.IdentityKey(secret)
    signature = key.sign(secret)
    streams = [(bytes([i] * 16), bytes(16), True) for i in range(8)]
    times = max(1, 3_000_000 // row.length)
    return Rates(
        agree=rate(lambda: agree(other), 200),
        base=rate(lambda: public_key(secret), 200),
        sign=rate(lambda: key.sign(secret), 200),
        verify=rate(lambda: is_signed(key.public_key, signature, secret), 100),
        mask=rate(lambda: prg.accumulate(words, streams), max(1, times // 8)) / 8,
    )


def params_of(row: Row) -> secureagg.Params:
    return secureagg.Params(
        num_clients=row.n,
        segments=(secureagg.Segment("x", row.length, row.bits),),
        degree=row.degree,
        threshold=row.threshold,
        min_survivors=max(2, row.n // 2),
        corrupt=0,
        dropout="0.4",
        rounds=1,
        server=row.server,
        security_bits=0,
        correctness_bits=0,
        session_id=os.urandom(16),
        round_index=0,
        attempt=0,
        graph_seed=b"benchmark",
    )


def dropouts_of(row: Row, params: secureagg.Params) -> dict[str, list[int]]:
    """Random clients that vanish after sharing; drawn again where the round would abort."""
    for seed in range(1000):
        generator = np.random.default_rng(seed)
        gone = generator.choice(row.n, round(row.n * row.drop), replace=False).tolist()
        try:
            secureagg.outcome(params, {"mask_input": gone})
        except secureagg.TooFewClientsError:
            continue
        return {"mask_input": gone}
    raise SystemExit("no dropouts leave a round: threshold too high for the degree")


def by_primitives(
    row: Row, params: secureagg.Params, dropouts: dict[str, list[int]], rates: Rates
) -> tuple[float, float]:
    """(client, server) seconds that the counted primitives take by themselves."""
    counts = secureagg.prediction.count(params, *secureagg.simulate.sets_of(params, dropouts, None))
    n, senders = counts.clients["share_keys"], counts.clients["mask_input"]
    shared, masked = counts.edges["share_keys"], counts.edges["mask_input"]
    client = 2 * n * rates.base + (shared + masked) * rates.agree
    client += (senders + masked) * rates.mask
    server = (senders + counts.cut_edges) * rates.mask + counts.cut_edges * rates.agree
    server += senders * rates.mask / 4  # a vector added, without its key stream
    if params.malicious:
        quorum = counts.clients["unmask"] * params.threshold
        client += (n + counts.edges["check_consistency"]) * rates.sign
        client += (shared + quorum) * rates.verify
        server += (n + counts.edges["check_consistency"]) * rates.verify
    return client, server


def measure(name: str, row: Row, repeats: int) -> tuple[float, float]:
    """Prints one line; returns CPU seconds of (all clients, the server)."""
    params = params_of(row)
    dropouts = dropouts_of(row, params)
    vector = np.random.default_rng(0).integers(0, 1 << row.bits, row.length, dtype=np.uint64)
    rates = rates_of(row)
    client, server = [], []
    for _ in range(repeats):
        gc.collect()
        result = secureagg.run_round(
            params, lambda _: vector, client_ids=range(row.n), dropouts=dropouts
        )
        client.append(sum(result.cost.client_seconds.values()))
        server.append(sum(result.cost.server_seconds.values()))
    want = int(vector[0]) * len(result.survivors) % (1 << row.bits)
    if int(result.sums["x"][0]) != want:
        raise SystemExit(f"{name}: wrong sum")
    floor = by_primitives(row, params, dropouts, rates)
    predicted = secureagg.predict_cost(params, dropouts)
    foreseen = (sum(predicted.client_seconds.values()), sum(predicted.server_seconds.values()))
    real = (statistics.median(client), statistics.median(server))
    plain = (row.length * row.bits + 7) // 8
    upload = sum(result.cost.upload_bytes.values()) / max(1, len(result.survivors)) / plain
    off = [100 * (a / b - 1) for a, b in zip(foreseen, real, strict=True)]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"{name:22}{1e3 * real[0] / row.n:10.2f}{1e3 * real[1]:12.1f}{upload:9.3f}"
        f"{real[0] / floor[0]:10.2f}{real[1] / floor[1]:8.2f}{off[0]:+9.0f}%{off[1]:+7.0f}%"
        f"{peak:8.2f}"
    )
    return real


def measure_flower(row: Row, repeats: int, python: str, ours: tuple[float, float]) -> None:
    """Prints what Flower takes for the row, and the ratios to `ours`."""
    script = Path(__file__).parent / "peers" / "flower_secagg.py"
    asked = {
        "clients": row.n,
        "degree": row.degree,
        "threshold": row.threshold,
        "length": row.length,
        "drop": row.drop,
        "repeats": repeats,
    }
    options = [f"--{name}={value}" for name, value in asked.items()]
    run = subprocess.run(  # noqa: S603 - the user's own interpreter, on a file of this project
        [python, str(script), *options], stdout=subprocess.PIPE, text=True, check=True
    )
    found = json.loads(run.stdout.splitlines()[-1])
    theirs = (float(found["clients"]), float(found["server"]))
    times = [f"x{b / a:.1f}" for a, b in zip(ours, theirs, strict=True)]
    print(
        f"{'  flower':22}{1e3 * theirs[0] / row.n:10.2f}{1e3 * theirs[1]:12.1f}"
        f"    over ours: client {times[0]}, server {times[1]}"
    )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", nargs="*", choices=[*ROWS])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peer", choices=["flower"])
    parser.add_argument("--peer-python", metavar="PATH")
    given = parser.parse_args()
    if (given.peer is None) != (given.peer_python is None):
        parser.error("--peer and --peer-python go together")
    if given.rows is None:
        given.rows = ["n100", "n100-drop"] if given.peer else DEFAULT
    if given.peer and (wrong := [name for name in given.rows if name not in PEER_ROWS]):
        parser.error(f"--peer flower has no row {', '.join(wrong)}, takes some of {PEER_ROWS}")
    return given


def main() -> None:
    given = arguments()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    print(
        f"{'':22}{'client':>10}{'server':>12}{'upload':>9}{'over primitives':>18}{'predicted':>17}"
    )
    print(
        f"{'row':22}{'ms each':>10}{'ms':>12}{'x plain':>9}{'client':>10}{'server':>8}"
        f"{'client':>10}{'server':>8}{'GiB':>8}"
    )
    for name in given.rows:
        ours = measure(name, ROWS[name], given.repeats)
        sys.stdout.flush()
        if given.peer:
            measure_flower(ROWS[name], given.repeats, given.peer_python, ours)
            sys.stdout.flush()


if __name__ == "__main__":
    main()
