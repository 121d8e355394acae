"""The same plan under several seeds: means with intervals, and what all runs cost together."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fl._validate import integer_fault
from fl.datasets.dataset import FederatedDataset
from fl.errors import PlanError, fault
from fl.models import Model
from fl.plan import Plan, resolve
from fl.statement import Statement, statement
from fl.train import train

# Student's t at 97.5 % for 1 to 30 degrees of freedom; the normal quantile beyond is 1.960.
_T = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
    2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056,
    2.052, 2.048, 2.045, 2.042,
)  # fmt: skip


@dataclass(frozen=True)
class Figure:
    """One metric over the seeds.

    Attributes:
        mean: over seeds.
        low: of the 95 % interval of the mean (Student's t).
        high: of that interval.
        values: by seed, in order.
    """

    mean: float
    low: float
    high: float
    values: tuple[float, ...]


@dataclass(frozen=True)
class Sweep:
    """Finished runs that differ in their seed alone.

    Attributes:
        seeds: of the runs.
        metrics: of the final models on the test set.
        privacy: the statement of all runs together, which see the same clients and so compose.
    """

    seeds: tuple[int, ...]
    metrics: Mapping[str, Figure]
    privacy: Statement

    def to_dict(self) -> dict[str, Any]:
        """Returns the sweep as plain data."""
        return {
            "seeds": list(self.seeds),
            "metrics": {
                name: {
                    "mean": found.mean, "low": found.low, "high": found.high,
                    "values": list(found.values),
                }
                for name, found in self.metrics.items()
            },
            "privacy": self.privacy.to_dict(),
        }  # fmt: skip

    def __str__(self) -> str:
        return "\n".join(
            f"{name} {found.mean:.4g} [{found.low:.4g}, {found.high:.4g}] over "
            f"{len(self.seeds)} seeds"
            for name, found in self.metrics.items()
        )


def sweep(
    plan: Plan,
    model: Model,
    data: FederatedDataset,
    *,
    seeds: Sequence[int],
    out: str | Path | None = None,
    tensorboard: bool = False,
) -> Sweep:
    """Runs a plan once for every seed, over the same clients.

    Args:
        plan: its own seed is not used.
        model: as in `fl.train`.
        data: as in `fl.train`; the partition is the same in every run.
        seeds: at least two, all different.
        out: each run goes to out/seed-<seed>; None to keep nothing.
        tensorboard: write every round to the run's directory as events, too.

    Raises:
        PlanError: with every fault of plan or seeds.
        StoreError: a directory holds a run already.
        MissingExtraError: `tensorboard` needs a package that is not installed.
    """
    _check_seeds(seeds)
    resolved = resolve(plan, data, model=model)
    values: dict[str, list[float]] = {}
    for seed in seeds:
        where = None if out is None else Path(out) / f"seed-{seed}"
        run = train(replace(plan, seed=seed), model, data, out=where, tensorboard=tensorboard)
        for name, value in run.metrics.items():
            values.setdefault(name, []).append(value)
    one, count = resolved.exposure, len(seeds)
    together = replace(
        one,
        scheduled=one.scheduled * count,
        max_releases=one.max_releases * count,
        failure_prob=min(1.0, one.failure_prob * count),
        rounds=one.rounds * count,
        runs=count,
    )
    figures = {name: interval(found) for name, found in values.items()}
    return Sweep(tuple(seeds), figures, statement(together))


def interval(values: Sequence[float]) -> Figure:
    """Returns the mean of at least two values with its 95 % interval by Student's t."""
    mean, degrees = statistics.fmean(values), len(values) - 1
    quantile = _T[degrees - 1] if degrees <= len(_T) else 1.960
    half = quantile * statistics.stdev(values) / math.sqrt(len(values))
    return Figure(mean, mean - half, mean + half, tuple(values))


def _check_seeds(seeds: Sequence[int]) -> None:
    found = [line for seed in seeds for line in integer_fault("seeds", seed, 0)]
    if not found and len(set(seeds)) < max(2, len(seeds)):
        found.append(fault("seeds", list(seeds), "at least two, all different"))
    if found:
        raise PlanError(tuple(found))
