"""A run across organisations, as each of them holds it: one TOML file.

What all share (session, records, job) is what they sign with the roster; which member this is, and
where its key and state lie, is its own. Nothing that decides privacy comes over the wire.
"""

import hashlib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from fl import secure
from fl._validate import integer_fault, number_fault
from fl.engines import terms
from fl.engines.roster import Roster, read_identity, read_roster
from fl.errors import PlanError, fault
from fl.job import Job, from_dict

_STAGE_TAKES = "seconds, above 0 and at most 86400"
_SIMULATED = ("data_dir", "partition", "out", "simulate_dropout")  # of a run on one machine


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """What one organisation, or the server, knows before a run.

    Attributes:
        session: name of this run, never used before: every key derives from it.
        job: what is trained and what is promised; the same at everybody.
        roster: file of `fl.engines.roster`.
        state: directory of what must survive a restart: ledger, used keys, sessions.
        timeouts: stage -> seconds after which whoever has not answered has dropped out.
        records: training examples of each member, public; required where records are protected.
        classes: labels "y" of members' own files are in [0, classes); None without classes.
        member: which entry of the roster this is, from 0; None at the server.
        identity: file of the member's key; None at the server.
    """

    session: str
    job: Job
    roster: Path
    state: Path
    timeouts: Mapping[str, float]
    records: tuple[int, ...] | None = None
    classes: int | None = None
    member: int | None = None
    identity: Path | None = None

    def __post_init__(self) -> None:
        found = _faults(self)
        if found:
            raise PlanError(tuple(found))

    def read_roster(self) -> Roster:
        """Reads the roster and checks that everybody in it signed it and this plan.

        Raises:
            PlanError: the file, a signature, an opening, or the number of members is wrong.
        """
        roster = self.read_unsigned()
        roster.verify(self.session_id(roster))
        self.graph_seed(roster)
        return roster

    def graph_seed(self, roster: Roster) -> bytes | None:
        """Returns the seed of the sparse graph, 32 bytes, or None where the graph is complete.

        Args:
            roster: verified.

        Raises:
            PlanError: it names whose opening is missing, or not what it committed to.
        """
        if self.job.graph == "complete":
            return None
        return roster.graph_seed(self.run_name, self.session_id(roster))

    @property
    def run_name(self) -> bytes:
        """What the members' commitments are for: 32 bytes that stand for the session's name."""
        return hashlib.sha256(self.session.encode()).digest()

    def read_unsigned(self) -> Roster:
        """Reads the roster without looking at its signatures: only to sign it.

        Raises:
            PlanError: the file or the number of members is wrong.
        """
        roster = read_roster(self.roster)
        found = []
        if self.records is not None and len(self.records) != len(roster):
            takes = f"one number for each of the {len(roster)} members"
            found.append(fault("records", f"{len(self.records)} numbers", takes))
        if self.job.clients not in (None, len(roster)):
            found.append(fault("clients", self.job.clients, f"{len(roster)}, as the roster has"))
        if self.job.graph == "sparse" and not roster.commitments:
            takes = "one of each member, NAME=KEY:COMMITMENT (`python -m fl roster commit`)"
            found.append(fault("roster", "no commitments under a sparse graph", takes))
        if self.member is not None:
            found += integer_fault("member", self.member, 0, len(roster) - 1)
        if found:
            raise PlanError(tuple(found))
        return roster

    def read_identity(self, roster: Roster) -> secure.IdentityKey:
        """Reads this member's key.

        Raises:
            PlanError: there is none, or the roster lists another key for this member.
        """
        if self.member is None or self.identity is None:
            raise PlanError((fault("member", None, "a member and its identity: not the server's"),))
        key = read_identity(self.identity)
        if roster.keys[self.member] != key.public_key:
            takes = f"{roster.keys[self.member].hex()}, which the roster lists for {self.member}"
            raise PlanError((fault("identity", key.public_key.hex(), takes),))
        return key

    @property
    def key_file(self) -> Path:
        """File of this member's key.

        Raises:
            PlanError: there is none.
        """
        if self.identity is None:
            raise PlanError((fault("identity", None, "that of a member: not the server's"),))
        return self.identity

    def session_id(self, roster: Roster) -> bytes:
        """Returns 32 bytes that stand for the session's name, plan, members' names, commitments.

        Every context of the protocol and every signature of the roster is over them: whoever
        holds another plan has another session.
        """
        committed = [commitment.hex() for commitment in roster.commitments]
        shared = [
            self.session, asdict(self.job), self.records, self.classes, roster.names, committed,
        ]  # fmt: skip
        text = json.dumps(["fl deployment 1", *shared], sort_keys=True)
        return hashlib.sha256(text.encode()).digest()


