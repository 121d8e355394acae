"""What a plan asks for, and what it may claim: one row per adversary.

`docs/privacy.md` (section "Statements") holds the proof behind each row. A row that cannot be
proven carries a reason instead of a number.
"""

import math
from dataclasses import dataclass, field
from fractions import Fraction

import dp
from dp.matrix import MAX_BUFFERS, MAX_ROUNDS
from dp.poisson_binomial import MAX_TRIALS
from fl._validate import choice_fault, integer_fault, number_fault
from fl.cohort import SIZE_FAILURE, Cohort, full
from fl.errors import fault
from fl.types import Mechanism

ADVERSARIES = ("server", "participants", "outsider")
COINS = "poisson_binomial"
DISTRIBUTED = ("skellam", "discrete_gaussian", COINS)
CORRELATED = ("tree", "banded", "blt")
CENTRAL = ("gaussian", *CORRELATED)
Distributed = dp.DistributedMechanism | dp.PoissonBinomialMechanism
RELATION = dp.NeighboringRelation.ZERO_OUT
UNITS = ("client", "record")

NORM_RANGE = "a number from 1e-12 to 1e12"  # float32 clips without over- or underflow


def is_norm(value: float) -> bool:
    """Whether NORM_RANGE holds."""
    return 1e-12 <= value <= 1e12


