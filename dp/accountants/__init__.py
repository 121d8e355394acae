"""Accountants: from an event to a certified interval for epsilon or delta."""

from dp.accountants.query import delta, epsilon, epsilon_with_failures
from dp.accountants.rdp import rdp_curve
from dp.accountants.zcdp import Zcdp, zcdp_bound

__all__ = ["Zcdp", "delta", "epsilon", "epsilon_with_failures", "rdp_curve", "zcdp_bound"]
