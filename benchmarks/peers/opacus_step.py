"""CPU seconds of Opacus' DP-SGD steps: gradients per example by hooks and by ghosts.

    python benchmarks/peers/opacus_step.py --model 2nn --start START.npz --clip 1 --noise 1e-3
        --rate 0.1 --steps 9

START holds a batch, x and y, and the weights w0, w1, ... to begin with. For an environment of
peers/environments.py; it imports nothing of this project. The last line printed is JSON: median
CPU seconds of a step after the first, and the loss after the last, with noise and without, by kind
of gradients.
"""

import argparse
import importlib.metadata
import json
import statistics
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _torch_models import model
from opacus import PrivacyEngine
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def steps(given: argparse.Namespace, kind: str, noise: float) -> tuple[float, float]:
    """Trains on the one batch, whole in every step: (median seconds of a step, last loss)."""
    start, net = np.load(given.start), model(given.model)
    for place, weight in enumerate(net.parameters()):
        weight.data.copy_(torch.from_numpy(start[f"w{place}"]))
    x, y = torch.from_numpy(start["x"]), torch.from_numpy(start["y"]).long()
    made = PrivacyEngine().make_private(
        module=net, optimizer=torch.optim.SGD(net.parameters(), lr=given.rate),
        criterion=nn.CrossEntropyLoss(),
        data_loader=DataLoader(TensorDataset(x, y), batch_size=len(x)),
        noise_multiplier=noise, max_grad_norm=given.clip, poisson_sampling=False,
        grad_sample_mode=kind,
    )  # fmt: skip
    private, optimizer, criterion = made[0], made[1], nn.CrossEntropyLoss()
    if kind == "ghost":
        criterion = made[2]
    taken = []
    for _ in range(given.steps):
        begin = time.process_time()
        optimizer.zero_grad()
        criterion(private(x), y).backward()
        optimizer.step()
        taken.append(time.process_time() - begin)
    with torch.no_grad():
        loss = float(nn.functional.cross_entropy(net(x), y))
    return statistics.median(taken[1:]), loss


def main() -> None:
    """Prints both kinds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=["2nn", "cnn"], required=True)
    parser.add_argument("--start", type=Path, required=True)
    parser.add_argument("--clip", type=float, required=True)
    parser.add_argument("--noise", type=float, required=True)
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--steps", type=int, required=True)
    given = parser.parse_args()
    warnings.simplefilter("ignore")  # that its noise is not from a secure generator, by default
    torch.set_num_threads(1)
    torch.manual_seed(0)
    used = {name: importlib.metadata.version(name) for name in ("opacus", "torch")}
    found: dict[str, Any] = {"versions": used}
    for kind in ("hooks", "ghost"):
        seconds, noised = steps(given, kind, given.noise)
        _, loss = steps(given, kind, 0.0)
        found[kind] = {"cpu_seconds": seconds, "noised_loss": noised, "loss": loss}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
