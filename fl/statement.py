"""The privacy statement: planned, realised and worst case, for each adversary.

Proofs: `docs/privacy.md`, section "Statements".
"""

from dataclasses import dataclass, replace
from typing import Any

import dp
from fl.figures import upper_text
from fl.privacy import ADVERSARIES, COINS, RELATION, Exposure, Privacy

_RECORD_ZERO_OUT = (
    "zero-out: a neighbouring run has one record of one client contribute 0 in place of its "
    "clipped message; the numbers of records are public; participation, dropouts, durations and "
    "refusals are assumed not to depend on that record"
)
_ZERO_OUT = (
    "zero-out: a neighbouring run has one client follow the protocol with 0 in place of its "
    "clipped input, still adding its noise share; participation, dropouts, durations and refusals "
    "are assumed not to depend on that client's data"
)
_COIN_ZERO_OUT = (
    "zero-out: a neighbouring run has one client toss fair coins, as for the zero vector, in place "
    "of those of its clipped input; participation, dropouts, durations and refusals are assumed "
    "not to depend on that client's data; what hides it are the coins of the honest survivors, "
    "whatever their data are: the worst case over these is counted"
)


@dataclass(frozen=True)
class Row:
    """What one adversary may learn, or why that is not said.

    Attributes:
        adversary: "server", "participants" or "outsider".
        relation: the neighbouring relation.
        delta: of the figures; None without privacy.
        planned: at the expected dropout, over the scheduled participations.
        realised: the maximum over clients of their own releases, as they happened; None before.
        worst_case: min_survivors in each of max_releases releases: the guarantee.
        reason: why there are no figures.
        c: clients that may collude with the adversary or add no noise.
        min_survivors: fewest clients in a released sum.
        max_releases: r.
    """

    adversary: str
    relation: str
    delta: float | None
    planned: dp.Interval | None
    realised: dp.Interval | None
    worst_case: dp.Interval | None
    reason: str | None
    c: int
    min_survivors: int
    max_releases: int

    def to_dict(self) -> dict[str, Any]:
        """Returns the row as summary.json holds it."""
        figures = {
            name: None if value is None else {"lower": value.lower, "upper": value.upper}
            for name, value in [
                ("planned", self.planned),
                ("realised", self.realised),
                ("worst_case", self.worst_case),
            ]
        }
        return {
            "adversary": self.adversary,
            "relation": self.relation,
            "delta": self.delta,
            "epsilon": figures,
            "reason": self.reason,
            "c": self.c,
            "min_survivors": self.min_survivors,
            "max_releases": self.max_releases,
        }


