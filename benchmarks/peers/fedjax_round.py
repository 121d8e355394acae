"""CPU seconds of FedJAX's rounds: its own federated averaging, one jitted step at a time.

    python benchmarks/peers/fedjax_round.py --model 2nn|cnn --clients 10 --rounds 9

For an environment of peers/environments.py; it imports nothing of this project. The last line
printed is JSON: median CPU seconds of a round after the first, and versions.
"""

import argparse
import importlib.metadata
import json
import statistics
import time
from typing import Any

import fedjax
import haiku as hk
import jax
import numpy as np

EXAMPLES, BATCH, RATE = 600, 10, 0.1


def network(name: str) -> Any:
    """The row's model, in Haiku, as FedJAX takes it."""
    if name == "2nn":
        layers = [hk.Linear(200), jax.nn.relu, hk.Linear(200), jax.nn.relu, hk.Linear(10)]
    else:
        layers = [
            lambda x: x.reshape(-1, 28, 28, 1),
            hk.Conv2D(32, 5), jax.nn.relu, hk.MaxPool((2, 2, 1), (2, 2, 1), "VALID"),
            hk.Conv2D(64, 5), jax.nn.relu, hk.MaxPool((2, 2, 1), (2, 2, 1), "VALID"),
            hk.Flatten(), hk.Linear(512), jax.nn.relu, hk.Linear(10),
        ]  # fmt: skip
    return hk.Sequential(layers)


def main() -> None:
    """Prints the JSON of what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=["2nn", "cnn"], required=True)
    parser.add_argument("--clients", type=int, required=True)
    parser.add_argument("--rounds", type=int, required=True)
    given = parser.parse_args()
    sample = {"x": np.zeros((1, 784), np.float32), "y": np.zeros(1, np.int32)}
    model = fedjax.create_model_from_haiku(
        hk.transform(lambda batch: network(given.model)(batch["x"])),
        sample,
        train_loss=lambda batch, out: fedjax.metrics.unreduced_cross_entropy_loss(batch["y"], out),
    )
    gradient = fedjax.model_grad(model)
    rng = np.random.default_rng(0)
    clients = [
        (
            str(i),
            fedjax.ClientDataset({
                "x": rng.random((EXAMPLES, 784), dtype=np.float32),
                "y": rng.integers(0, 10, EXAMPLES).astype(np.int32),
            }),
            jax.random.PRNGKey(i),
        )
        for i in range(given.clients)
    ]  # fmt: skip
    algorithm = fedjax.algorithms.fed_avg.federated_averaging(
        gradient, fedjax.optimizers.sgd(RATE), fedjax.optimizers.sgd(1.0),
        fedjax.ShuffleRepeatBatchHParams(batch_size=BATCH, num_epochs=1, seed=0),
    )  # fmt: skip
    state = algorithm.init(model.init(jax.random.PRNGKey(0)))
    taken = []
    for _ in range(given.rounds + 1):
        begin = time.process_time()
        state, _ = algorithm.apply(state, clients)
        for leaf in jax.tree_util.tree_leaves(state.params):
            leaf.block_until_ready()
        taken.append(time.process_time() - begin)
    size = sum(leaf.size for leaf in jax.tree_util.tree_leaves(state.params))
    used = {name: importlib.metadata.version(name) for name in ("fedjax", "jax")}
    median = statistics.median(taken[1:])
    print(json.dumps({"cpu_seconds": median, "parameters": size, "versions": used}))


if __name__ == "__main__":
    main()