@dataclass(frozen=True, kw_only=True)
class Privacy:
    """A private plan: every client has weight 1, every segment is noised.

    Attributes:
        unit: whose data one unit is: "client" (all data of one client) or "record" (one example
            of one client, for a handful of clients with many examples each).
        against: the adversary whose worst case the noise is calibrated to.
        epsilon: target of that row's worst case.
        delta: of every row.
        clip_norm: l2 bound C on one unit's message.
        mechanism: "skellam" or "discrete_gaussian" (shares added by the clients),
            "poisson_binomial" (coins tossed by the clients in place of their values), or noise that
            the server adds after the sum, exact integers on the rounding grid: "gaussian", or
            correlated over rounds, "tree", "banded" or "blt" (see `dp.matrix`).
        spare_releases: releases that a client grants beyond its scheduled participations, for
            rounds that are run again after a crash.
        report_deltas: further deltas at which rows are printed; they calibrate nothing.
        accountant: "rdp" or "zcdp".
        record_sampling: unit "record" only, and required there: the probability with which each
            record joins a round, by a coin that its client draws from the operating system and
            shows to nobody; 1.0 for all records in every round.
        trials: mechanism "poisson_binomial" only, and required there: coins of one client in each
            coordinate. More need a little less noise, and log2(trials) more bits.
        modulus_bits: bits per coordinate on the wire: the grid is the finest whose sums they hold.
            None for a grid that widens the norm bound by one per cent, in as many bits as it needs.
        wrap_probability: with which a round's sum of honest vectors may wrap, from 2^-100 to 1/2: a
            matter of utility, which saves bits. None for sums that cannot.
        bands: "banded" only: diagonals of the strategy; the server keeps one noise vector less.
            None for as many as rounds from one participation of a client to the next, 64 at most.
        buffers: "blt" only: noise vectors that the server keeps, 1 to 12; None for 4.
    """

    unit: str
    against: str
    epsilon: float
    delta: float
    clip_norm: float
    mechanism: str
    spare_releases: int = 0
    report_deltas: tuple[float, ...] = ()
    accountant: str = "rdp"
    record_sampling: float | None = None
    trials: int | None = None
    modulus_bits: int | None = None
    wrap_probability: float | None = None
    bands: int | None = None
    buffers: int | None = None

    @property
    def correlated(self) -> bool:
        """Whether the noise of a round depends on that of others."""
        return self.mechanism in CORRELATED

    @property
    def samples_records(self) -> bool:
        """Whether a record's secret coin amplifies."""
        return self.record_sampling is not None and self.record_sampling < 1

    def faults(self) -> tuple[str, ...]:
        """Returns what is wrong with the values."""
        deltas = [("delta", self.delta)]
        listed = isinstance(self.report_deltas, (tuple, list))
        if listed:
            deltas += [("report_deltas", value) for value in self.report_deltas]
        return (
            *choice_fault("unit", self.unit, UNITS),
            *choice_fault("against", self.against, ADVERSARIES),
            *number_fault("epsilon", self.epsilon, "a number above 0", lambda v: v > 0),
            *(
                ()
                if listed
                else (fault("report_deltas", self.report_deltas, "a tuple of numbers"),)
            ),
            *(
                line
                for name, value in deltas
                for line in number_fault(
                    name, value, "a number above 0 and below 1", lambda v: 0 < v < 1
                )
            ),
            *number_fault("clip_norm", self.clip_norm, NORM_RANGE, is_norm),
            *choice_fault("mechanism", self.mechanism, DISTRIBUTED + CENTRAL),
            *integer_fault("spare_releases", self.spare_releases, 0),
            *choice_fault("accountant", self.accountant, ("rdp", "zcdp")),
            *self._sampling_faults(),
            *self._coin_faults(),
            *self._modulus_faults(),
            *self._correlation_faults(),
        )

    def _correlation_faults(self) -> tuple[str, ...]:
        found = []
        for name, owner, most in (("bands", "banded", MAX_ROUNDS), ("buffers", "blt", MAX_BUFFERS)):
            value = getattr(self, name)
            if value is not None and self.mechanism != owner:
                found.append(fault(name, value, f'None: it belongs to mechanism="{owner}"'))
            elif value is not None:
                found += integer_fault(name, value, 1, most)
        if self.correlated and self.unit == "record":
            found.append(fault("unit", "record", f'client, with mechanism="{self.mechanism}"'))
        if self.correlated and self.wrap_probability is not None:
            takes = "None: all rounds of correlated noise share one rotation"
            found.append(fault("wrap_probability", self.wrap_probability, takes))
        return tuple(found)

    def _modulus_faults(self) -> tuple[str, ...]:
        wrap, takes = self.wrap_probability, "a number from 2^-100 to 0.5, or None"
        bits = integer_fault("modulus_bits", self.modulus_bits, 2, dp.MAX_MODULUS_BITS)
        odds = number_fault("wrap_probability", wrap, takes, lambda v: 2.0**-100 <= v <= 0.5)
        return (
            *(() if self.modulus_bits is None else bits),
            *(() if wrap is None else odds),
        )

    def _coin_faults(self) -> tuple[str, ...]:
        if self.mechanism != COINS:
            only = f"None: they belong to mechanism={COINS!r}"
            return () if self.trials is None else (fault("trials", self.trials, only),)
        found = [*integer_fault("trials", self.trials, 1, MAX_TRIALS)]
        if self.unit == "record":
            found.append(fault("unit", "record", f"client: with {COINS} a client has one vector"))
        if self.wrap_probability is not None:
            takes = f"None: with {COINS} no sum can wrap"
            found.append(fault("wrap_probability", self.wrap_probability, takes))
        if self.accountant == "zcdp":
            found.append(fault("accountant", "zcdp", f"rdp: {COINS} has no zCDP"))
        return tuple(found)

    def _sampling_faults(self) -> tuple[str, ...]:
        sampling, takes = self.record_sampling, "a probability above 0, at most 1"
        if self.unit != "record":
            only = 'None: it belongs to unit="record"'
            return () if sampling is None else (fault("record_sampling", sampling, only),)
        if found := number_fault("record_sampling", sampling, takes, lambda v: 0 < v <= 1):
            return found
        if self.samples_records and self.accountant == "zcdp":
            return (fault("accountant", "zcdp", "rdp: records that are sampled have no zCDP"),)
        return ()