@dataclass(frozen=True)
class Statement:
    """One row per adversary and delta, and what they rest on.

    Attributes:
        unit: whose data is protected, or None without privacy.
        rows: the figures.
        assumptions: in words.
    """

    unit: str | None
    rows: tuple[Row, ...]
    assumptions: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Returns the statement as summary.json holds it."""
        return {
            "unit": self.unit,
            "rows": [row.to_dict() for row in self.rows],
            "assumptions": list(self.assumptions),
        }

    def __str__(self) -> str:
        return "\n".join(_row_text(row) for row in self.rows)


def _row_text(row: Row) -> str:
    if row.reason is not None:
        return f"{row.adversary}: no figure: {row.reason}"
    figures = ", ".join(
        f"{name.replace('_', ' ')} <= {upper_text(value.upper)}"
        for name, value in [
            ("planned", row.planned), ("realised", row.realised), ("worst_case", row.worst_case),
        ]
        if value is not None
    )  # fmt: skip
    return (
        f"{row.adversary}: epsilon {figures} at delta {row.delta} ({row.relation}, c = {row.c}, "
        f"min_survivors = {row.min_survivors}, max_releases = {row.max_releases})"
    )


def worst_case(exposure: Exposure, adversary: str, delta: float, releases: int) -> dp.Interval:
    """Epsilon of `releases` releases with min_survivors survivors each: the guarantee.

    Raises:
        DpError: no figure can be proven.
    """
    return _repeated(exposure, adversary, delta, exposure.bounds.min_survivors, releases)


def _repeated(
    exposure: Exposure, adversary: str, delta: float, survivors: int, releases: int
) -> dp.Interval:
    return dp.epsilon_with_failures(
        exposure.composed(adversary, survivors, releases),
        delta,
        neighboring=RELATION,
        accountant=exposure.accountant,
        failure_prob=exposure.protocol_failure(adversary),
        total_variation=exposure.total_variation(adversary, survivors, releases),
    )


def realised(
    exposure: Exposure, adversary: str, delta: float, ledger: dp.Ledger, *, attested: bool
) -> dp.Interval | None:
    """Epsilon of what happened: the maximum over clients; None before the first release.

    A malicious server says itself who survived, so against it every release counts as one with
    min_survivors, and None unless witnesses signed who was in each (`attested`). None also where
    cohorts are secret: the figure would show them.

    Raises:
        DpError: no figure can be proven.
    """
    if ledger.releases == 0 or exposure.cohort.secret:
        return None
    if isinstance(exposure.mechanism, dp.matrix.CorrelatedMechanism):
        # As many participations as anybody was charged for, as close as the schedule has them.
        most = int(ledger.charges.max())
        return _repeated(exposure, adversary, delta, exposure.bounds.min_survivors, most)
    doubted = adversary == "server" and exposure.server == "malicious"
    if doubted and exposure.aggregation == "secure" and not attested:
        return None
    return ledger.realised(
        delta,
        exposure.accountant,
        failure_prob=exposure.protocol_failure(adversary),
        total_variation=exposure.total_variation(
            adversary, exposure.bounds.invited, exposure.max_releases
        ),
        seen_as=lambda survivors: exposure.event(
            adversary, exposure.bounds.min_survivors if doubted else survivors
        ),
    )


def so_far(
    exposure: Exposure, ledger: dp.Ledger | None, attempts: int, *, attested: bool = False
) -> tuple[float | None, float | None]:
    """Returns upper ends, so far, of the row named by `against`: realised, and worst case.

    The worst case has every charge used by a release with min_survivors; where cohorts are
    secret, it has a client take part as often as `attempts` allow, and stands for the realised
    figure too, as it does where that takes an attestation that is missing. None without a figure.
    """
    privacy = exposure.privacy
    if not isinstance(privacy, Privacy) or ledger is None or exposure.refusal(privacy.against):
        return None, None
    public = not exposure.cohort.secret
    spent = int(ledger.charges.max()) if public else min(attempts, exposure.max_releases)
    if spent == 0:
        return 0.0, 0.0
    now = replace(exposure, rounds=attempts)
    worst = worst_case(now, privacy.against, privacy.delta, spent).upper
    if not public:
        return worst, worst
    happened = realised(exposure, privacy.against, privacy.delta, ledger, attested=attested)
    if happened is None:
        return worst if ledger.releases else 0.0, worst
    return happened.upper, worst


def statement(
    exposure: Exposure, ledger: dp.Ledger | None = None, *, attested: bool = False
) -> Statement:
    """Returns the statement: before training without a ledger, else from what happened.

    Args:
        exposure: what the rows follow from.
        ledger: what was charged and released.
        attested: whether what witnesses signed is kept beside every release.
    """
    privacy = exposure.privacy
    if not isinstance(privacy, Privacy):
        rows = tuple(
            _row(exposure, adversary, None, None, attested=False) for adversary in ADVERSARIES
        )
        return Statement(None, rows, ())
    rows = tuple(
        _row(exposure, adversary, delta, ledger, attested=attested)
        for delta in (privacy.delta, *privacy.report_deltas)
        for adversary in ADVERSARIES
    )
    figures = any(row.reason is None for row in rows)
    return Statement(privacy.unit, rows, _assumptions(exposure) if figures else ())


def _row(
    exposure: Exposure,
    adversary: str,
    delta: float | None,
    ledger: dp.Ledger | None,
    *,
    attested: bool,
) -> Row:
    planned = happened = worst = None
    reason = exposure.refusal(adversary)
    if reason is None and delta is not None:
        try:
            worst = worst_case(exposure, adversary, delta, exposure.max_releases)
            planned = _repeated(
                exposure, adversary, delta, exposure.expected_survivors, exposure.scheduled
            )
            if ledger is not None:
                happened = realised(exposure, adversary, delta, ledger, attested=attested)
        except dp.DpError as error:
            planned = happened = worst = None
            reason = f"not proven: {error}"
    return Row(
        adversary=adversary,
        relation=RELATION.value,
        delta=delta,
        planned=planned,
        realised=happened,
        worst_case=worst,
        reason=reason,
        c=exposure.colluders(adversary),
        min_survivors=exposure.bounds.min_survivors,
        max_releases=exposure.max_releases,
    )


def _assumptions(exposure: Exposure) -> tuple[str, ...]:
    bounds, notes = exposure.bounds, [_relation(exposure)]
    if exposure.aggregation != "plain":
        notes.append(
            f"of the {bounds.invited} clients of every cohort at most {bounds.max_corrupt} collude "
            "with the adversary or add no noise; the outsider row assumes that all add theirs"
        )
    if exposure.aggregation == "secure":
        lies = exposure.server == "malicious"
        whose = "even one that deviates from" if lies else "one that follows"
        notes.append(
            f"the server of the server rows is {whose} the protocol (server = {exposure.server}); "
            f"they are computational; protocol failure {exposure.failure_prob:.2g} over the run is "
            "charged to their delta"
        )
    if exposure.aggregation == "ideal":
        notes.append(
            "the sum was computed in the clear: the server rows are those of a protocol whose "
            "server sees the sum alone"
        )
    if exposure.sparse_graph:
        notes.append(
            "nobody could predict the masking graph's seed when clients registered: in one process "
            "the operating system draws it, which stands for a public beacon; across organisations "
            "it follows from the openings of all, and the protocol failure is that of a member "
            "which signed one roster for this run: at most R times as much if it signed R, which "
            "it alone can count (`python -m fl roster sign` does)"
        )
    notes += [_participation(exposure), *_records(exposure), *_correlation(exposure)]
    covered = "this run alone" if exposure.runs == 1 else f"these {exposure.runs} runs together"
    notes.append(
        f"the figures cover {covered}; another run over the same clients composes with it; "
        "test data are public; tuning on them or on private data is not covered"
    )
    return tuple(notes)


def _relation(exposure: Exposure) -> str:
    privacy = exposure.privacy
    if not isinstance(privacy, Privacy):
        return _ZERO_OUT
    if privacy.mechanism == COINS:
        return _COIN_ZERO_OUT
    return _RECORD_ZERO_OUT if privacy.unit == "record" else _ZERO_OUT


def _participation(exposure: Exposure) -> str:
    spare = exposure.max_releases - exposure.scheduled
    granted = (
        f"each client grants {exposure.max_releases} releases ({exposure.scheduled} scheduled, "
        f"{spare} spare); "
    )
    if not exposure.cohort.secret:
        return (
            f"{granted}cohorts ({exposure.cohort}) are public, so nothing is amplified by "
            "sampling clients"
        )
    return (
        f"{granted}every client joins a round with probability {exposure.cohort.prob} by a "
        "secret coin, which counts for an outsider alone: one who sees neither cohorts, their "
        "sizes, survivors, bytes nor durations, while no round aborts"
    )


def _records(exposure: Exposure) -> tuple[str, ...]:
    privacy = exposure.privacy
    if not isinstance(privacy, Privacy) or not privacy.samples_records:
        return ()
    return (
        f"every record joins a round with probability {privacy.record_sampling} by a coin that "
        "its client draws from the operating system and shows to nobody; it counts for every "
        "adversary, since the noise does not depend on how many records joined",
    )


def _correlation(exposure: Exposure) -> tuple[str, ...]:
    if not isinstance(exposure.mechanism, dp.matrix.CorrelatedMechanism):
        return ()
    told = exposure.mechanism.strategy.participation
    return (
        f"noise is correlated over the {told.rounds} rounds, which are one release: a client is in "
        f"at most {told.most} of them, at least {told.separation} apart; the state of the noise, "
        "which the server keeps, is as secret as the noise",
    )
