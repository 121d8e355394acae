"""What a run leaves for readers: summary.json, and the facts that identify a plan."""

import hashlib
import importlib.metadata
import json
import math
import platform
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from fl.datasets.dataset import FederatedDataset
from fl.errors import StoreError
from fl.plan import Plan, Resolved
from fl.privacy import Privacy
from fl.statement import Statement
from fl.types import PARTS, PyTree

FILE = "summary.json"
OUTSIDE = "outside the guarantee"


def versions() -> dict[str, str]:
    """Returns the versions of Python and of the packages that decide a run's numbers."""
    names = ("numpy", "jax", "jaxlib", "optax", "cryptography")
    return {"python": platform.python_version()} | {
        name: importlib.metadata.version(name) for name in names
    }


def run_facts(
    resolved: Resolved, data: FederatedDataset, execution: Mapping[str, int | str]
) -> dict[str, Any]:
    """Returns what is known of a run before it starts."""
    plan = resolved.plan
    private = plan.privacy if isinstance(plan.privacy, Privacy) else None
    return {
        "dataset": data.name,
        "num_clients": data.num_clients,
        "planned_rounds": plan.rounds,
        "invited": resolved.invited,
        "algorithm": plan.algorithm.name,
        "unit": None if private is None else private.unit,
        "cohort": str(plan.cohort),
        "secret_cohort": plan.cohort.secret,
        "parameters": resolved.messages.dim,
        "aggregation": resolved.exposure.aggregation,
        "mechanism": "none" if private is None else private.mechanism,
        "against": None if private is None else private.against,
        "min_survivors": resolved.exposure.bounds.min_survivors,
        "noise_multiplier": resolved.noise_multiplier,
        "segments": resolved.encoding and dict(resolved.encoding.segments),
        "graph": resolved.params
        and {"degree": resolved.params.degree, "threshold": resolved.params.threshold},
        "seed": plan.seed,
        "execution": dict(execution),
        "versions": versions(),
    }


def fingerprint(
    resolved: Resolved, data: FederatedDataset, state: PyTree, execution: Mapping[str, int | str]
) -> str:
    """Returns a hash of what a plan that resumes must share with the plan that began the run.

    Noise, bounds and releases are in it, so that what was released keeps its price. Optimizers
    are functions: only the shape of their state can be compared.

    Args:
        resolved: the plan.
        data: the clients.
        state: the initial server state, or its shapes.
        execution: strategy, chunk, threads and backend, so that a run that resumes gives the same
            bits.
    """
    plan: Plan = resolved.plan
    parts = (
        plan.rounds, plan.cohort, plan.algorithm.batching, plan.privacy, plan.aggregation,
        plan.seed, plan.seeded_secrets, resolved.messages.dim, data.name, data.num_clients,
        hashlib.sha256(data.sizes.tobytes()).digest(), resolved.exposure,
        resolved.encoding and resolved.encoding.segments, jax.tree.structure(state),
        [f"{leaf.dtype}{leaf.shape}" for leaf in jax.tree.leaves(state)], dict(execution),
    )  # fmt: skip
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def summarize(
    facts: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    privacy: Statement,
    *,
    model_sha256: str,
    metrics: Mapping[str, float],
    stopped_early: str | None,
    job: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Returns the contents of summary.json.

    Args:
        facts: of `run_facts`.
        rows: the store's rounds.
        privacy: the statement from what happened.
        model_sha256: of the final parameters.
        metrics: the last evaluation.
        stopped_early: why rounds are missing, or None.
        job: the strings and numbers the run was made from, where it was made from a Job.
    """
    # Bytes and seconds show the size of a cohort; where that is secret, they stay in the store.
    measured = () if facts["secret_cohort"] else rows
    finite = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
    return {
        "dataset": facts["dataset"],
        "num_clients": facts["num_clients"],
        "rounds": len(rows),
        "accuracy": finite.get("accuracy"),
        "metrics": finite,
        "model_sha256": model_sha256,
        "aggregation": facts["aggregation"],
        "mechanism": facts["mechanism"],
        "against": facts["against"],
        "seconds_per_round": _median_seconds(measured),
        "upload_bytes_per_client_round": _upload(measured),
        "cost_by_stage": _cost_by_stage(measured),
        "client_metrics": _client_metrics(rows, privacy),
        "privacy": privacy.to_dict(),
        "stopped_early": stopped_early,
        "details": {
            name: facts[name]
            for name in (
                "algorithm", "unit", "cohort", "secret_cohort", "planned_rounds", "invited",
                "parameters", "min_survivors", "noise_multiplier",
                "segments", "graph", "seed", "execution",
            )
        },
        "job": None if job is None else dict(job),
        "versions": facts["versions"],
    }  # fmt: skip


def _client_metrics(rows: Sequence[Mapping[str, Any]], privacy: Statement) -> dict[str, Any] | None:
    """The last figures over the clients' own examples, and what protects them: nothing."""
    found = [row["client_metrics"] for row in rows if row.get("client_metrics")]
    if not found:
        return None
    guarantee = "none: the plan is not private" if privacy.unit is None else OUTSIDE
    return {"guarantee": guarantee, "values": found[-1]}


def _median_seconds(rows: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    parts = {
        part: statistics.median(row["seconds"][part] for row in rows) if rows else None
        for part in PARTS
    }
    totals = [sum(row["seconds"].values()) for row in rows]
    return {**parts, "total": statistics.median(totals) if totals else None}


def _upload(rows: Sequence[Mapping[str, Any]]) -> float | None:
    per_client = [
        row["upload_bytes"] / row["invited"] for row in rows if row["upload_bytes"] is not None
    ]
    return statistics.median(per_client) if per_client else None


def _cost_by_stage(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float | None]]:
    """Medians over rounds: client figures per invited client, server seconds per round.

    None for seconds that clients elsewhere do not tell.
    """
    costs = [(row["cost"], row["invited"]) for row in rows if row["cost"]]
    if not costs:
        return {}
    per_client = ("client_seconds", "upload_bytes", "download_bytes")
    return {
        stage: {
            **{name: _median_of(name, stage, costs) for name in per_client},
            "server_seconds": statistics.median(
                cost["server_seconds"].get(stage, 0) for cost, _ in costs
            ),
        }
        for stage in costs[0][0]["server_seconds"]
    }


def _median_of(
    name: str, stage: str, costs: Sequence[tuple[Mapping[str, Any], int]]
) -> float | None:
    found = [cost[name].get(stage, 0) / n for cost, n in costs if cost[name]]
    return statistics.median(found) if found else None


def write_summary(out: Path, summary: Mapping[str, Any]) -> Path:
    """Writes out/summary.json."""
    path = out / FILE
    path.write_text(json.dumps(summary, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    return path


def read_summary(out: Path) -> dict[str, Any]:
    """Reads out/summary.json.

    Raises:
        StoreError: there is none.
    """
    path = out / FILE
    if not path.is_file():
        raise StoreError("run", str(out), f"a directory with {FILE}")
    summary: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return summary
