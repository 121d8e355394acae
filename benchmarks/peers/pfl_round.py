"""CPU seconds of pfl-research's rounds: its own federated averaging on its simulated backend.

    python benchmarks/peers/pfl_round.py --model 2nn|cnn --clients 10 --rounds 9

For an environment of peers/environments.py; it imports nothing of this project. The last line
printed is JSON: median CPU seconds of a round after the first, and versions.
"""

import argparse
import importlib.metadata
import json
import statistics
import time
from typing import Any

import numpy as np
import torch
from _torch_models import BATCH, RATE, examples, model
from pfl.aggregate.simulate import SimulatedBackend
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.callback.base import TrainingProcessCallback
from pfl.data.dataset import Dataset
from pfl.data.federated_dataset import FederatedDataset
from pfl.data.sampling import get_user_sampler
from pfl.hyperparam.base import NNEvalHyperParams, NNTrainHyperParams
from pfl.metrics import Metrics
from pfl.model.pytorch import PyTorchModel
from torch import nn


class Net(nn.Module):
    """A model with the two methods that pfl asks for."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.net = model(name)

    def forward(self, x: Any) -> Any:
        """Logits."""
        return self.net(x)

    def loss(self, x: Any, y: Any, **_: Any) -> Any:
        """Mean cross entropy."""
        return nn.functional.cross_entropy(self.net(x), y)

    def metrics(self, *_: Any, **__: Any) -> dict[str, Any]:
        """None: nothing is evaluated."""
        return {}


class Clock(TrainingProcessCallback):
    """CPU seconds at the end of each round."""

    def __init__(self) -> None:
        self.marks: list[float] = []

    def after_central_iteration(
        self, aggregate_metrics: Any, model: Any, *, central_iteration: int
    ) -> tuple[bool, Metrics]:
        """Keeps the time and goes on."""
        self.marks.append(time.process_time())
        return False, Metrics()


def main() -> None:
    """Prints the JSON of what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=["2nn", "cnn"], required=True)
    parser.add_argument("--clients", type=int, required=True)
    parser.add_argument("--rounds", type=int, required=True)
    given = parser.parse_args()
    torch.set_num_threads(1)
    held = {i: Dataset(examples(i)) for i in range(given.clients)}
    data = FederatedDataset(held.__getitem__, get_user_sampler("minimize_reuse", list(held)))
    net = Net(given.model)
    clock = Clock()
    FederatedAveraging().run(
        backend=SimulatedBackend(training_data=data, val_data=data),
        model=PyTorchModel(net, torch.optim.SGD, torch.optim.SGD(net.parameters(), lr=1.0)),
        algorithm_params=NNAlgorithmParams(
            central_num_iterations=given.rounds + 1, evaluation_frequency=10**6,
            train_cohort_size=given.clients, val_cohort_size=0,
        ),
        model_train_params=NNTrainHyperParams(
            local_num_epochs=1, local_learning_rate=RATE, local_batch_size=BATCH
        ),
        model_eval_params=NNEvalHyperParams(local_batch_size=None),
        callbacks=[clock],
    )  # fmt: skip
    used = {name: importlib.metadata.version(name) for name in ("pfl", "torch")}
    size = sum(weight.numel() for weight in net.parameters())
    median = statistics.median(np.diff(clock.marks).tolist())
    print(json.dumps({"cpu_seconds": median, "parameters": size, "versions": used}))


if __name__ == "__main__":
    main()
