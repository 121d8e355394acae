"""Training: CPU seconds per round, beside what its matrix products take at best, and its peers.

    python -m benchmarks.simulation_speed [--rows 2nn cnn ...] [--repeats 7] [--show]
        [--peers fedjax pfl flower opacus [--folder build/peers]]

Pinned to one core but for the row of two, single-threaded, medians of CPU seconds of this process
(wall-clock where two processes work). Data are synthetic and shaped like MNIST. Finished rows are
written to results/simulation_speed.json, over older ones; `--show` prints those. Rows:

    gemm       float32 GFLOP/s of a 1024^3 product: the limit of the others
    2nn, cnn   10 clients x 600 examples, batches of 10, one local epoch
    dpsgd-2nn, dpsgd-cnn
               one DP-SGD step on 64 records: gradients clipped one by one, noise, server step
    two-cores  2NN, 100 clients: two pinned processes against one
    encode     rotate, round, noise for one client, d = 199,210
    secure, secure-2nn
               Secure minus Ideal per client and round, 100 clients, over what the protocol's
               AES-CTR bytes, additions and X25519 agreements take alone in the same run
    scale      CPU seconds per round and memory at 1e3, 1e4, 1e5 clients with a cohort of 100
    memory     memory of the 2NN, clients side by side ("vmap"), as chunk and cohort grow

`--peers` runs the same round by others right after the rows 2nn and cnn, and the same step by
Opacus after those of DP-SGD, on the same core, and then ours once more: ratios are to the mean of
the two. Their environments are made by peers/environments.py. FedJAX, pfl-research and Flower train
by their own federated averaging (peers/*_round.py): FedJAX with JAX, the others with torch clients;
Flower's simulation is counted with all its Ray processes. Opacus takes the same steps on the same
batch from the same weights (peers/opacus_step.py), and the losses after them are printed beside:
"hooks" keeps each gradient, "ghost" only their norms. A step of ours is a round of a plan that
hides records: each gradient is rotated, rounded to integers within a bound and summed exactly, the
noise is exact; "gradients alone" is what JAX takes to clip and sum them as floats.
"""

import argparse
import functools
import os
import resource
import statistics
import time
from collections.abc import Callable, Mapping
from multiprocessing import get_context

import jax
import jax.numpy as jnp
import numpy as np

import dp
import fl
import secureagg
from benchmarks import _dpsgd
from benchmarks._primitives import by_primitives, packing, rates_of
from benchmarks._results import Results, Row, beside
from benchmarks._script import (
    ask_peer,
    beside_us,
    integer_from,
    options_of,
    pin,
    take_peers,
    versions_text,
)
from benchmarks._timing import cpu_seconds
from benchmarks._training import WORK, mnist_like, model_of, plan_of
from fl import workers
from fl.group import Group


def seconds(
    plan: fl.Plan, model: fl.Model, data: fl.FederatedDataset, clock: Callable[[], float],
    group: Group | None = None, execution: fl.Execution | None = None,
) -> float:  # fmt: skip
    """Median seconds of the rounds after the first, which compiles."""
    marks = []
    for _ in fl.rounds(plan, model, data, group=group, execution=execution or fl.Execution()):
        marks.append(clock())
    return statistics.median(np.diff(marks[:-1]).tolist())


def gflops() -> float:
    """Float32 operations of a matrix product, 1e9 a CPU second."""
    a = jnp.ones((1024, 1024))
    product = jax.jit(jnp.matmul)
    taken = cpu_seconds(lambda: product(a, a).block_until_ready(), repeats=9)
    return 2 * 1024**3 / taken / 1e9


def epoch_row(name: str, given: argparse.Namespace) -> Row:
    """A round of ten clients, its peers right after it, and once more."""
    model, data, limit = model_of(name), mnist_like(10), gflops()

    def ours() -> float:
        return seconds(plan_of(model, given.repeats + 2), model, data, time.process_time)

    cpu, best = [ours()], 10 * WORK[name] / limit
    asked = beside_us(given, ("fedjax", "pfl", "flower"))
    others = {peer: peer_round(peer, name, given) for peer in asked}
    if others:
        cpu.append(ours())
    return {
        "cpu_seconds": statistics.mean(cpu), "runs": cpu, "gflops": limit, "limit_seconds": best,
        "peers": others,
    }  # fmt: skip


def peer_round(peer: str, model: str, given: argparse.Namespace) -> Row:
    """What the peer prints of itself."""
    options = {"model": model, "clients": 10, "rounds": given.repeats}
    return ask_peer(given.folder, peer, f"{peer}_round.py", options)


