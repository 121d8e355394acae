"""Bugs planted into the pipeline, one patch each; the statement goes on claiming what it claims."""

import importlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np
import optax
from numpy.typing import NDArray

import dp
import fl
from dp import discretize, mechanisms, samplers
from dp.matrix.strategy import Draw
from fl import correlated, round, secure, training
from fl.audit import canaries
from fl.plan import Plan, Resolved
from fl.streams import streams as _streams
from fl.types import Purpose, RandomBytes
from tests.fl import helpers

Central = dp.CentralMechanism | dp.matrix.CorrelatedMechanism
MODEL = fl.models.logistic(12, 10)  # 130 parameters
ALGORITHM = fl.fedavg(
    MODEL.loss, client_optimizer=optax.sgd(0.5), server_optimizer=optax.sgd(1.0),
    batch_size=None, local_epochs=1,
)  # fmt: skip


def data(num_clients: int) -> fl.FederatedDataset:
    """Clients with two examples each."""
    rng = np.random.default_rng(0)
    ids = np.repeat(np.arange(num_clients), 2)
    fields = {
        "x": rng.normal(size=(len(ids), 12)).astype(np.float32),
        "y": rng.integers(0, 10, len(ids)).astype(np.int32),
    }
    return fl.FederatedDataset.from_arrays(
        fields, ids, num_clients=num_clients, num_classes=10, name="planted"
    )


def plan(**overrides: Any) -> Plan:
    """A plan whose claims the tests attack: epsilon 1 in four rounds unless told otherwise."""
    settings: dict[str, Any] = {
        "algorithm": ALGORITHM,
        "rounds": 4,
        "privacy": helpers.privacy(epsilon=1.0),
    }
    return helpers.plan(**{**settings, **overrides})


@contextmanager
def repeatable(seed: int) -> Iterator[RandomBytes]:
    """Secrets come from a seed, so that a statistic is the same in every run of the tests."""
    rng = np.random.default_rng(seed)
    with mock.patch.object(secure, "secret_stream", return_value=rng.bytes):
        yield rng.bytes


_share, _clipped, _binomial = mechanisms._share, canaries._clipped, samplers.binomial


def _drawn(
    stack: ExitStack,
    share: Callable[[Any, float, int, RandomBytes], NDArray[np.int64]],
    noise: Callable[[Any, RandomBytes], NDArray[np.int64]],
    coins: Callable[[RandomBytes, int, NDArray[np.int64]], NDArray[np.int64]],
) -> None:
    """Replaces noise shares, a server's noise (correlated or not) and coins."""

    def draw(self: dp.matrix.CorrelatedMechanism, rng: RandomBytes) -> Draw:
        return lambda: noise(self, rng)

    stack.enter_context(mock.patch.object(samplers, "binomial", coins))
    stack.enter_context(mock.patch.object(dp.matrix.CorrelatedMechanism, "draw", draw))
    stack.enter_context(mock.patch.object(mechanisms, "_share", share))
    stack.enter_context(mock.patch.object(mechanisms.CentralMechanism, "sample_noise", noise))


def _scaled_noise(stack: ExitStack, factor: float) -> None:
    """Noise of `factor` times the standard deviation; 0 for none, 0.5 for coins too."""

    def share(name: Any, variance: float, size: int, rng: RandomBytes) -> NDArray[np.int64]:
        drawn = _share(name, variance * (factor or 1.0) ** 2, size, rng)
        return drawn if factor else 0 * drawn

    def noise(self: Central, rng: RandomBytes) -> NDArray[np.int64]:
        drawn = dp.discrete_gaussian(rng, self.sigma * (factor or 1.0), self.discretizer.dim)
        return drawn if factor else 0 * drawn

    def coins(rng: RandomBytes, trials: int, biases: NDArray[np.int64]) -> NDArray[np.int64]:
        if factor:  # means of four tosses have half the deviation
            tosses = [_binomial(rng, trials, biases) for _ in range(int(factor**-2))]
            tossed = np.mean(tosses, axis=0)
        else:
            tossed = trials * (0.5 + biases * samplers.BIAS_UNIT)
        return np.asarray(np.rint(tossed), dtype=np.int64)

    _drawn(stack, share, noise, coins)


def _doubled_clip(stack: ExitStack) -> None:
    """Every clip lets through twice the norm, and nobody looks again."""
    coins = importlib.import_module("dp.poisson_binomial")  # in `dp` a function has this name
    patched: list[tuple[object, str, Any]] = [
        (discretize, "clip_l2", lambda x, norm: dp.clip_l2(x, 2 * norm)),
        (coins, "clip_l2", lambda x, norm: dp.clip_l2(x, 2 * norm)),
        (coins, "_sum_of_squares", lambda found: 0),
        (canaries, "_clipped", lambda rows, norm: _clipped(rows, 2 * norm)),
        (discretize.Discretizer, "_fits", lambda self, rounded: True),
    ]
    for where, name, new in patched:
        stack.enter_context(mock.patch.object(where, name, new))


