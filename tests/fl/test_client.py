"""Local steps: every example once an epoch, padding the identity, few shapes."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import fl
from fl.algorithms import Batching
from fl.client import (
    MAX_BUCKETS,
    Update,
    bucket_of,
    buckets,
    finish_client,
    local_steps,
    steps_shape,
    train_client,
)
from fl.types import PyTree


@given(st.integers(0, 50), st.one_of(st.none(), st.integers(1, 20)), st.integers(1, 3))
def test_every_example_is_seen_once_an_epoch(
    size: int, batch_size: int | None, epochs: int
) -> None:
    batching = Batching(batch_size, epochs)
    bucket = max(size, 1) + 3
    steps = local_steps(size, bucket, batching, seed=1, round_index=2, client=3)
    assert steps.index.shape == steps.mask.shape == steps_shape(bucket, batching)
    per_epoch = steps.count // epochs
    for epoch in range(epochs):
        rows = slice(epoch * per_epoch, (epoch + 1) * per_epoch)
        seen = steps.index[rows][steps.mask[rows] == 1]
        assert sorted(seen.tolist()) == list(range(size))
    assert not steps.mask[steps.count :].any()
    assert (steps.mask[: steps.count].sum(axis=1) > 0).all()


def test_order_differs_by_round_client_and_epoch_and_repeats_by_seed() -> None:
    def order(seed: int, round_index: int, client: int) -> list[Any]:
        steps = local_steps(30, 30, Batching(10, 2), seed, round_index, client)
        return list(steps.index.tolist())

    assert order(0, 0, 0) == order(0, 0, 0)
    assert (
        len({str(order(*labels)) for labels in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]}) == 4
    )
    epochs = order(0, 0, 0)
    assert epochs[:3] != epochs[3:]


@given(st.lists(st.integers(0, 5000), min_size=1, max_size=300))
def test_buckets_are_few_and_hold_everybody(sizes: list[int]) -> None:
    shapes = buckets(np.array(sizes))
    assert 1 <= len(shapes) <= MAX_BUCKETS
    assert shapes == tuple(sorted(set(shapes)))
    for size, held in zip(sizes, bucket_of(np.array(sizes), shapes).tolist(), strict=True):
        assert held == min(shape for shape in shapes if shape >= size)


@given(st.lists(st.integers(0, 12), min_size=1, max_size=12))
def test_no_other_buckets_pad_less(sizes: list[int]) -> None:
    def rows(shapes: tuple[int, ...]) -> int:
        return int(bucket_of(np.array(sizes), shapes).sum())

    found = sorted({max(size, 1) for size in sizes})
    others = [
        (*smaller, found[-1])
        for count in range(MAX_BUCKETS)
        for smaller in itertools.combinations(found[:-1], count)
    ]
    assert rows(buckets(np.array(sizes))) == min(rows(shapes) for shapes in others)


def linear_algorithm(*, batch_size: int | None, local_epochs: int) -> tuple[fl.Model, fl.Algorithm]:
    model = fl.models.logistic(3, 2)
    return model, fl.fedavg(
        model.loss, client_optimizer=optax.sgd(0.3), server_optimizer=optax.sgd(1.0),
        batch_size=batch_size, local_epochs=local_epochs,
    )  # fmt: skip


def run(
    algorithm: fl.Algorithm,
    params: PyTree,
    x: NDArray[Any],
    y: NDArray[Any],
    bucket: int,
    max_norm: float | None = None,
) -> Update:
    steps = local_steps(len(x), bucket, algorithm.batching, 0, 0, 0)
    examples = {
        "x": jnp.zeros((bucket, 3)).at[: len(x)].set(x),
        "y": jnp.zeros(bucket, jnp.int32).at[: len(y)].set(y),
    }
    sent = algorithm.broadcast(algorithm.init(params))
    return train_client(
        algorithm, max_norm, sent, (), examples, jnp.asarray(steps.index),
        jnp.asarray(steps.mask), jnp.asarray(steps.count), jax.random.key(0),
    )  # fmt: skip


def test_padding_changes_nothing() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(7, 3)).astype(np.float32), rng.integers(0, 2, 7)
    for batch_size in (None, 2, 3):
        model, algorithm = linear_algorithm(batch_size=batch_size, local_epochs=2)
        params = model.init(jax.random.key(0))
        tight, padded = (run(algorithm, params, x, y, bucket).vector for bucket in (7, 19))
        np.testing.assert_allclose(tight, padded, atol=1e-6)


def test_the_message_is_what_gradient_descent_by_hand_gives() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(6, 3)).astype(np.float32), rng.integers(0, 2, 6)
    model, algorithm = linear_algorithm(batch_size=None, local_epochs=3)
    params = model.init(jax.random.key(0))
    w, b = np.zeros((3, 2)), np.zeros(2)
    for _ in range(3):
        logits = x @ w + b
        softmax = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        error = (softmax - np.eye(2)[y]) / 6
        w, b = w - 0.3 * x.T @ error, b - 0.3 * error.sum(0)
    np.testing.assert_allclose(
        run(algorithm, params, x, y, 6).vector, -np.concatenate([b, w.ravel()]), atol=1e-6
    )


def test_long_messages_are_clipped_and_said_to_be() -> None:
    model, algorithm = linear_algorithm(batch_size=None, local_epochs=5)
    params = model.init(jax.random.key(0))
    x, y = np.full((4, 3), 5.0, np.float32), np.array([0, 0, 0, 1])
    free, bound = (run(algorithm, params, x, y, 4, max_norm=m) for m in (100.0, 0.25))
    assert not free.clipped
    assert bound.clipped
    assert float(jnp.linalg.norm(bound.vector)) == pytest.approx(0.25, rel=1e-5)


def test_nan_becomes_the_zero_vector_and_is_flagged() -> None:
    model, algorithm = linear_algorithm(batch_size=None, local_epochs=1)
    params = model.init(jax.random.key(0))
    update = run(algorithm, params, np.full((2, 3), np.nan, np.float32), np.array([0, 1]), 2, 1.0)
    assert not update.finite
    assert not update.clipped
    assert not np.asarray(update.vector).any()


@pytest.mark.parametrize("place", [0, 3, 6])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("compiled", [True, False])
def test_one_number_that_is_not_finite_is_enough(bad: float, place: int, compiled: bool) -> None:
    _, algorithm = linear_algorithm(batch_size=None, local_epochs=1)
    message = np.arange(7, dtype=np.float32)
    sends = algorithm._replace(client_final=lambda state: (state, (), {}))
    finish = jax.jit(finish_client, static_argnums=(0, 1)) if compiled else finish_client
    good = finish(sends, None, (), jnp.asarray(message))
    assert (bool(good.finite), np.asarray(good.vector).tolist()) == (True, message.tolist())
    message[place] = bad
    zero = finish(sends, None, (), jnp.asarray(message))
    assert (bool(zero.finite), np.asarray(zero.vector).tolist()) == (False, [0.0] * 7)
