"""How a cohort trains fastest: seconds per round by strategy and chunk, CPU or accelerator.

    python -m benchmarks.strategies [--models 2nn cnn cnn-lax lstm] [--clients 64]
        [--ways auto scan-16 vmap-64 ...] [--populations 1000 ...] [--repeats 5] [--show]

The backend is the one that JAX finds; JAX_PLATFORMS=cpu asks for the CPU of a machine that has an
accelerator too. One process, single-threaded on the CPU. Figures are medians of wall-clock seconds
over the rounds after the first, which compiles, since an accelerator's work is no CPU time of the
process; its CPU seconds stand beside them.

A round: every client trains one local epoch in batches of 10, the means are plain. Data are
synthetic: 600 examples shaped like MNIST, for "lstm" 60 windows of 80 characters. On the CPU
"vmap" is left out for convolutions, which take minutes so. `--populations` adds rounds of a cohort
of 100 clients with 2 examples each, taken in turn from that many. "auto" is what `fl` chooses.
Finished rows are written to results/strategies.json, over older ones; `--show` prints those.
"""

import statistics
import time
from collections.abc import Mapping, Sequence

import jax
import numpy as np

import fl
from benchmarks._results import Results, Row
from benchmarks._script import integer_from, options_of
from benchmarks._training import mnist_like, model_of, plan_of
from fl import workers
from fl.datasets.text import NUM_SYMBOLS

MODELS = ("2nn", "cnn", "cnn-lax", "lstm")
WAYS = ("auto", "scan-1", "scan-4", "scan-16", "steps", "vmap-1", "vmap-4", "vmap-16", "vmap-64")


def setting(name: str, clients: int) -> tuple[fl.Model, fl.FederatedDataset]:
    """A model and data of its kind."""
    if name == "lstm":
        rng = np.random.default_rng(0)
        windows = rng.integers(1, NUM_SYMBOLS, (60 * clients, 81)).astype(np.int32)
        fields = {"x": windows[:, :-1].copy(), "y": windows[:, 1:].copy()}
        data = fl.FederatedDataset.from_arrays(fields, np.repeat(np.arange(clients), 60))
        return fl.models.char_lstm(NUM_SYMBOLS), data
    if name == "cnn":
        return fl.models.cnn(784, 10, form="im2col"), mnist_like(clients)
    return model_of(name.removesuffix("-lax")), mnist_like(clients)


def execution(way: str) -> fl.Execution:
    """Of a name in WAYS."""
    strategy, _, chunk = way.partition("-")
    return fl.Execution(strategy, int(chunk) if chunk else None)


def worth_trying(way: str, name: str, clients: int) -> bool:
    """A chunk beyond the cohort is padding; see the module for convolutions."""
    slow = name.startswith("cnn") and jax.default_backend() == "cpu"
    return (execution(way).chunk or 0) <= clients and not (slow and way.startswith("vmap"))


def measure(
    model: fl.Model, data: fl.FederatedDataset, cohort: fl.cohort.Cohort,
    how: fl.Execution, repeats: int,
) -> Row:  # fmt: skip
    """Seconds per round, wall-clock and of this process, and where they go."""
    plan = plan_of(model, repeats + 2, cohort=cohort)
    wall, cpu = [], []
    for _ in fl.rounds(plan, model, data, execution=how):
        wall.append(time.perf_counter())
        cpu.append(time.process_time())
    took, used = np.diff(wall[:-1]).tolist(), np.diff(cpu[:-1]).tolist()
    return {
        "seconds": statistics.median(took), "cpu_seconds": statistics.median(used),
        "backend": jax.default_backend(), "device": jax.devices()[0].device_kind,
    }  # fmt: skip


def table(rows: Mapping[str, Row]) -> str:
    """One line per row."""
    lines = [f"{'':52}{'s per round':>12}{'CPU s':>9}  device"]
    lines += [
        f"{key:52}{row['seconds']:12.4f}{row['cpu_seconds']:9.4f}  {row['device']}"
        for key, row in rows.items()
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Times the cases asked for, and prints the table."""
    parser = options_of(__doc__)
    parser.add_argument("--models", nargs="*", choices=MODELS, default=[*MODELS])
    parser.add_argument("--clients", type=integer_from(1), default=64)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=[*WAYS])
    parser.add_argument("--populations", type=int, nargs="*", default=[])
    parser.add_argument("--repeats", type=integer_from(1), default=5)
    given = parser.parse_args(arguments)
    results = Results("strategies")
    if not given.show:
        workers.use_one_thread()
        cases = [
            (f"{name}/{given.clients} clients", *setting(name, given.clients),
             fl.cohort.full(), way)
            for name in given.models for way in given.ways
            if worth_trying(way, name, given.clients)
        ] + [
            (f"2nn/100 of {clients:,}", model_of("2nn"), mnist_like(clients, 2),
             fl.cohort.cyclic(100), "auto")
            for clients in given.populations
        ]  # fmt: skip
        for title, model, data, cohort, way in cases:
            row = measure(model, data, cohort, execution(way), given.repeats)
            key = f"{row['backend']}/{title}/{way}"
            results.add(key, row)
            print(f"{key}: {row['seconds']:.4f} s, CPU {row['cpu_seconds']:.4f} s", flush=True)
    print(table(results.rows()))


if __name__ == "__main__":
    main()
