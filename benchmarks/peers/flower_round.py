"""CPU seconds of Flower's simulated rounds: FedAvg over Ray, torch clients.

    python benchmarks/peers/flower_round.py --model 2nn|cnn --clients 10 --rounds 9

For an environment of peers/environments.py; it imports nothing of this project. Counted are all
processes of the simulation, found by a mark in their environment. The last line printed is JSON:
median CPU seconds of a round after the first, and versions.
"""

import argparse
import functools
import importlib
import importlib.metadata
import json
import os
import statistics
import sys
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _torch_models import BATCH, RATE, examples, model
from flwr.client import ClientApp, NumPyClient
from flwr.common import Context, ndarrays_to_parameters
from flwr.server import ServerApp, ServerAppComponents, ServerConfig
from flwr.server.strategy import FedAvg
from flwr.simulation import run_simulation
from torch import nn

MARK = "PEER_ROUND"


@functools.cache
def held(client: int) -> tuple[Any, Any]:
    """Kept by the worker's process."""
    x, y = examples(client)
    return x, y


class Client(NumPyClient):
    """One epoch of SGD."""

    def __init__(self, name: str, client: int) -> None:
        torch.set_num_threads(1)
        self.net, (self.x, self.y) = model(name), held(client)

    def fit(self, parameters: Any, config: Any) -> tuple[list[Any], int, dict[str, Any]]:
        """Weights after the epoch."""
        with torch.no_grad():
            for weight, value in zip(self.net.parameters(), parameters, strict=True):
                weight.copy_(torch.from_numpy(np.asarray(value)))
        optimizer = torch.optim.SGD(self.net.parameters(), lr=RATE)
        order = torch.randperm(len(self.x))
        for begin in range(0, len(self.x), BATCH):
            rows = order[begin : begin + BATCH]
            optimizer.zero_grad()
            nn.functional.cross_entropy(self.net(self.x[rows]), self.y[rows]).backward()
            optimizer.step()
        return [w.detach().numpy() for w in self.net.parameters()], len(self.x), {}


def client_of(name: str, context: Context) -> Any:
    """The client of a simulated node, by its partition."""
    return Client(name, int(context.node_config["partition-id"])).to_client()


def tree_seconds(mark: str) -> float:
    """CPU seconds of every living process that carries the mark."""
    tick, total = os.sysconf("SC_CLK_TCK"), 0.0
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if f"{MARK}={mark}".encode() in (entry / "environ").read_bytes():
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                total += (int(fields[11]) + int(fields[12])) / tick
        except OSError:  # it ended
            continue
    return total


def main() -> None:
    """Prints the JSON of what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=["2nn", "cnn"], required=True)
    parser.add_argument("--clients", type=int, required=True)
    parser.add_argument("--rounds", type=int, required=True)
    given = parser.parse_args()
    if MARK not in os.environ:  # a process shows the environment that it was started with
        here = str(Path(__file__).parent)
        marked = {**os.environ, MARK: uuid.uuid4().hex, "PYTHONPATH": here, "OMP_NUM_THREADS": "1",
                  "FLWR_TELEMETRY_ENABLED": "0", "RAY_USAGE_STATS_ENABLED": "0"}  # fmt: skip
        os.execve(sys.executable, [sys.executable, *sys.argv], marked)  # noqa: S606 - itself
    # Imported and not of the main script, which Ray's workers would get by value every time.
    module: Any = importlib.import_module("flower_round")
    net, marks = model(given.model), []
    start = ndarrays_to_parameters([w.detach().numpy() for w in net.parameters()])

    def mark(server_round: int, parameters: Any, config: Any) -> tuple[float, dict[str, Any]]:
        marks.append(tree_seconds(os.environ[MARK]))
        return 0.0, {}

    def server(context: Context) -> ServerAppComponents:
        strategy = FedAvg(
            fraction_fit=1.0, fraction_evaluate=0.0, min_fit_clients=given.clients,
            min_available_clients=given.clients, initial_parameters=start, evaluate_fn=mark,
        )  # fmt: skip
        return ServerAppComponents(
            strategy=strategy, config=ServerConfig(num_rounds=given.rounds + 1)
        )

    run_simulation(
        ServerApp(server_fn=server),
        ClientApp(client_fn=functools.partial(module.client_of, given.model)),
        num_supernodes=given.clients,
        backend_config={
            "init_args": {"num_cpus": 1}, "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
        },
    )  # fmt: skip
    used = {name: importlib.metadata.version(name) for name in ("flwr", "ray", "torch")}
    size = sum(weight.numel() for weight in net.parameters())
    median = statistics.median(np.diff(marks[1:]).tolist())
    print(json.dumps({"cpu_seconds": median, "parameters": size, "versions": used}))


if __name__ == "__main__":
    main()
