"""A plan is composed values; resolving it derives everything else and lists every fault at once.

Nothing is compiled and no example is read here: a plan that cannot keep its promise is refused
before training.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import jax
import numpy as np
from numpy.typing import NDArray

from fl import secure
from fl._validate import flag_fault, integer_fault, kind_fault
from fl.aggregate import Aggregation, Ideal, Plain, Secure
from fl.algorithms.base import Algorithm
from fl.cohort import Cohort
from fl.datasets.dataset import FederatedDataset
from fl.encoding import Encoding
from fl.errors import PlanError, fault
from fl.models import Model
from fl.privacy import (
    CENTRAL,
    DISTRIBUTED,
    CohortBounds,
    Exposure,
    NotPrivate,
    Privacy,
    cohort_bounds,
    floor_fraction,
)
from fl.sizing import Summands, sized
from fl.statement import Statement, statement
from fl.tree import Raveler, raveler
from fl.types import PyTree


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What will be run.

    Attributes:
        rounds: how many.
        cohort: who takes part in each, see `fl.cohort`.
        algorithm: what clients and server compute, see `fl.algorithms`.
        privacy: Privacy or NotPrivate.
        aggregation: Plain, Ideal or Secure.
        seed: of initialisation, local training, public cohorts, simulated dropouts and rotations;
            0 to 2^63 - 1. It is public: no secret derives from it unless seeded_secrets.
        eval_every: rounds between evaluations; the last round is always evaluated.
        client_metrics: evaluate also on every client's own examples (mean, worst, deciles). In a
            private plan that is outside the guarantee, and marked so wherever it is shown.
        seeded_secrets: derive keys, masks and noise from the seed, for tests and debugging; every
            row of the statement then says "not private".
    """

    rounds: int
    cohort: Cohort
    algorithm: Algorithm
    privacy: Privacy | NotPrivate
    aggregation: Aggregation
    seed: int
    eval_every: int = 1
    client_metrics: bool = False
    seeded_secrets: bool = False

    def faults(self) -> tuple[str, ...]:
        """Returns what is wrong with the values, each part on its own and all together."""
        return (
            *settings_faults(
                self.rounds, self.eval_every, self.seed, self.privacy, self.aggregation
            ),
            *flag_fault("seeded_secrets", self.seeded_secrets),
            *flag_fault("client_metrics", self.client_metrics),
            *kind_fault("cohort", self.cohort, Cohort),
            *_algorithm_faults(self.algorithm),
        )


def settings_faults(
    rounds: object, eval_every: object, seed: object, privacy: object, aggregation: object
) -> tuple[str, ...]:
    """Returns what is wrong with a plan's numbers, privacy and aggregation, and between them."""
    found = [
        *integer_fault("rounds", rounds, 1),
        *integer_fault("eval_every", eval_every, 1),
        *integer_fault("seed", seed, 0),
        *kind_fault("privacy", privacy, Privacy, NotPrivate),
        *kind_fault("aggregation", aggregation, Plain, Ideal, Secure),
    ]
    if isinstance(privacy, (Privacy, NotPrivate)):
        found += privacy.faults()
    if isinstance(aggregation, (Plain, Ideal, Secure)):
        found += aggregation.faults()
        if isinstance(privacy, Privacy):
            found += _private_faults(privacy, aggregation)
        elif isinstance(privacy, NotPrivate):
            found += _open_faults(privacy, aggregation)
    return tuple(found)


def _algorithm_faults(algorithm: object) -> tuple[str, ...]:
    if not isinstance(algorithm, Algorithm):
        return kind_fault("algorithm", algorithm, Algorithm)
    try:
        hash(algorithm)  # programs are compiled once per algorithm
    except TypeError:
        return (fault("algorithm", "functions without a hash", "hashable functions"),)
    return algorithm.batching.faults()


def _open_faults(privacy: NotPrivate, aggregation: Aggregation) -> list[str]:
    found: list[str] = []
    if isinstance(aggregation, Plain):
        return found
    if privacy.max_norm is None:
        found.append(
            fault("max_norm", None, "a bound: Ideal and Secure sum integers, which need one")
        )
    if privacy.weights == "examples" and privacy.max_weight is None:
        found.append(fault("max_weight", None, "a bound on the weight under Ideal and Secure"))
    return found


def _private_faults(privacy: Privacy, aggregation: Aggregation) -> list[str]:
    found = []
    central = privacy.mechanism in CENTRAL
    if isinstance(aggregation, Plain):
        if privacy.mechanism in DISTRIBUTED:
            takes = f"under Plain a central one: {' | '.join(CENTRAL)}"
            found.append(fault("mechanism", privacy.mechanism, takes))
    elif privacy.against == "server" and not integer_fault("", aggregation.security_bits, 0, 128):
        failure = 2.0**-aggregation.security_bits
        if isinstance(privacy.delta, float) and 0 < privacy.delta <= failure:
            found.append(
                fault(
                    "security_bits", aggregation.security_bits,
                    f"more: 2^-security_bits is charged to delta, which is {privacy.delta}",
                )
            )  # fmt: skip
    if central and privacy.against == "server":
        found.append(
            fault("against", "server", "participants or outsider where the noise is central")
        )
    return found


