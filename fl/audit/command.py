"""What `python -m fl audit` does: audits a run's job or a job file, and writes what it found.

The bounds stand in summary.json beside the claims: "audited" in every row, "audit" for the run.
"""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fl.audit.attack import Audit, audit
from fl.audit.probes import Probe, probe
from fl.errors import StoreError
from fl.job import Job, from_dict, from_toml
from fl.store import Store, next_run_directory
from fl.summary import read_summary, write_summary
from fl.types import RandomBytes


@dataclasses.dataclass(frozen=True)
class Audited:
    """An audit, and where it is written.

    Attributes:
        out: the run directory.
        audit: the attack.
        probe: the detectors.
    """

    out: Path
    audit: Audit
    probe: Probe


def job_of(target: Path) -> Job:
    """Returns the job of a run directory, or of a TOML file.

    Raises:
        StoreError: the directory's run was not made from a Job.
        PlanError: the file is no job.
    """
    if not target.is_dir():
        return from_toml(target)
    store = Store.open(target)
    values = store.meta().get("job")
    store.close()
    if values is None:
        raise StoreError("job", None, "a run that the command line began")
    return from_dict({name: value for name, value in values.items() if value is not None})


def under_secure(job: Job) -> Job:
    """Returns the job under Secure where it says Ideal, whose sums are the same."""
    if job.aggregation != "ideal":
        return job
    return dataclasses.replace(job, aggregation="secure", server=job.server or "semi_honest")


def audit_target(
    target: Path,
    *,
    canaries: int,
    guesses: int | None,
    significance: float,
    directions: str,
    out: Path | None,
    rand: RandomBytes = os.urandom,
) -> Audited:
    """Attacks and probes the plan of a run or a job, and writes summary.json.

    Of a run directory the summary is completed; of a job file the run that was attacked is kept,
    in `out`, in the job's own directory or in runs/DATASET-audit-NUMBER.

    Args:
        target: a run directory or a TOML file.
        canaries: as `fl.audit.audit`.
        guesses: as `fl.audit.audit`.
        significance: of every row's bound, and of the detectors together.
        directions: as `fl.audit.audit`.
        out: see above; not for a run directory.
        rand: as `fl.audit.audit`.

    Raises:
        PlanError: with every fault of the job, or of what is asked.
        StoreError: there is no run in a directory, or one already in `out`.
    """
    job = under_secure(job_of(target))
    if target.is_dir():
        if out is not None:
            raise StoreError("out", str(out), "nothing beside a run directory")
        read_summary(target)  # before the work, not after it
    plan, model, data = job.build()
    chosen = None
    if not target.is_dir():
        chosen = out or (Path(job.out) if job.out else None)
        chosen = chosen or next_run_directory(Path("runs"), f"{job.dataset}-audit")
    found = audit(
        plan, model, data, canaries=canaries, guesses=guesses, significance=significance,
        directions=directions, rand=rand, execution=job.execution, out=chosen,
        job=dataclasses.asdict(job),
    )  # fmt: skip
    probed = probe(plan, model, data, significance=significance, execution=job.execution)
    written = chosen or target
    write_summary(written, completed(read_summary(written), found, probed))
    return Audited(written, found, probed)


def completed(summary: Mapping[str, Any], found: Audit, probed: Probe) -> dict[str, Any]:
    """Returns a summary with what an audit found; a row without a figure stays without a bound."""
    privacy = dict(summary["privacy"])
    privacy["rows"] = [
        {
            **row,
            "audited": found.of(row["adversary"], row["delta"]) if row["reason"] is None else None,
        }
        for row in privacy["rows"]
    ]
    detectors = [
        {"name": one.name, "p_value": one.p_value, "law": one.law, "alarm": one in probed.alarms}
        for one in probed.detections
    ]
    told = {
        "canaries": found.canaries,
        "guesses": found.guesses,
        "confidence": 1.0 - found.significance,
        "aggregation": found.summary["aggregation"],
        "detectors": detectors,
        "detectors_significance": probed.significance,
    }
    return {**summary, "privacy": privacy, "audit": told}
