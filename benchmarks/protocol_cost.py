"""Seconds and bytes of secure aggregation: measured, predicted, and its primitives' own time.

    python -m benchmarks.protocol_cost [--rows NAME ...] [--repeats 3] [--show]
        [--peers flower [--folder build/peers]]
    python -m benchmarks.protocol_cost --predict

Rows vary the number of clients n, the length d of the vector, who drops out, the graph (k
neighbours, or complete) and the server (one that follows the protocol, one that does not). Pinned
to one core; CPU seconds, medians over the repeats; a client's figures are means over all invited.
"Over primitives" is the ratio to what the row's AES-CTR bytes, additions, X25519 operations and
signatures take by themselves in the same run; "predicted" is how far `predict_cost` is off.
Parameters are cost points (security_bits=0), not sound choices. Finished rows are written to
results/protocol_cost.json, over older ones; `--show` prints those.

The row "n1024-16bit" is that of the abstract of Bonawitz et al. 2017: 2^10 users, 2^20 inputs of 16
bits, for which it states 1.73 times the bytes of the inputs in the clear. It is counted and not
run, and says what a client sends, and sends and receives, over 2 d bytes. The tables of seconds of
that paper are not printed here, since they have not been checked against it.

`--predict` adds rows of 1,000 to a million clients that are predicted alone: parameters chosen for
corrupt = dropout = 0.05 and one round, 100,000 words of 32 bits, 5 % gone before masking.

`--peers flower` runs Flower's SecAgg+ right after each row, on the same n, degree, threshold,
length and dropout (peers/flower_secagg.py), and prints how many times our CPU seconds it takes. Its
environment is made by peers/environments.py. Flower's modulus is 2^32, its server semi-honest;
other rows are refused.
"""

import argparse
import dataclasses
import gc
import os
import resource
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import secureagg
from benchmarks._primitives import by_primitives, rates_of
from benchmarks._results import Results, Row, beside
from benchmarks._script import ask_peer, beside_us, integer_from, options_of, pin, take_peers


@dataclass(frozen=True)
class Point:
    """One cost point: n, degree, threshold, server, dropout after sharing, length, bits."""

    n: int
    degree: int
    threshold: int
    server: str
    drop: float
    length: int = 100_000
    bits: int = 32


ROWS = {
    "n100": Point(100, 20, 11, "semi_honest", 0.0),
    "n100-drop": Point(100, 20, 11, "semi_honest", 0.3),
    "n100-short": Point(100, 20, 11, "semi_honest", 0.0, length=1_000),
    "n100-long": Point(100, 20, 11, "semi_honest", 0.0, length=1_000_000),
    "n100-complete": Point(100, 99, 51, "semi_honest", 0.0),
    "n100-drop-10": Point(100, 20, 11, "semi_honest", 0.1),
    "n300": Point(300, 20, 11, "semi_honest", 0.0),
    "n1000": Point(1000, 20, 11, "semi_honest", 0.0),
    "n100-malicious": Point(100, 20, 11, "malicious", 0.0),
    "n100-malicious-drop": Point(100, 20, 11, "malicious", 0.3),
    "n1000-drop": Point(1000, 76, 25, "semi_honest", 0.3),
    "n1000-malicious-drop": Point(1000, 406, 234, "malicious", 0.3),
    "n500-complete": Point(500, 499, 251, "semi_honest", 0.0),
    "n500-complete-drop": Point(500, 499, 251, "semi_honest", 0.3),
    "n5000-drop": Point(5000, 92, 30, "semi_honest", 0.1, length=10_000),
    "n10000-malicious": Point(10_000, 82, 58, "malicious", 0.05, length=10_000),
    "d1e7": Point(20, 19, 11, "semi_honest", 0.1, length=10_000_000),
}
COUNTED = "n1024-16bit"
PREDICTED = (1_000, 10_000, 100_000, 1_000_000)
PEER_ROWS = [n for n, row in ROWS.items() if row.server == "semi_honest" and row.bits == 32]
DEFAULT = [name for name in ROWS if name not in ("n10000-malicious", "n1000-malicious-drop")]


def params_of(row: Point) -> secureagg.Params:
    """The cost point as parameters that claim nothing."""
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


def dropouts_of(row: Point, params: secureagg.Params) -> dict[str, list[int]]:
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


