"""A plan is composed values; resolving it derives everything else and lists every fault at once.

Nothing is compiled and no example is read here: a plan that cannot keep its promise is refused
before training.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import jax
import numpy as np

import dp
from fl import secure
from fl._validate import flag_fault, integer_fault, kind_fault
from fl.aggregate import Aggregation, Ideal, Plain, Secure
from fl.algorithms.base import Algorithm
from fl.cohort import Cohort
from fl.datasets.dataset import FederatedDataset
from fl.encoding import Encoding, PrivateEncoding, UnnoisedEncoding, unnoised_encoding
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
from fl.statement import Statement, statement, worst_case
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
    seeded_secrets: bool = False

    def faults(self) -> tuple[str, ...]:
        """Returns what is wrong with the values, each part on its own and all together."""
        return (
            *settings_faults(
                self.rounds, self.eval_every, self.seed, self.privacy, self.aggregation
            ),
            *flag_fault("seeded_secrets", self.seeded_secrets),
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
            found.append(
                fault("mechanism", privacy.mechanism, "under Plain a central one: gaussian")
            )
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
        invited: n, the clients of each round.
        messages: how a message becomes a vector of length d.
        encoding: what travels, or None where floats are averaged in the open.
        params: the protocol's parameters for every round, or None under Plain.
        exposure: what the privacy statement follows from.
        noise_multiplier: standard deviation of the counted noise over clip_norm, or None.
    """

    plan: Plan
    invited: int
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
        found += plan.cohort.faults(data.num_clients)
    if params_init is None and isinstance(plan.algorithm, Algorithm):
        found.append(fault("model", None, "the Model, since the algorithm's loss is not a Model's"))
    found += _participation_faults(plan, data) if not found else []
    if found or params_init is None:
        raise PlanError(tuple(found))
    return _derive(plan, data.num_clients, _message_shape(plan.algorithm, params_init))


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


def _derive(plan: Plan, num_clients: int, messages: Raveler) -> Resolved:
    invited = plan.cohort.count(num_clients)
    bounds, expected = _bounds(plan.aggregation, invited)
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
    )
    encoding, noise_multiplier, exposure = _encoding(plan, invited, messages.dim, exposure)
    params = None
    if masked is not None and encoding is not None:
        # Every client has max_releases attempts, so the cohorts have this many rounds at most.
        attempts = plan.rounds + spare * -(-num_clients // invited)
        params = _protocol_params(plan, masked, invited, encoding, attempts)
    return Resolved(plan, invited, messages, encoding, params, exposure, noise_multiplier)


def _bounds(aggregation: Aggregation, invited: int) -> tuple[CohortBounds, int]:
    if isinstance(aggregation, Plain):
        return CohortBounds(invited, 0, 0), invited
    bounds = cohort_bounds(invited, aggregation.corrupt, aggregation.dropout)
    expected = aggregation.expected_dropout
    dropped = bounds.max_dropped if expected is None else floor_fraction(expected, invited)
    return bounds, invited - dropped


def _encoding(
    plan: Plan, invited: int, dim: int, exposure: Exposure
) -> tuple[Encoding | None, float | None, Exposure]:
    privacy = plan.privacy
    if isinstance(privacy, NotPrivate):
        return _unnoised_encoding(privacy, plan.aggregation, invited, dim), None, exposure

    def exposed(noise_multiplier: float) -> Exposure:
        return replace(exposure, mechanism=_mechanism(privacy, exposure, dim, noise_multiplier))

    try:
        # A statement with seeded secrets prints no number, but its noise is that of the real run.
        noise_multiplier = dp.smallest_parameter(
            lambda sigma: (
                worst_case(
                    exposed(sigma), privacy.against, privacy.delta, exposure.max_releases
                ).upper
            ),
            epsilon=privacy.epsilon,
        )
        final = exposed(noise_multiplier)
    except dp.DpError as error:
        why = f"{error}" if error.__cause__ is None else f"{error} ({error.__cause__})"
        raise PlanError((fault("privacy", why, "a target that some noise meets"),)) from error
    if final.mechanism is None:
        raise AssertionError("exposed() always sets the mechanism")
    return PrivateEncoding(final.mechanism), noise_multiplier, final


def _mechanism(
    privacy: Privacy, exposure: Exposure, dim: int, noise_multiplier: float
) -> dp.DistributedMechanism | dp.CentralMechanism:
    bounds = exposure.bounds
    if privacy.mechanism in CENTRAL:
        return dp.central_gaussian(
            dim=dim,
            clip_norm=privacy.clip_norm,
            noise_multiplier=noise_multiplier,
            num_clients=bounds.invited,
        )
    return dp.distributed(
        "skellam" if privacy.mechanism == "skellam" else "discrete_gaussian",
        dim=dim,
        clip_norm=privacy.clip_norm,
        noise_multiplier=noise_multiplier,
        num_clients=bounds.invited,
        shares=bounds.honest_shares,
    )


def _unnoised_encoding(
    privacy: NotPrivate, aggregation: Aggregation, invited: int, dim: int
) -> UnnoisedEncoding | None:
    if isinstance(aggregation, Plain) or privacy.max_norm is None:
        return None
    max_weight = privacy.max_weight if privacy.weights == "examples" else 1
    return unnoised_encoding(dim, privacy.max_norm, max_weight or 1, invited)


def _protocol_params(
    plan: Plan, masked: Ideal | Secure, invited: int, encoding: Encoding, attempts: int
) -> secure.Params:
    try:
        return secure.run_params(
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
    except secure.ParamsError as error:
        raise PlanError((f"aggregation: {error}",)) from error