@dataclass(frozen=True)
class NotPrivate:
    """A plan without noise.

    Attributes:
        max_norm: required by Ideal and Secure, since integers need a bound: larger updates are
            scaled down and counted. None under Plain: no bound.
        weights: "uniform", or "examples" for means weighted by the number of examples.
        max_weight: required for weights="examples" under Ideal and Secure: the number of examples
            from which on a client weighs no more.
    """

    max_norm: float | None = None
    weights: str = "uniform"
    max_weight: int | None = None

    def faults(self) -> tuple[str, ...]:
        """Returns what is wrong with the values."""
        norm = number_fault("max_norm", self.max_norm, f"{NORM_RANGE}, or None", is_norm)
        weight = integer_fault("max_weight", self.max_weight, 1, 2**31)
        return (
            *(() if self.max_norm is None else norm),
            *choice_fault("weights", self.weights, ("uniform", "examples")),
            *(() if self.max_weight is None else weight),
        )


@dataclass(frozen=True)
class CohortBounds:
    """The one arithmetic of protocol and noise for a cohort.

    Attributes:
        invited: n, also the public denominator.
        max_corrupt: c = floor(corrupt n): may collude or add no noise.
        max_dropped: D = floor(dropout n).
    """

    invited: int
    max_corrupt: int
    max_dropped: int

    @property
    def min_survivors(self) -> int:
        """N - D: fewer release nothing."""
        return self.invited - self.max_dropped

    @property
    def honest_shares(self) -> int:
        """min_survivors - c: the noise shares that count against colluders."""
        return self.min_survivors - self.max_corrupt


def cohort_bounds(
    invited: int, corrupt: float, dropout: float, *, least: int | None = None
) -> CohortBounds:
    """Returns the bounds for fractions read as exact decimals (0.1 of 30 is 3).

    Args:
        invited: n, or the largest n of cohorts whose size is random.
        corrupt: fraction.
        dropout: fraction.
        least: the smallest n of cohorts whose size is random. The bounds then hold for every size
            in between: fewest survivors, fewest honest shares.
    """
    sizes = range(invited if least is None else least, invited + 1)
    dropped = [floor_fraction(dropout, n) for n in sizes]
    survivors = min(n - gone for n, gone in zip(sizes, dropped, strict=True))
    honest = min(
        n - gone - floor_fraction(corrupt, n) for n, gone in zip(sizes, dropped, strict=True)
    )
    return CohortBounds(invited, survivors - honest, invited - survivors)


def floor_fraction(fraction: float, count: int) -> int:
    """Returns floor(fraction * count) with the fraction read as an exact decimal."""
    return math.floor(Fraction(str(fraction)) * count)


