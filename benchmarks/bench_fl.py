"""Training: CPU seconds per round, beside what its matrix products take at best.

    python -m benchmarks.bench_fl [--rows 2nn cnn ...] [--repeats 7] [--data-dir DIR]

Pinned to one core but for the row of two, single-threaded, medians of CPU seconds of this process
(wall-clock where two processes work). Data are synthetic and shaped like MNIST; "to-target" needs
the MNIST files in --data-dir. Rows:

    gemm       float32 GFLOP/s of a 1024^3 product: the limit of the others
    2nn, cnn   10 clients x 600 examples, batches of 10, one local epoch
    two-cores  2NN, 100 clients: two pinned processes against one
    encode     rotate, round, noise for one client, d = 199,210
    secure     Secure minus Ideal per client and round against the protocol's predicted primitives
    scale      seconds per round and memory at 1e3, 1e4, 1e5 clients with a cohort of 100
    to-target  rounds to 97 % of the 2NN, IID, C = 0.1, E = 1, B = 10 (87 in McMahan et al. 2017)
"""

import argparse
import functools
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax

import dp
import fl
import secureagg
from fl import workers
from fl.group import Group

WORK = {"2nn": 0.528, "cnn": 43.4}  # GFLOP of one client's epoch, forward and backward


def mnist_like(clients: int, examples: int = 600) -> fl.FederatedDataset:
    """Noise with labels; the work is that of MNIST."""
    rng = np.random.default_rng(0)
    x = rng.random((clients * examples, 784), dtype=np.float32)
    y = rng.integers(0, 10, len(x)).astype(np.int32)
    owners = np.repeat(np.arange(clients), examples)
    return fl.FederatedDataset.from_arrays({"x": x, "y": y}, owners, num_classes=10)


def model_of(name: str) -> fl.Model:
    if name == "cnn":
        return fl.models.cnn(784, 10, form="lax")
    return fl.models.two_nn(784, 10) if name == "2nn" else fl.models.logistic(784, 10)


def plan_of(model: fl.Model, rounds: int, **overrides: object) -> fl.Plan:
    algorithm = fl.fedavg(
        model.loss, client_optimizer=optax.sgd(0.1), server_optimizer=optax.sgd(1.0),
        batch_size=10, local_epochs=1,
    )  # fmt: skip
    settings: dict[str, object] = {
        "rounds": rounds, "cohort": fl.cohort.full(), "algorithm": algorithm,
        "privacy": fl.NotPrivate(), "aggregation": fl.Plain(), "seed": 0, "eval_every": 10**6,
        **overrides,
    }  # fmt: skip
    return fl.Plan(**settings)  # type: ignore[arg-type]  # checked by the plan


def seconds(
    plan: fl.Plan, model: fl.Model, data: fl.FederatedDataset, clock: Callable[[], float],
    group: Group | None = None,
) -> float:  # fmt: skip
    """Median seconds of the rounds after the first, which compiles."""
    marks = []
    for _ in fl.rounds(plan, model, data, group=group):
        marks.append(clock())
    return statistics.median(np.diff(marks[:-1]).tolist())


def gflops() -> float:
    a = jnp.ones((1024, 1024))
    product = jax.jit(jnp.matmul)
    product(a, a).block_until_ready()
    taken = []
    for _ in range(9):
        begin = time.process_time()
        product(a, a).block_until_ready()
        taken.append(time.process_time() - begin)
    return 2 * 1024**3 / statistics.median(taken) / 1e9


def epoch_row(name: str, repeats: int) -> None:
    model, data, limit = model_of(name), mnist_like(10), gflops()
    cpu = seconds(plan_of(model, repeats + 2), model, data, time.process_time)
    best = 10 * WORK[name] / limit
    print(
        f"{name}: {cpu:.4f} CPU s per round of 10 clients; GEMM limit {best:.4f} s at"
        f" {limit:.0f} GFLOP/s: {best / cpu:.0%} of it"
    )


def serve_two_nn(repeats: int, group: Group) -> None:
    """What the second process does; at module level, since it is spawned."""
    model = model_of("2nn")
    fl.serve(plan_of(model, repeats + 2), model, mnist_like(100), group=group)


def two_cores_row(repeats: int) -> None:
    model, data = model_of("2nn"), mnist_like(100)
    plan = plan_of(model, repeats + 2)
    one = seconds(plan, model, data, time.perf_counter)
    os.sched_setaffinity(0, set(range(os.cpu_count() or 1)))
    with workers.local(2, functools.partial(serve_two_nn, repeats)) as group:
        two = seconds(plan, model, data, time.perf_counter, group)
    print(
        f"two-cores: 2NN, 100 clients: {one:.3f} s on one, {two:.3f} s on two, {one / two:.2f}x;"
        f" load average {os.getloadavg()[0]:.1f}"
    )


