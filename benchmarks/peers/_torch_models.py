"""The 2NN and the CNN of McMahan et al. 2017 in torch, and the peers' common data."""

from typing import Any

import numpy as np
import torch
from torch import nn

EXAMPLES, BATCH, RATE = 600, 10, 0.1


def model(name: str) -> nn.Module:
    """199,210 or 1,663,370 parameters."""
    if name == "2nn":
        return nn.Sequential(
            nn.Linear(784, 200), nn.ReLU(), nn.Linear(200, 200), nn.ReLU(), nn.Linear(200, 10)
        )
    return nn.Sequential(
        nn.Unflatten(1, (1, 28, 28)),
        nn.Conv2d(1, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(3136, 512), nn.ReLU(), nn.Linear(512, 10),
    )  # fmt: skip


def examples(client: int) -> tuple[Any, Any]:
    """One client's 600 examples: noise with labels; the work is that of MNIST."""
    rng = np.random.default_rng(client)
    x = torch.from_numpy(rng.random((EXAMPLES, 784), dtype=np.float32))
    return x, torch.from_numpy(rng.integers(0, 10, EXAMPLES))