@dataclass(frozen=True)
class Exposure:
    """Everything that a statement follows from, fixed before training.

    Attributes:
        privacy: what was asked for.
        mechanism: the noise, or None without privacy.
        aggregation: "plain", "ideal" or "secure".
        server: "semi_honest" or "malicious", the server that the protocol withstands.
        bounds: of every cohort; under Plain nobody drops and nobody is assumed corrupt.
        expected_survivors: for the planned figures.
        scheduled: rounds that one client takes part in at most, by the schedule.
        max_releases: r = scheduled + spare releases, enforced by each client.
        failure_prob: that the protocol fails to hide, over the run; charged to delta.
        seeded_secrets: noise and keys derive from the run seed.
        sparse_graph: the masking graph is drawn from a seed that nobody could predict.
        rounds: that are run at most, aborted ones included.
        cohort: who takes part, and what that lets a row claim.
        runs: over the same clients that the figures cover together.
    """

    privacy: Privacy | NotPrivate
    mechanism: Mechanism | None
    aggregation: str
    server: str
    bounds: CohortBounds
    expected_survivors: int
    scheduled: int
    max_releases: int
    failure_prob: float
    seeded_secrets: bool
    sparse_graph: bool
    rounds: int = 0
    cohort: Cohort = field(default_factory=full)
    runs: int = 1

    @property
    def adversary(self) -> str:
        """The adversary that the noise is calibrated against."""
        return self.privacy.against if isinstance(self.privacy, Privacy) else "server"

    def colluders(self, adversary: str) -> int:
        """Returns c where the adversary holds clients: their noise shares do not count."""
        return 0 if adversary == "outsider" else self.bounds.max_corrupt

    def event(self, adversary: str, survivors: int) -> dp.Event:
        """Returns what one release is to the adversary, with that many clients in the sum.

        What is counted of a record's secret coin: docs/privacy.md, "Records".
        """
        release: dp.Event
        if isinstance(self.mechanism, Distributed):
            release = self.mechanism.event(survivors - self.colluders(adversary))
        elif isinstance(self.mechanism, dp.CentralMechanism):
            release = self.mechanism.event()
        elif isinstance(self.mechanism, dp.matrix.CorrelatedMechanism):
            release = _matrix_event(self.mechanism, 1)
        else:
            raise TypeError("a plan without noise has no events")  # guarded by `refusal`
        if isinstance(self.privacy, Privacy) and self.privacy.samples_records:
            return dp.RecordSampledEvent(self.privacy.record_sampling or 1.0, release)
        return release

    def composed(self, adversary: str, survivors: int, releases: int) -> dp.Event:
        """Returns what `releases` releases of one client are to the adversary.

        To somebody from whom cohorts are secret: all rounds, in which the client takes part by
        its secret coins. Central noise does not depend on the cohort; noise shares may show it.
        """
        if isinstance(self.mechanism, dp.matrix.CorrelatedMechanism):
            whole = _matrix_event(self.mechanism, releases)  # of one run; each has its own noise
            return whole if self.runs == 1 else dp.SelfComposedEvent(whole, self.runs)
        release = self.event(adversary, survivors)
        if not self.cohort.amplifies(adversary):
            return dp.SelfComposedEvent(release, releases)
        if isinstance(self.mechanism, dp.CentralMechanism):
            sampled = dp.PoissonSampledEvent(self.cohort.prob or 1.0, release)
            return dp.SelfComposedEvent(sampled, self.rounds)
        chance = self.cohort.prob or 1.0
        return dp.SecretParticipationEvent(release, self.rounds, chance, releases)

    def refusal(self, adversary: str) -> str | None:
        """Returns why no number may be printed for the adversary, or None."""
        if isinstance(self.privacy, NotPrivate):
            return "no noise is added: the plan is not private"
        if self.seeded_secrets:
            return "not private: secrets derive from the run seed (seeded_secrets)"
        central = (dp.CentralMechanism, dp.matrix.CorrelatedMechanism)
        if adversary == "server" and isinstance(self.mechanism, central):
            return "central noise gives no guarantee against the server, which adds it"
        return None

    @property
    def accountant(self) -> str:
        """Which accountant computes the figures."""
        return self.privacy.accountant if isinstance(self.privacy, Privacy) else "rdp"

    def total_variation(self, adversary: str, survivors: int, releases: int) -> float:
        """Returns the samplers' distance from the named laws, over that many releases."""
        if isinstance(self.mechanism, Distributed):
            shares = survivors - self.colluders(adversary)
            return releases * self.mechanism.total_variation(shares)
        if isinstance(self.mechanism, dp.CentralMechanism):
            return releases * self.mechanism.total_variation()
        if isinstance(self.mechanism, dp.matrix.CorrelatedMechanism):
            return self.runs * self.mechanism.total_variation()
        return 0.0

    def protocol_failure(self, adversary: str) -> float:
        """Returns the probability charged to the adversary's delta."""
        failure = self.failure_prob if adversary == "server" else 0.0
        return failure + (self.runs * SIZE_FAILURE if self.cohort.amplifies(adversary) else 0.0)


def _matrix_event(mechanism: dp.matrix.CorrelatedMechanism, releases: int) -> dp.MatrixEvent:
    """All rounds to a client that is in at most `releases` of them.

    Spare releases change nothing: round t is released once at most, and the schedule says in which
    rounds a client is.
    """
    return mechanism.event(mechanism.strategy.participation.at_most(releases))