def epoch_text(name: str, row: Row) -> str:
    """Ours, how near to the matrix products, and the peers."""
    cpu, best = row["cpu_seconds"], row["limit_seconds"]
    lines = [
        f"{name}: {cpu:.4f} CPU s per round of 10 clients; GEMM limit {best:.4f} s at"
        f" {row['gflops']:.0f} GFLOP/s: {best / cpu:.0%} of it"
    ]
    for peer, found in row["peers"].items():
        lines.append(
            f"  {peer}: {found['cpu_seconds']:.4f} CPU s, {found['cpu_seconds'] / cpu:.2f}x ours"
            f" ({versions_text(found)}; {found['parameters']:,} parameters)"
        )
    return "\n".join(lines)


def serve_two_nn(repeats: int, group: Group) -> None:
    """What the second process does; at module level, since it is spawned."""
    model = model_of("2nn")
    fl.serve(plan_of(model, repeats + 2), model, mnist_like(100), group=group)


def two_cores_row(given: argparse.Namespace) -> Row:
    """One process and two, by the wall clock."""
    model, data = model_of("2nn"), mnist_like(100)
    plan = plan_of(model, given.repeats + 2)
    one = seconds(plan, model, data, time.perf_counter)
    os.sched_setaffinity(0, set(range(os.cpu_count() or 1)))
    with workers.local(2, functools.partial(serve_two_nn, given.repeats)) as group:
        two = seconds(plan, model, data, time.perf_counter, group)
    return {"one": one, "two": two, "load_average": os.getloadavg()[0]}


def encode_row(given: argparse.Namespace) -> Row:
    """A client's vector from floats to wrapped integers."""
    dim = 199_210
    mechanism = dp.distributed(
        "skellam", dim=dim, clip_norm=1.0, noise_multiplier=1.0, num_clients=100, shares=80
    )
    rotation = dp.Rotation.from_seed(dim, bytes(32))
    vector = np.random.default_rng(0).normal(size=dim).astype(np.float32)
    vector /= np.linalg.norm(vector) * 1.01
    rng = secureagg.byte_stream(bytes(32))

    def encode() -> object:
        return dp.wrap(mechanism.encode(vector, rotation, rng), mechanism.modulus_bits)

    return {"ms": 1e3 * cpu_seconds(encode, repeats=given.repeats), "dim": dim}