def measure(name: str, row: Point, repeats: int) -> Row:
    """Runs the round; returns its row."""
    params = params_of(row)
    dropouts = dropouts_of(row, params)
    vector = np.random.default_rng(0).integers(0, 1 << row.bits, row.length, dtype=np.uint64)
    rates = rates_of(params)
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
    floor = by_primitives(params, dropouts, rates)
    predicted = secureagg.predict_cost(params, dropouts)
    return {
        **dataclasses.asdict(row),
        "client_ms": 1e3 * statistics.median(client) / row.n,
        "server_ms": 1e3 * statistics.median(server),
        "client_ms_by_stage": by_stage(result.cost.client_seconds, row.n),
        "server_ms_by_stage": by_stage(result.cost.server_seconds, 1),
        "primitives_client_ms": 1e3 * floor[0] / row.n,
        "primitives_server_ms": 1e3 * floor[1],
        "predicted_client_ms": 1e3 * sum(predicted.client_seconds.values()) / row.n,
        "predicted_server_ms": 1e3 * sum(predicted.server_seconds.values()),
        "upload_bytes": sum(result.cost.upload_bytes.values()) / row.n,
        "download_bytes": sum(result.cost.download_bytes.values()) / row.n,
        "survivors": len(result.survivors),
        "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "repeats": repeats,
    }


def by_stage(seconds: Mapping[str, float], parties: int) -> dict[str, float]:
    """Milliseconds of each stage, of one of so many parties."""
    return {stage: 1e3 * value / parties for stage, value in seconds.items()}


def text(name: str, row: Row) -> str:
    """One line of the table."""
    plain = (row["length"] * row["bits"] + 7) // 8
    sent = row["upload_bytes"] * row["n"] / max(1, row["survivors"]) / plain
    over, off = ratios(row)
    line = (
        f"{name:22}{row['client_ms']:10.2f}{row['server_ms']:12.1f}{sent:9.3f}"
        f"{over[0]:10.2f}{over[1]:8.2f}{off[0]:+9.0f}%{off[1]:+7.0f}%{row['peak_gib']:8.2f}"
    )
    if "flower_client_ms" not in row:
        return line
    times = [row[f"flower_{side}_ms"] / row[f"{side}_ms"] for side in ("client", "server")]
    return (
        f"{line}\n{'  flower':22}{row['flower_client_ms']:10.2f}{row['flower_server_ms']:12.1f}"
        f"    over ours: client x{times[0]:.1f}, server x{times[1]:.1f}"
    )


def counted_bytes() -> Row:
    """Bytes of the round in the abstract of Bonawitz et al. 2017; sums of 2^10 take 26 bits."""
    row = Point(1024, 1023, 683, "semi_honest", 0.0, length=2**20, bits=26)
    cost = secureagg.predict_cost(params_of(row), {})
    clear = 2 * row.length
    up, down = (sum(side.values()) / row.n for side in (cost.upload_bytes, cost.download_bytes))
    return {**dataclasses.asdict(row), "upload": up / clear, "both_ways": (up + down) / clear,
            "paper": 1.73}  # fmt: skip


