"""Adaptive stopping: a budget that events chosen on the way cannot exceed.

Composition theorems take the events as given in advance. When the noise of a round depends on
what earlier rounds released, a filter is needed: at one Rényi order fixed beforehand, an event
is admitted only while the divergences of that order add up to the budget (Rogers et al. 2016
for the notion; Feldman, Zrnic 2021 and Lecuyer 2021 at a Rényi order; proof in docs/privacy.md,
"Filters").
"""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass

import numpy as np

from dp import _validate
from dp.accountants import conversion
from dp.accountants.query import curve_of
from dp.errors import BudgetError, LedgerMismatchError, ParameterError
from dp.events import Event, NeighboringRelation

_VERSION = 1
_ACCOUNTANTS = ("rdp", "zcdp")


@dataclass(frozen=True)
class PrivacyFilter:
    """(epsilon, delta)-DP however the events are chosen; a value, `charge` returns the next one.

    Attributes:
        epsilon, delta: what all charged events together guarantee.
        neighboring: the relation of every event.
        accountant: "rdp" or "zcdp": whose bounds are added.
        order: Rényi order minus one, fixed in advance.
        spent: divergence of that order charged so far, rounded up.
    """

    epsilon: float
    delta: float
    neighboring: NeighboringRelation
    accountant: str
    order: float
    spent: float = 0.0

    def __post_init__(self) -> None:
        _validate.positive("epsilon", self.epsilon)
        _validate.open_unit("delta", self.delta)
        if not isinstance(self.neighboring, NeighboringRelation):
            raise ParameterError("neighboring", self.neighboring, "a NeighboringRelation")
        if self.accountant not in _ACCOUNTANTS:
            raise ParameterError("accountant", self.accountant, f"one of {_ACCOUNTANTS}")
        _validate.positive("order", self.order)
        _validate.real("spent", self.spent, 0.0, math.inf)
        if not self.budget > 0.0:
            takes = "an order at which epsilon and delta leave a budget"
            raise ParameterError("order", self.order, takes)
        if self.spent > self.budget:
            raise ParameterError("spent", self.spent, f"at most the budget {self.budget:g}")

    @property
    def budget(self) -> float:
        """Divergence that epsilon and delta allow at the order, rounded down."""
        term = float(conversion.conversion_term(np.array([self.order]), self.delta)[0])
        return (self.epsilon - term) * (1.0 - 2.0**-48) - 2.0**-48 * abs(term)

    def cost(self, event: Event) -> float:
        """Divergence of `event` at the order, rounded up.

        Raises:
            UnsupportedEventError, ParameterError: as `dp.epsilon`.
        """
        curve = curve_of(event, self.neighboring, self.accountant)
        return float(curve(np.array([self.order]))[0]) * (1.0 + 2.0**-32)

    def admits(self, event: Event) -> bool:
        """Whether `event` fits into what is left. The answer uses no data."""
        return self._after(event) <= self.budget

    def charge(self, event: Event) -> PrivacyFilter:
        """The filter after `event`, which may then be run.

        Raises:
            BudgetError: it does not fit; this filter is as before.
        """
        after = self._after(event)
        if after > self.budget:
            raise BudgetError(after, self.budget)
        return dataclasses.replace(self, spent=after)

    def _after(self, event: Event) -> float:
        return (self.spent + self.cost(event)) * (1.0 + 2.0**-52)

    def to_json(self) -> str:
        """Everything this filter holds, as text with a version."""
        fields = dataclasses.asdict(self)
        return json.dumps({"version": _VERSION, **fields, "neighboring": self.neighboring.value})

    @classmethod
    def from_json(cls, text: str) -> PrivacyFilter:
        """The filter that `to_json` wrote.

        Raises:
            LedgerMismatchError: no filter, another version, or other fields.
            ParameterError: a field outside its range.
        """
        try:
            data = json.loads(text)
        except ValueError as error:
            raise LedgerMismatchError("takes the text of a filter, got no JSON") from error
        version = data.pop("version", None) if isinstance(data, dict) else None
        if version != _VERSION:
            raise LedgerMismatchError(f"version={version!r}: takes {_VERSION}")
        if set(data) != {field.name for field in dataclasses.fields(cls)}:
            raise LedgerMismatchError(f"fields {sorted(data)} are not those of a filter")
        try:
            relation = NeighboringRelation(data.pop("neighboring"))
        except ValueError as error:
            raise LedgerMismatchError("neighboring: takes the name of a relation") from error
        return cls(neighboring=relation, **data)


def privacy_filter(
    plan: Event,
    *,
    epsilon: float,
    delta: float,
    neighboring: NeighboringRelation,
    accountant: str = "rdp",
) -> PrivacyFilter:
    """The filter whose order suits `plan`: what one expects to run, a guess that is no promise.

    Args:
        plan: the composition expected; it need not fit, and other events may be charged.
        epsilon: > 0.
        delta: in (0, 1).
        neighboring: the relation.
        accountant: "rdp", or "zcdp" for events that state one line.

    Raises:
        ParameterError: out of range, or no order leaves a budget at this epsilon and delta.
        UnsupportedEventError: no proof for `plan`.
    """
    target = _validate.positive("epsilon", epsilon)
    delta = _validate.open_unit("delta", delta)
    if accountant not in _ACCOUNTANTS:
        raise ParameterError("accountant", accountant, f"one of {_ACCOUNTANTS}")
    curve = curve_of(plan, neighboring, accountant)
    a = np.exp2(np.linspace(-8.0, 30.0, 38 * 32 + 1))
    left = target - conversion.conversion_term(a, delta)
    ratios = np.where(left > 0.0, left / curve(a), -np.inf)
    best = int(np.argmax(ratios))
    if not ratios[best] > 0.0:
        raise ParameterError("epsilon", target, f"more than any order costs at delta={delta:g}")
    return PrivacyFilter(target, delta, neighboring, accountant, float(a[best]))
