"""Federated algorithms: one file each, on the contract of `fl.algorithms.base`."""

from fl.algorithms.base import Algorithm, Batching, Broadcast, ServerState
from fl.algorithms.dp_ftrl import dp_ftrl
from fl.algorithms.fedavg import fedavg
from fl.algorithms.fedprox import fedprox
from fl.algorithms.fedsgd import fedsgd
from fl.algorithms.scaffold import scaffold
from fl.algorithms.server_optimizers import fedadagrad, fedadam, fedavgm, fedyogi

__all__ = [
    "Algorithm",
    "Batching",
    "Broadcast",
    "ServerState",
    "dp_ftrl",
    "fedadagrad",
    "fedadam",
    "fedavg",
    "fedavgm",
    "fedprox",
    "fedsgd",
    "fedyogi",
    "scaffold",
]
