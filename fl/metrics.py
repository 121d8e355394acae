"""Evaluation on the public test set, and on the clients' own examples, which are private."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import numpy as np
from numpy.typing import NDArray

from fl.client import bucket_of, buckets
from fl.datasets.dataset import FederatedDataset
from fl.models import Model
from fl.types import PyTree

EVAL_BATCH = 2048
CLIENTS_AT_ONCE = 16  # evaluated in one compiled call, one after the other
HIGHER_IS_BETTER = frozenset({"accuracy", "auc", "precision", "r2", "recall"})


def evaluator(
    model: Model, examples: Mapping[str, NDArray[np.generic]]
) -> Callable[[PyTree], dict[str, float]]:
    """Returns params -> {name: mean over the test examples}; compiles once.

    Args:
        model: its `metrics` are averaged.
        examples: fields [N, ...] of a public test set, outside the privacy guarantee.
    """
    sums = jax.jit(model.metrics)
    size = len(next(iter(examples.values())))
    batch = max(1, min(EVAL_BATCH, size))  # an empty set has no batches, hence no means
    batches = []
    for start in range(0, size, batch):
        count = min(batch, size - start)
        fields = {
            name: np.concatenate(
                [field[start : start + count], np.repeat(field[:1], batch - count, axis=0)]
            )
            for name, field in examples.items()
        }
        mask = (np.arange(batch) < count).astype(np.float32)
        batches.append({**fields, "mask": mask})

    def evaluate(params: PyTree) -> dict[str, float]:
        totals: dict[str, tuple[float, float]] = {}
        for fields in batches:
            for name, (total, count) in sums(params, fields).items():
                before = totals.get(name, (0.0, 0.0))
                totals[name] = (before[0] + float(total), before[1] + float(count))
        return {name: total / count for name, (total, count) in totals.items()}

    return evaluate


class ClientFigures(NamedTuple):
    """One metric over clients, each client counting once.

    Attributes:
        mean: over clients.
        worst: the lowest of metrics that are better when high (HIGHER_IS_BETTER), else the highest.
        deciles: the nine from 10 % to 90 %, ascending.
        clients: how many have examples.
    """

    mean: float
    worst: float
    deciles: tuple[float, ...]
    clients: int

    def flat(self, name: str) -> dict[str, float]:
        """Returns the figures under names such as "accuracy_p10"."""
        tenths = {f"{name}_p{10 * (k + 1)}": value for k, value in enumerate(self.deciles)}
        return {f"{name}_mean": self.mean, f"{name}_worst": self.worst, **tenths}


def client_evaluator(
    model: Model, data: FederatedDataset
) -> Callable[[PyTree], dict[str, ClientFigures]]:
    """Returns params -> {name: figures over the clients' own training examples}.

    They are private data: in a private plan what this returns is outside the guarantee.

    Args:
        model: its `metrics`.
        data: clients without examples are left out.
    """
    owners = np.flatnonzero(data.sizes > 0)
    shapes = buckets(data.sizes)
    sums = jax.jit(
        lambda params, batches: jax.lax.map(lambda batch: model.metrics(params, batch), batches)
    )

    def batches(bucket: int, ids: NDArray[np.int64]) -> dict[str, NDArray[np.generic]]:
        found: dict[str, NDArray[np.generic]] = {
            name: np.zeros((CLIENTS_AT_ONCE, bucket, *field.shape[1:]), field.dtype)
            for name, field in data.fields.items()
        }
        mask = np.zeros((CLIENTS_AT_ONCE, bucket), np.float32)
        for k, client in enumerate(ids.tolist()):
            for name, field in data.client(client).items():
                found[name][k, : len(field)] = field
            mask[k, : int(data.sizes[client])] = 1.0
        return {**found, "mask": mask}

    def evaluate(params: PyTree) -> dict[str, ClientFigures]:
        values: dict[str, list[float]] = {}
        padded = bucket_of(data.sizes[owners], shapes)
        for bucket in np.unique(padded).tolist():
            members = owners[padded == bucket]
            for start in range(0, len(members), CLIENTS_AT_ONCE):
                ids = members[start : start + CLIENTS_AT_ONCE]
                for name, (total, count) in sums(params, batches(bucket, ids)).items():
                    means = np.asarray(total)[: len(ids)] / np.asarray(count)[: len(ids)]
                    values.setdefault(name, []).extend(means.tolist())
        return {name: client_figures(name, np.array(found)) for name, found in values.items()}

    return evaluate


def client_figures(name: str, values: NDArray[np.float64]) -> ClientFigures:
    """Returns mean, worst and deciles of a metric's values, one per client."""
    worst = values.min() if name in HIGHER_IS_BETTER else values.max()
    deciles = tuple(np.quantile(values, np.arange(1, 10) / 10).tolist())
    return ClientFigures(float(values.mean()), float(worst), deciles, len(values))