@dataclass(frozen=True)
class Resolved:
    """A plan with everything derived.

    Attributes:
        plan: the plan.
        invited: n, the clients of each round; expected where cohorts are drawn secretly.
        sizes: (least, largest) cohort that is run; others release nothing.
        messages: how a message becomes a vector of length d.
        encoding: what travels, or None where floats are averaged in the open.
        params: the protocol's parameters for cohorts of `invited`, or None under Plain.
        exposure: what the privacy statement follows from.
        noise_multiplier: standard deviation of the counted noise over clip_norm, or None.
    """

    plan: Plan
    invited: int
    sizes: tuple[int, int]
    messages: Raveler
    encoding: Encoding | None
    params: secure.Params | None
    exposure: Exposure
    noise_multiplier: float | None

    @property
    def max_norm(self) -> float | None:
        """The l2 bound on one client's message, or None."""
        privacy = self.plan.privacy
        return privacy.clip_norm if isinstance(privacy, Privacy) else privacy.max_norm

    def params_for(self, size: int) -> secure.Params | None:
        """Returns the protocol's parameters for a cohort of that size, or None under Plain."""
        if self.params is None or size == self.params.num_clients:
            return self.params
        return secure.resized(self.params, size)

    @property
    def max_attempts(self) -> int | None:
        """Attempts that the figures cover: by the protocol's failures, or by secret cohorts."""
        if self.params is not None:
            return self.params.rounds
        return self.plan.rounds if self.plan.cohort.secret else None

    @property
    def privacy(self) -> Statement:
        """The statement before training: planned and worst case."""
        return statement(self.exposure)


def resolve(plan: Plan, data: FederatedDataset, *, model: Model | None = None) -> Resolved:
    """Derives noise, modulus, protocol parameters and the privacy statement of a plan.

    Args:
        plan: the plan.
        data: its number of clients is used; no example is read.
        model: needed where the algorithm was not built from a Model's own loss.

    Raises:
        PlanError: with all faults.
    """
    known = plan.algorithm.params_init if isinstance(plan.algorithm, Algorithm) else None
    params_init = known if model is None else model.init
    found = [*plan.faults()]
    if isinstance(plan.cohort, Cohort):
        found += _cohort_faults(plan, data.num_clients)
    if params_init is None and isinstance(plan.algorithm, Algorithm):
        found.append(fault("model", None, "the Model, since the algorithm's loss is not a Model's"))
    if not found:
        found += [*_participation_faults(plan, data), *_record_faults(plan)]
    if found or params_init is None:
        raise PlanError(tuple(found))
    return _derive(plan, data, _message_shape(plan.algorithm, params_init))


def _cohort_faults(plan: Plan, num_clients: int) -> list[str]:
    """What is wrong with the cohorts for these clients, and with secret ones in this plan."""
    rounds = 1 if integer_fault("rounds", plan.rounds, 1) else plan.rounds
    found = [*plan.cohort.faults(num_clients, rounds)]
    if not plan.cohort.secret:
        return found
    privacy, masked = plan.privacy, plan.aggregation
    if isinstance(privacy, Privacy) and privacy.correlated:
        takes = "a public one: secret coins gain nothing where noise is correlated"
        found.append(fault("cohort", str(plan.cohort), takes))
    if isinstance(privacy, Privacy) and privacy.spare_releases:
        takes = "0: a secret cohort that is drawn again is another release"
        found.append(fault("spare_releases", privacy.spare_releases, takes))
    if not isinstance(masked, Plain) and masked.beyond:
        found.append(fault("beyond", True, "False: rounds that abort would show secret cohorts"))
    return found


def _record_faults(plan: Plan) -> list[str]:
    """What is wrong with an algorithm that is run record by record."""
    privacy = plan.privacy
    if not isinstance(privacy, Privacy) or privacy.unit != "record":
        return []
    if plan.algorithm.client_state is None and plan.algorithm.participation is None:
        return []
    return [fault("algorithm", "one that keeps client state", 'one without, for unit="record"')]


def _participation_faults(plan: Plan, data: FederatedDataset) -> list[str]:
    """What is wrong for an algorithm that averages over clients, such as SCAFFOLD."""
    built_for = plan.algorithm.participation
    if built_for is None:
        return []
    found, share = [], plan.cohort.count(data.num_clients) / data.num_clients
    if not math.isclose(built_for, share, rel_tol=1e-6):
        found.append(fault("participation", built_for, f"{share:g}, cohort over clients"))
    if isinstance(plan.privacy, NotPrivate) and plan.privacy.weights != "uniform":
        found.append(fault("weights", plan.privacy.weights, "uniform: it averages over clients"))
    return found