def encode_row(repeats: int) -> None:
    dim = 199_210
    mechanism = dp.distributed(
        "skellam", dim=dim, clip_norm=1.0, noise_multiplier=1.0, num_clients=100, shares=80
    )
    rotation = dp.Rotation.from_seed(dim, bytes(32))
    vector = np.random.default_rng(0).normal(size=dim).astype(np.float32)
    vector /= np.linalg.norm(vector) * 1.01
    rng = secureagg.byte_stream(bytes(32))
    taken = []
    for _ in range(repeats + 1):
        begin = time.process_time()
        dp.wrap(mechanism.encode(vector, rotation, rng), mechanism.modulus_bits)
        taken.append(time.process_time() - begin)
    print(f"encode: {1e3 * statistics.median(taken[1:]):.1f} ms per client, d = {dim:,}, Skellam")


def secure_row(repeats: int) -> None:
    model, data, clients = model_of("logistic"), mnist_like(100, 10), 100
    cpu = {}
    for kind in (fl.Ideal, fl.Secure):
        plan = plan_of(
            model, repeats + 2, privacy=fl.NotPrivate(1.0),
            aggregation=kind(corrupt=0.05, dropout=0.1, server="semi_honest"),
        )  # fmt: skip
        cpu[kind] = seconds(plan, model, data, time.process_time)
    resolved = fl.resolve(plan, data)
    if resolved.params is None:
        raise AssertionError("Secure has parameters")
    predicted = secureagg.predict_cost(resolved.params, {})
    primitives = sum(predicted.client_seconds.values()) + sum(predicted.server_seconds.values())
    extra = cpu[fl.Secure] - cpu[fl.Ideal]
    print(
        f"secure: Ideal {cpu[fl.Ideal]:.3f}, Secure {cpu[fl.Secure]:.3f} CPU s per round:"
        f" {1e3 * extra / clients:.2f} ms per client more, {extra / primitives:.2f}x predicted"
    )


def scale_row(repeats: int) -> None:
    for clients in (1_000, 10_000, 100_000):
        code = f"from benchmarks.bench_fl import scale_one; scale_one({clients}, {repeats})"
        subprocess.run([sys.executable, "-c", code], check=True)  # noqa: S603 - its own code


def scale_one(clients: int, repeats: int) -> None:
    """One size in a process of its own, so that its memory is its own."""
    model, data = model_of("2nn"), mnist_like(clients, 2)
    plan = plan_of(
        model, repeats + 2, cohort=fl.cohort.cyclic(100), privacy=fl.NotPrivate(1.0),
        aggregation=fl.Ideal(corrupt=0.05, dropout=0.1),
    )  # fmt: skip
    cpu = seconds(plan, model, data, time.process_time)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    held = sum(field.nbytes for field in data.fields.values()) / 2**20
    print(
        f"scale: {clients:,} clients, cohort 100: {cpu:.3f} CPU s per round, peak {peak:.0f} MB"
        f" of which {held:.0f} MB are data"
    )


def to_target_row(data_dir: str | None) -> None:
    if data_dir is None:
        raise SystemExit("to-target needs --data-dir with the MNIST files")
    data = fl.datasets.load(
        "mnist-writers", data_dir=data_dir, clients=None, partition=None, seed=0
    )
    order = np.random.default_rng(0).permutation(data.num_examples)
    fields = {name: field[order] for name, field in data.fields.items()}
    owners = np.arange(data.num_examples) % 100
    iid = fl.FederatedDataset.from_arrays(fields, owners, test=data.test, num_classes=10)
    model = model_of("2nn")
    plan = plan_of(model, 300, cohort=fl.cohort.fixed(10, 300), eval_every=1)
    for finished in fl.rounds(plan, model, iid):
        if finished.metrics["accuracy"] >= 0.97:
            print(
                f"to-target: 97 % after {finished.index + 1} rounds ({iid.num_examples} examples)"
            )
            return
    print(f"to-target: {finished.metrics['accuracy']:.2%} after {plan.rounds} rounds")


ROWS = ("gemm", "2nn", "cnn", "two-cores", "encode", "secure", "scale", "to-target")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS[:-1]))
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--data-dir")
    given = parser.parse_args()
    workers.use_one_thread()
    for row in given.rows:
        os.sched_setaffinity(0, {0})
        if row == "gemm":
            print(f"gemm: {gflops():.0f} GFLOP/s")
        elif row in WORK:
            epoch_row(row, given.repeats)
        elif row == "to-target":
            to_target_row(given.data_dir)
        else:
            rows = {"two-cores": two_cores_row, "encode": encode_row, "secure": secure_row,
                    "scale": scale_row}  # fmt: skip
            rows[row](given.repeats)


if __name__ == "__main__":
    main()