def secure_row(name: str, given: argparse.Namespace) -> Row:
    """Ideal and Secure, which take turns since the machine's speed drifts, and the primitives."""
    model, data, clients = model_of(name), mnist_like(100, 10), 100

    def plan(kind: Callable[..., fl.Ideal | fl.Secure]) -> fl.Plan:
        masked = kind(corrupt=0.05, dropout=0.1, server="semi_honest")
        return plan_of(model, 5, privacy=fl.NotPrivate(1.0), aggregation=masked)

    cpu: dict[str, list[float]] = {"Ideal": [], "Secure": []}
    for _ in range(max(2, given.repeats // 2)):
        for kind in (fl.Ideal, fl.Secure):
            cpu[kind.__name__].append(seconds(plan(kind), model, data, time.process_time))
    params = fl.resolve(plan(fl.Secure), data).params
    if params is None:
        raise AssertionError("Secure has parameters")
    floor = sum(by_primitives(params, {}, rates_of(params)))
    predicted = secureagg.predict_cost(params, {})
    foreseen = sum(predicted.client_seconds.values()) + sum(predicted.server_seconds.values())
    ideal, secure = (statistics.median(cpu[name]) for name in ("Ideal", "Secure"))
    return {
        "ideal": ideal, "secure": secure, "clients": clients, "degree": params.degree,
        "dim": sum(segment.length for segment in params.segments), "primitives": floor,
        "packing": clients * packing(params), "predicted": foreseen,
        "over_primitives": (secure - ideal) / floor, "over_predicted": (secure - ideal) / foreseen,
    }  # fmt: skip


def secure_text(name: str, row: Row) -> str:
    """What masking adds to a client's round."""
    scale = 1e3 / row["clients"]
    extra = scale * (row["secure"] - row["ideal"])
    return (
        f"{name}: Ideal {row['ideal']:.3f}, Secure {row['secure']:.3f} CPU s per round, d ="
        f" {row['dim']:,}, {row['degree']} neighbours: {extra:.2f} ms per client more,"
        f" {row['over_primitives']:.2f}x the primitives ({scale * row['primitives']:.2f}"
        f" ms), {row['over_predicted']:.2f}x predicted; bits packed and unpacked:"
        f" {scale * row['packing']:.2f} ms"
    )


def in_processes(cases: Mapping[str, tuple[int, ...]]) -> Row:
    """What `sized` finds for each, in a process of its own, so that its memory is its own."""
    found = {}
    for key, case in cases.items():
        with get_context("spawn").Pool(1) as pool:
            found[key] = pool.apply(sized, case)
    return found


def scale_row(given: argparse.Namespace) -> Row:
    """CPU seconds and memory as the population grows."""
    sizes = (1_000, 10_000, 100_000)
    return in_processes({f"{n:,}": (n, 100, given.repeats) for n in sizes})


def memory_row(given: argparse.Namespace) -> Row:
    """Memory as chunk and cohort grow."""
    del given  # memory needs no repeats
    cases = [(100, 1), (400, 1), (100, 16), (400, 16), (100, 64), (400, 64)]
    return in_processes({
        f"cohort {cohort}, chunk {chunk}": (1000, cohort, 1, chunk) for cohort, chunk in cases
    })  # fmt: skip


def sized(clients: int, cohort: int, repeats: int, chunk: int | None = None) -> Row:
    """CPU seconds per round and the peak memory of this process."""
    workers.use_one_thread()
    model, data = model_of("2nn"), mnist_like(clients, 2)
    plan = plan_of(
        model, repeats + 2, cohort=fl.cohort.cyclic(cohort), privacy=fl.NotPrivate(1.0),
        aggregation=fl.Ideal(corrupt=0.05, dropout=0.1),
    )  # fmt: skip
    execution = fl.Execution() if chunk is None else fl.Execution("vmap", chunk)
    cpu = seconds(plan, model, data, time.process_time, execution=execution)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    held = sum(field.nbytes for field in data.fields.values()) / 2**20
    return {"cpu_seconds": cpu, "peak_mib": peak, "data_mib": held}


def sized_text(name: str, row: Row) -> str:
    """One line per size."""
    return "\n".join(
        f"{name}: {key}{' clients, cohort 100' if name == 'scale' else ''}:"
        f" {found['cpu_seconds']:.3f} CPU s per round, peak {found['peak_mib']:.0f} MiB"
        f" of which {found['data_mib']:.0f} are data"
        for key, found in row.items() if key != "run"
    )  # fmt: skip


def text(name: str, row: Row) -> str:
    """What a row says."""
    if name.partition(",")[0] in WORK:
        return epoch_text(name, row)
    if name.startswith("dpsgd-"):
        return _dpsgd.text(name, row)
    if name.startswith("secure"):
        return secure_text(name, row)
    if name in ("scale", "memory"):
        return sized_text(name, row)
    if name == "encode":
        return f"encode: {row['ms']:.1f} ms per client, d = {row['dim']:,}, Skellam"
    if name == "gemm":
        return f"gemm: {row['gflops']:.0f} GFLOP/s"
    return (
        f"two-cores: 2NN, 100 clients: {row['one']:.3f} s on one, {row['two']:.3f} s on two,"
        f" {row['one'] / row['two']:.2f}x; load average {row['load_average']:.1f}"
    )


ROWS: dict[str, Callable[[argparse.Namespace], Row]] = {
    "gemm": lambda _: {"gflops": gflops()},
    "2nn": functools.partial(epoch_row, "2nn"),
    "cnn": functools.partial(epoch_row, "cnn"),
    "dpsgd-2nn": functools.partial(_dpsgd.row, "2nn"),
    "dpsgd-cnn": functools.partial(_dpsgd.row, "cnn"),
    "two-cores": two_cores_row,
    "encode": encode_row,
    "secure": functools.partial(secure_row, "logistic"),
    "secure-2nn": functools.partial(secure_row, "2nn"),
    "scale": scale_row,
    "memory": memory_row,
}


def table(rows: Mapping[str, Row]) -> str:
    """What all rows say."""
    return "\n".join(text(name, row) for name, row in rows.items())


def main() -> None:
    """Measures the rows asked for, or prints what is there."""
    parser = options_of(__doc__)
    parser.add_argument("--rows", nargs="+", choices=[*ROWS], default=[*ROWS])
    parser.add_argument("--repeats", type=integer_from(1), default=7)
    take_peers(parser)
    given = parser.parse_args()
    results = Results("simulation_speed")
    if given.show:
        print(table(results.rows()))
        return
    workers.use_one_thread()
    for name in given.rows:
        pin()
        row = ROWS[name](given)
        peers = dict.fromkeys(peer.partition(",")[0] for peer in row.get("peers", ()))
        key = beside(name, [*peers])
        results.add(key, row)
        print(text(key, row), flush=True)


if __name__ == "__main__":
    main()
