"""Evaluation on the public test set, in fixed-size batches."""

from collections.abc import Callable, Mapping

import jax
import numpy as np
from numpy.typing import NDArray

from fl.models import Model
from fl.types import PyTree

EVAL_BATCH = 2048


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
