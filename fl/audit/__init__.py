"""Audits of a plan's whole pipeline: attacks by canaries, and probes.

`audit` states what leaks at least, beside what is claimed; `probe` looks for bugs that an attack
cannot see. docs/privacy.md, "Auditing a run" and "Probing a run".
"""

from fl.audit.attack import Audit, AuditedRow, audit
from fl.audit.probes import Probe, probe

__all__ = ["Audit", "AuditedRow", "Probe", "audit", "probe"]
