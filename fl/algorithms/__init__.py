"""Federated algorithms: one file each, on the contract of `fl.algorithms.base`."""

from fl.algorithms.base import Algorithm, Batching, ServerState
from fl.algorithms.fedavg import fedavg

__all__ = ["Algorithm", "Batching", "ServerState", "fedavg"]
