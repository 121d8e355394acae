"""The cohort's runner: independent of order and company, few compilations."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import optax

import fl
from fl import runners
from fl.client import MAX_BUCKETS
from fl.runners import CHUNK, ScanRunner
from fl.types import PyTree

train_chunk: Any = runners.train_chunk  # the compiled-program count is not in its type


def small_data(sizes: Sequence[int], seed: int = 0) -> fl.FederatedDataset:
    rng = np.random.default_rng(seed)
    ids = np.repeat(np.arange(len(sizes)), sizes)
    return fl.FederatedDataset.from_arrays(
        {"x": rng.normal(size=(len(ids), 4)).astype(np.float32),
         "y": rng.integers(0, 3, len(ids)).astype(np.int32)},
        ids, num_clients=len(sizes), num_classes=3,
    )  # fmt: skip


def runner_for(data: fl.FederatedDataset) -> tuple[ScanRunner, PyTree]:
    model = fl.models.logistic(4, 3)
    algorithm = fl.fedavg(
        model.loss, client_optimizer=optax.sgd(0.2), server_optimizer=optax.sgd(1.0),
        batch_size=5, local_epochs=2,
    )  # fmt: skip
    sent = algorithm.broadcast(algorithm.init(model.init(jax.random.key(0))))
    return ScanRunner(algorithm, data, 3, 15, None), sent


def test_a_client_does_not_depend_on_who_else_takes_part() -> None:
    sizes = [3, 0, 17, 1, 40, 40, 9] * 5
    data = small_data(sizes)
    runner, params = runner_for(data)
    everybody = runner.train(params, 2, range(len(sizes)))
    assert len(sizes) > CHUNK
    for client in (0, 1, 4, 33):
        alone = runner.train(params, 2, [client])
        assert (alone.vectors[0] == everybody.vectors[client]).all()
    assert not everybody.vectors[1].any()
    assert everybody.finite.all()


def test_rounds_shuffle_differently() -> None:
    data = small_data([30, 30])
    runner, params = runner_for(data)
    first, second = (runner.train(params, t, [0]).vectors for t in (0, 1))
    assert (first != second).any()


def test_compilations_are_bounded_by_the_buckets() -> None:
    sizes = list(range(1, 120))
    runner, params = runner_for(small_data(sizes))
    before = train_chunk._cache_size()
    for t in range(3):
        runner.train(params, t, range(t, 119))
    assert 1 < train_chunk._cache_size() - before <= MAX_BUCKETS