def predicted(n: int, server: str) -> Row:
    """What a round of n clients takes by `predict_cost`."""
    params = secureagg.choose_params(
        n, {"x": (100_000, 32)}, corrupt=0.05, dropout=0.05, server=server, rounds=1,
        session_id=bytes(32), graph_seed=bytes(32),
    )  # fmt: skip
    cost = secureagg.predict_cost(params, {"mask_input": range(n // 20)})
    return {
        "server": server, "n": n, "degree": params.degree, "threshold": params.threshold,
        "predicted_client_ms": 1e3 * sum(cost.client_seconds.values()) / n,
        "predicted_server_ms": 1e3 * sum(cost.server_seconds.values()),
        "upload_bytes": sum(cost.upload_bytes.values()) / n,
        "download_bytes": sum(cost.download_bytes.values()) / n,
    }  # fmt: skip


def measure_flower(row: Point, repeats: int, folder: Path) -> Row:
    """What Flower takes for the row."""
    asked = {
        "clients": row.n,
        "degree": row.degree,
        "threshold": row.threshold,
        "length": row.length,
        "drop": row.drop,
        "repeats": repeats,
    }
    found = ask_peer(folder, "flower", "flower_secagg.py", asked)
    return {
        "flower_client_ms": 1e3 * float(found["clients"]) / row.n,
        "flower_server_ms": 1e3 * float(found["server"]),
    }


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = options_of(__doc__)
    parser.add_argument("--rows", nargs="*", choices=[*ROWS, COUNTED])
    parser.add_argument("--repeats", type=integer_from(1), default=3)
    parser.add_argument("--predict", action="store_true", help="predict large rounds, run nothing")
    take_peers(parser)
    given = parser.parse_args()
    given.peers = beside_us(given, ("flower",))
    if given.rows is None:
        given.rows = ["n100", "n100-drop"] if given.peers else [*DEFAULT, COUNTED]
    if given.peers and (wrong := [name for name in given.rows if name not in PEER_ROWS]):
        parser.error(f"--peers flower has no row {', '.join(wrong)}, takes some of {PEER_ROWS}")
    return given


def header() -> str:
    """The head of the table of what was measured."""
    return (
        f"{'':22}{'client':>10}{'server':>12}{'upload':>9}{'over primitives':>18}"
        f"{'predicted':>17}\n{'row':22}{'ms each':>10}{'ms':>12}{'x plain':>9}{'client':>10}"
        f"{'server':>8}{'client':>10}{'server':>8}{'GiB':>8}"
    )


def table(rows: Mapping[str, Row]) -> str:
    """Measured rows in the order of ROWS, then what is predicted alone."""
    measured = measured_rows(rows)
    lines = [header(), *(text(name, row) for name, row in measured.items())]
    lines += [counted_text(row) for name, row in rows.items() if name == COUNTED]
    large = predicted_rows(rows)
    if large:
        lines += ["", predicted_header(), *map(predicted_text, large)]
    return "\n".join(lines)


def measured_rows(rows: Mapping[str, Row]) -> dict[str, Row]:
    """In the order of ROWS, one beside a peer behind the one without."""
    order = {name: place for place, name in enumerate(ROWS)}
    names = [name for name in rows if name.partition(",")[0] in order]
    return {n: rows[n] for n in sorted(names, key=lambda n: (order[n.partition(",")[0]], n))}


def predicted_rows(rows: Mapping[str, Row]) -> list[Row]:
    """By server and size."""
    found = [row for name, row in rows.items() if name.startswith("predicted/")]
    return sorted(found, key=lambda row: (row["server"] == "malicious", row["n"]))


def predicted_header() -> str:
    """The head of the table of what was predicted."""
    return (
        f"{'predicted: server':18}{'n':>10}{'degree, threshold':>19}{'client, ms':>12}{'up, kB':>8}"
        f"{'down, kB':>10}{'server, s':>11}"
    )


def predicted_text(row: Row) -> str:
    """One line."""
    degree = f"{row['degree']}, {row['threshold']}"
    return (
        f"{row['server']:18}{row['n']:10,}{degree:>19}{row['predicted_client_ms']:12.1f}"
        f"{row['upload_bytes'] / 1e3:8.0f}{row['download_bytes'] / 1e3:10.0f}"
        f"{row['predicted_server_ms'] / 1e3:11.1f}"
    )


def markdown(rows: Mapping[str, Row]) -> str:
    """The tables of docs/protocol.md."""
    lines = [
        "| row | n | degree, threshold | server | words | gone | client, ms | server, ms"
        " | over primitives: client, server | predicted: client, server |",
        "|---" * 10 + "|",
    ]
    for name, row in measured_rows(rows).items():
        over, off = ratios(row)
        lines.append(
            f"| {name.partition(',')[0]} | {row['n']:,} | {row['degree']}, {row['threshold']}"
            f" | {row['server']} | {row['length']:,} | {row['drop']:.0%} | {row['client_ms']:.3g}"
            f" | {row['server_ms']:,.0f} | {over[0]:.2f}, {over[1]:.1f}"
            f" | {off[0]:+.0f} %, {off[1]:+.0f} % |"
        )
    lines += ["", "| predicted: server | n | degree, threshold | client, ms | up, kB | down, kB"
              " | server, s |", "|---" * 7 + "|"]  # fmt: skip
    for row in predicted_rows(rows):
        lines.append(
            f"| {row['server']} | {row['n']:,} | {row['degree']}, {row['threshold']}"
            f" | {row['predicted_client_ms']:.1f} | {row['upload_bytes'] / 1e3:.0f}"
            f" | {row['download_bytes'] / 1e3:.0f} | {row['predicted_server_ms'] / 1e3:,.1f} |"
        )
    return "\n".join(lines)


def ratios(row: Row) -> tuple[list[float], list[float]]:
    """(measured over primitives, per cent that the prediction is off), client and server."""
    over, off = [], []
    for side in ("client", "server"):
        real = row[f"{side}_ms"]
        over.append(real / row[f"primitives_{side}_ms"])
        off.append(100 * (row[f"predicted_{side}_ms"] / real - 1))
    return over, off


def counted_text(row: Row) -> str:
    """The line of the round that is counted and not run."""
    return (
        f"{COUNTED}: {row['upload']:.2f} times the clear bytes up, {row['both_ways']:.2f} both"
        f" ways; {row['paper']} in the abstract of Bonawitz et al. 2017"
    )


def main() -> None:
    """Measures or predicts what is asked for, or prints what is there."""
    given = arguments()
    results = Results("protocol_cost")
    if given.show:
        print(table(results.rows()))
        return
    if given.predict:
        for server in ("semi_honest", "malicious"):
            for n in PREDICTED:
                results.add(f"predicted/{server}-{n:07}", predicted(n, server))
        print(table(results.rows()))
        return
    pin()
    print(header())
    for name in given.rows:
        if name == COUNTED:
            row = counted_bytes()
        else:
            row = measure(name, ROWS[name], given.repeats)
            if given.peers:
                row |= measure_flower(ROWS[name], given.repeats, given.folder)
        key = beside(name, given.peers)
        results.add(key, row)
        print(counted_text(row) if name == COUNTED else text(key, row), flush=True)


if __name__ == "__main__":
    main()