def _message_shape(algorithm: Algorithm, params_init: Callable[[jax.Array], PyTree]) -> Raveler:
    def message(seed: jax.Array) -> tuple[PyTree, PyTree]:
        key = jax.random.key(seed)
        params = params_init(key)
        before = algorithm.fresh_client_state(params)
        step = algorithm.client_init(algorithm.broadcast(algorithm.init(params)), before, key)
        sent, kept, _ = algorithm.client_final(step)
        return sent, (before, kept)

    sent, (before, kept) = jax.eval_shape(message, np.uint32(0))
    found = []
    if _shapes(before) != _shapes(kept):
        takes = f"{_shapes(before)}, as client_state makes it"
        found.append(fault("client_final", f"a client state of {_shapes(kept)}", takes))
    kinds = sorted({str(leaf.dtype) for leaf in jax.tree.leaves(sent)})
    if kinds != ["float32"]:
        found.append(fault("client_final", f"a message of {kinds}", "a message of float32 arrays"))
    if found:
        raise PlanError(tuple(found))
    return raveler(sent)


def _shapes(tree: PyTree) -> str:
    return str(jax.tree.map(lambda leaf: f"{leaf.dtype}{list(leaf.shape)}", tree))


def _derive(plan: Plan, data: FederatedDataset, messages: Raveler) -> Resolved:
    num_clients = data.num_clients
    invited, sizes = plan.cohort.count(num_clients), plan.cohort.sizes(num_clients, plan.rounds)
    bounds, expected = _bounds(plan.aggregation, invited, sizes)
    scheduled = plan.cohort.max_participations(plan.rounds, num_clients)
    spare = plan.privacy.spare_releases if isinstance(plan.privacy, Privacy) else 0
    if bounds.honest_shares < 1:
        raise PlanError((
            fault(
                "corrupt and dropout",
                f"{bounds.max_corrupt} corrupt and {bounds.max_dropped} dropped of {invited}",
                "fewer, so that an honest survivor remains",
            ),
        ))  # fmt: skip
    masked = None if isinstance(plan.aggregation, Plain) else plan.aggregation
    exposure = Exposure(
        privacy=plan.privacy,
        mechanism=None,
        aggregation=type(plan.aggregation).__name__.lower(),
        server="semi_honest" if masked is None else masked.server,
        bounds=bounds,
        expected_survivors=expected,
        scheduled=scheduled,
        max_releases=scheduled + spare,
        failure_prob=0.0 if masked is None else 2.0**-masked.security_bits,
        seeded_secrets=plan.seeded_secrets,
        sparse_graph=masked is not None and masked.graph == "sparse",
        rounds=plan.rounds,
        cohort=plan.cohort,
    )
    summands = _summands(plan, data.sizes, invited, sizes[1])
    encoding, noise_multiplier, exposure = sized(
        plan.privacy, plan.aggregation, messages.dim, summands, exposure, num_clients
    )
    params = None
    if masked is not None and encoding is not None:
        # Every client has max_releases attempts, so the cohorts have this many rounds at most.
        attempts = plan.rounds + spare * -(-num_clients // invited)
        params = _protocol_params(plan, masked, sizes, invited, encoding, attempts)
    return Resolved(plan, invited, sizes, messages, encoding, params, exposure, noise_multiplier)


def _bounds(
    aggregation: Aggregation, invited: int, sizes: tuple[int, int]
) -> tuple[CohortBounds, int]:
    least, most = sizes
    if isinstance(aggregation, Plain):
        return CohortBounds(most, 0, most - least), invited
    bounds = cohort_bounds(most, aggregation.corrupt, aggregation.dropout, least=least)
    usual = cohort_bounds(invited, aggregation.corrupt, aggregation.dropout)
    expected = aggregation.expected_dropout
    dropped = usual.max_dropped if expected is None else floor_fraction(expected, invited)
    # Colluders beyond the bounds' own count, of a random cohort that is larger than the least.
    more = max(0, usual.max_corrupt - bounds.max_corrupt)
    return bounds, max(bounds.min_survivors, invited - dropped - more)


def _summands(plan: Plan, sizes: NDArray[np.int64], invited: int, most: int) -> Summands:
    """How many units are summed at most, and how many are expected."""
    privacy = plan.privacy
    if not isinstance(privacy, Privacy) or privacy.unit == "client":
        return Summands(most, most, float(invited))
    largest = int(np.sort(sizes)[-most:].sum())
    expected = (privacy.record_sampling or 1.0) * float(sizes.sum()) * invited / len(sizes)
    return Summands(max(largest, most), most, expected or 1.0)


def _protocol_params(
    plan: Plan,
    masked: Ideal | Secure,
    sizes: tuple[int, int],
    invited: int,
    encoding: Encoding,
    attempts: int,
) -> secure.Params:
    try:
        params = secure.run_params(
            invited,
            encoding.segments,
            corrupt=masked.corrupt,
            dropout=masked.dropout,
            server=masked.server,
            rounds=attempts,
            complete_graph=masked.graph == "complete",
            security_bits=masked.security_bits,
            correctness_bits=masked.correctness_bits,
            seed=plan.seed if plan.seeded_secrets else None,
        )
        for size in range(sizes[0], sizes[1] + 1):
            secure.resized(params, size)  # a cohort of any such size must be possible
    except secure.ParamsError as error:
        raise PlanError((f"aggregation: {error}",)) from error
    return params