def read_deployment(path: str | Path) -> Deployment:
    """Reads a plan file; relative paths in it are relative to its folder.

    Raises:
        PlanError: with every fault of the file.
    """
    path = Path(path)
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PlanError((fault("plan", f"{path}: {error}", "a TOML file"),)) from error
    known = {field.name for field in fields(Deployment)} | {"timeout"}
    found = [fault(name, values[name], "no such name") for name in values if name not in known]
    for name, kind in (("session", str), ("roster", str), ("state", str), ("job", dict)):
        if not isinstance(values.get(name), kind):
            found.append(fault(name, values.get(name), "a table" if kind is dict else "text"))
    if not isinstance(values.get("identity", ""), str):
        found.append(fault("identity", values["identity"], "text"))
    timeouts = _timeouts(values, found)
    if not isinstance(values.get("records", []), list):
        found.append(fault("records", values["records"], "a list of integers"))
    if found:
        raise PlanError(tuple(found))
    return Deployment(
        session=values["session"],
        job=from_dict(values["job"]),
        roster=path.parent / values["roster"],
        state=path.parent / values["state"],
        timeouts=timeouts,
        records=tuple(values["records"]) if "records" in values else None,
        classes=values.get("classes"),
        member=values.get("member"),
        identity=path.parent / values["identity"] if "identity" in values else None,
    )


def _timeouts(values: Mapping[str, Any], found: list[str]) -> dict[str, Any]:
    given = values.get("timeouts", {})
    if not isinstance(given, dict):
        found.append(fault("timeouts", given, "a table of stages"))
        return {}
    found += [fault(f"timeouts.{name}", given[name], " | ".join(secure.STAGES))
              for name in given if name not in secure.STAGES]  # fmt: skip
    return {stage: given.get(stage, values.get("timeout")) for stage in secure.STAGES}


def _faults(plan: Deployment) -> list[str]:
    found: list[str] = []
    if not plan.session or not plan.session.isprintable():
        found.append(fault("session", plan.session, "a name that no run before had"))
    for stage in secure.STAGES:
        found += number_fault(
            f"timeouts.{stage}", plan.timeouts.get(stage), _STAGE_TAKES, lambda s: 0 < s <= 86400
        )
    if plan.records is not None:
        for i, count in enumerate(plan.records):
            found += integer_fault(f"records[{i}]", count, 0)
    elif plan.job.unit == "record" and not plan.job.no_dp:
        found.append(fault("records", None, "the number of examples of each member"))
    if plan.classes is not None:
        found += integer_fault("classes", plan.classes, 1)
    if plan.member is not None:
        found += integer_fault("member", plan.member, 0)
    if (plan.member is None) != (plan.identity is None):
        found.append(fault("identity", plan.identity, "with member, and only with it"))
    return found + _job_faults(plan.job)


def _job_faults(job: Job) -> list[str]:
    found = [
        fault(f"job.{name}", getattr(job, name), "nothing: it is of a run on one machine")
        for name in _SIMULATED
        if getattr(job, name) is not None
    ]
    if job.aggregation != "secure":
        found.append(fault("job.aggregation", job.aggregation, "secure"))
    if job.cohort.startswith("poisson"):
        found.append(fault("job.cohort", job.cohort, terms.COHORTS))
    if job.client_metrics:
        found.append(fault("job.client_metrics", True, terms.CLIENT_METRICS))
    if job.processes != 1:
        found.append(fault("job.processes", job.processes, "1"))
    return found + [f"job.{text}" for text in job.faults()]