def _shared_seed(stack: ExitStack, seed: int, forgets: str) -> None:
    """Streams of a party and round that forget one of the two."""

    def streams(plan: Plan, index: int, party: int) -> Callable[[Purpose], RandomBytes]:
        labels = (party,) if forgets == "round" else (index,)
        return lambda purpose: secure.seeded_stream(seed, purpose, *labels)

    stack.enter_context(mock.patch.object(round, "streams", streams))
    stack.enter_context(mock.patch.object(correlated, "streams", streams))


@dataclass
class _Told:
    """Bytes that tell whose they are."""

    party: int
    rand: RandomBytes

    def __call__(self, count: int) -> bytes:
        return self.rand(count)


def _mixed_noise(stack: ExitStack) -> None:
    """Whatever a party draws has a correlation of -0.6 with the first that it drew."""
    first: dict[int, NDArray[np.int64]] = {}

    def mixed(rng: Any, fresh: NDArray[np.int64]) -> NDArray[np.int64]:
        if rng.party not in first:
            first[rng.party] = fresh
            return fresh
        return np.rint(0.8 * fresh - 0.6 * first[rng.party]).astype(np.int64)

    def told(plan: Plan, index: int, party: int) -> Callable[[Purpose], RandomBytes]:
        given = _streams(plan, index, party)
        return lambda purpose: _Told(party, given(purpose))

    def share(name: Any, variance: float, size: int, rng: RandomBytes) -> NDArray[np.int64]:
        return mixed(rng, _share(name, variance, size, rng))

    def noise(self: Central, rng: RandomBytes) -> NDArray[np.int64]:
        return mixed(rng, dp.discrete_gaussian(rng, self.sigma, self.discretizer.dim))

    def coins(rng: RandomBytes, trials: int, biases: NDArray[np.int64]) -> NDArray[np.int64]:
        return mixed(rng, _binomial(rng, trials, biases) - trials // 2) + trials // 2

    for where in (round, correlated):
        stack.enter_context(mock.patch.object(where, "streams", told))
    _drawn(stack, share, noise, coins)


def _fixed_batches(stack: ExitStack, seed: int, again: bool) -> None:
    """Cohorts of one size, drawn anew or once, where coins are claimed."""

    def invited(resolved: Resolved, num_clients: int, round_index: int) -> list[int]:
        rng = np.random.default_rng([seed, 0 if again else round_index])
        size = resolved.plan.cohort.count(num_clients)
        return sorted(rng.choice(num_clients, size, replace=False).tolist())

    stack.enter_context(mock.patch.object(training, "invited", invited))


BUGS: dict[str, Callable[[ExitStack, int], None]] = {
    "none": lambda stack, seed: None,
    "noise missing": lambda stack, seed: _scaled_noise(stack, 0.0),
    "noise halved": lambda stack, seed: _scaled_noise(stack, 0.5),
    "clip doubled": lambda stack, seed: _doubled_clip(stack),
    "seed shared between rounds": lambda stack, seed: _shared_seed(stack, seed, "round"),
    "seed shared between clients": lambda stack, seed: _shared_seed(stack, seed, "client"),
    "noise mixed into later noise": lambda stack, seed: _mixed_noise(stack),
    "fixed batches as Poisson": lambda stack, seed: _fixed_batches(stack, seed, again=False),
    "one batch as Poisson": lambda stack, seed: _fixed_batches(stack, seed, again=True),
}

DETECTORS = {  # bug -> the detector that is made for it
    "noise missing": "too little noise",
    "noise halved": "too little noise",
    "clip doubled": "inputs beyond the clip",
    "seed shared between rounds": "dependent noise of rounds",
    "seed shared between clients": "dependent noise of clients",
    "noise mixed into later noise": "dependent noise of rounds",
    "fixed batches as Poisson": "cohorts of fixed size",
    "one batch as Poisson": "cohorts that repeat or avoid each other",
}


@contextmanager
def bug(name: str, seed: int) -> Iterator[RandomBytes]:
    """Plants a bug of BUGS; yields the auditor's bytes."""
    with repeatable(seed) as rand, ExitStack() as stack:
        BUGS[name](stack, seed)
        yield rand


def plan_for(name: str, mechanism: str) -> tuple[Plan, int]:
    """Returns the plan that a bug is planted into, and its number of clients."""
    claimed = private(mechanism, 1.0)
    if "Poisson" in name:
        return plan(privacy=claimed, cohort=fl.cohort.poisson(0.4), rounds=6), 100
    return plan(privacy=claimed), 80


def private(mechanism: str, epsilon: float) -> fl.Privacy:
    """What is claimed of a mechanism."""
    central = mechanism in fl.privacy.CENTRAL
    more = {fl.privacy.COINS: {"trials": 64}, "banded": {"bands": 2}}.get(mechanism, {})
    return helpers.privacy(
        epsilon=epsilon, mechanism=mechanism, against="outsider" if central else "server", **more
    )


def no_such(name: str, mechanism: str) -> str | None:
    """Why a mechanism cannot have a bug, or None."""
    if mechanism in fl.privacy.CENTRAL and "between clients" in name:
        return "clients add no noise"
    if mechanism in fl.privacy.CORRELATED and "Poisson" in name:
        return "secret cohorts are refused where noise is correlated"
    return None
