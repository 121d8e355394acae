"""The cohort's runners: independent of order and company, alike, few compilations."""

import dataclasses
import gc
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fl
from fl import programs
from fl.client import MAX_BUCKETS
from fl.runners import STRATEGIES, Execution, Runner, runner_for
from fl.types import PyTree, jax_key
from tests.fl import helpers

SIZES = [3, 0, 17, 1, 17] * 5
CHOSEN = [name for name in STRATEGIES if name != "auto"]


def small_data(sizes: Sequence[int], seed: int = 0) -> fl.FederatedDataset:
    rng = np.random.default_rng(seed)
    ids = np.repeat(np.arange(len(sizes)), sizes)
    return fl.FederatedDataset.from_arrays(
        {"x": rng.normal(size=(len(ids), 4)).astype(np.float32),
         "y": rng.integers(0, 3, len(ids)).astype(np.int32)},
        ids, num_clients=len(sizes), num_classes=3,
    )  # fmt: skip


MODEL = fl.models.logistic(4, 3)
ALGORITHM = fl.fedavg(
    MODEL.loss, client_optimizer=optax.sgd(0.2), server_optimizer=optax.sgd(1.0),
    batch_size=5, local_epochs=2,
)  # fmt: skip
STATEFUL = fl.scaffold(
    MODEL.loss, client_lr=0.2, server_optimizer=optax.sgd(1.0), batch_size=5, local_epochs=2,
    participation=1.0,
)  # fmt: skip


def made(
    data: fl.FederatedDataset,
    execution: Execution,
    algorithm: fl.Algorithm = ALGORITHM,
    model: fl.Model = MODEL,
    max_norm: float | None = None,
) -> tuple[Runner, PyTree, PyTree]:
    """A runner, what it broadcasts and what clients keep at first."""
    state, fresh = programs.initial_state(algorithm, model.init, programs.seed_words(3))
    sent = algorithm.broadcast(state)
    return runner_for(execution, algorithm, data, 3, max_norm, sent, fresh), sent, fresh


def vectors(
    runner: Runner, sent: PyTree, fresh: PyTree, ids: Sequence[int], round_index: int = 2
) -> dict[int, Any]:
    found = {}
    for chunk in runner.train(sent, round_index, ids, lambda client: fresh):
        assert len(chunk.client_ids) <= runner.chunk
        for row, client in enumerate(chunk.client_ids.tolist()):
            assert client not in found
            found[client] = chunk.vectors[row].copy()
    assert sorted(found) == sorted(ids)
    return found


@pytest.mark.parametrize("strategy", CHOSEN)
def test_a_client_does_not_depend_on_who_else_takes_part_or_on_the_order(strategy: str) -> None:
    chunk = 1 if strategy in ("steps", "debug") else 4
    made_of = made(small_data(SIZES), Execution(strategy, chunk))
    everybody = vectors(*made_of, list(range(len(SIZES))))
    for ids in ([0], [23, 1, 4], list(range(24, -1, -1))):
        for client, vector in vectors(*made_of, ids).items():
            assert (vector == everybody[client]).all()
    assert not everybody[1].any()
    assert everybody[4].any()


@pytest.mark.parametrize(
    ("algorithm", "max_norm"), [(ALGORITHM, 0.01), (STATEFUL, None)], ids=["fedavg", "scaffold"]
)
def test_strategies_and_chunks_agree(algorithm: fl.Algorithm, max_norm: float | None) -> None:
    data, ids = small_data([3, 0, 17, 17, 3, 12]), list(range(6))
    ways = [Execution("scan", 4), Execution("scan", 1), Execution("vmap", 3), Execution("debug")]
    first, *others = (vectors(*made(data, way, algorithm, max_norm=max_norm), ids) for way in ways)
    for other in others:
        for client, vector in first.items():
            np.testing.assert_allclose(other[client], vector, atol=2e-6)


def test_examples_that_stay_on_the_device_give_the_same_bits() -> None:
    data, ids = small_data([3, 0, 17, 17, 3, 12]), [1, 2, 3, 5]
    runner, sent, fresh = made(data, Execution("vmap", 3))
    kept = vectors(dataclasses.replace(runner, resident=True), sent, fresh, ids)
    for client, vector in vectors(runner, sent, fresh, ids).items():
        assert (kept[client] == vector).all()


def test_rounds_shuffle_differently() -> None:
    made_of = made(small_data([30, 30]), Execution())
    first, second = (vectors(*made_of, [0], t)[0] for t in (0, 1))
    assert (first != second).any()


def test_keys_of_clients_are_those_of_the_seed_tree() -> None:
    seed = 5 + 7 * 2**32
    labels = jnp.array([2, 3, 4], jnp.uint32)
    got = programs.client_key(jnp.asarray(programs.seed_words(seed)), labels)
    want = jax.random.fold_in(jax_key(seed, fl.types.Purpose(2), 3), 4)
    assert (jax.random.key_data(got) == jax.random.key_data(want)).all()


def test_the_strategy_follows_the_model_and_the_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    images = fl.FederatedDataset.from_arrays(
        {"x": np.zeros((12, 784), np.float32), "y": np.zeros(12, np.int32)},
        np.repeat([0, 1], 6), num_classes=10,
    )  # fmt: skip
    models = {
        "scan": fl.models.two_nn(784, 10),
        "steps": fl.models.cnn(784, 10, form="lax"),
    }
    for strategy, model in models.items():
        algorithm = fl.fedavg(
            model.loss, client_optimizer=optax.sgd(0.1), server_optimizer=optax.sgd(1.0),
            batch_size=2, local_epochs=1,
        )  # fmt: skip
        state, fresh = jax.eval_shape(
            lambda a=algorithm, m=model: programs.initial_state(a, m.init, programs.seed_words(0))
        )

        def chosen(a: fl.Algorithm = algorithm, state: Any = state, fresh: Any = fresh) -> Runner:
            sent = jax.eval_shape(a.broadcast, state)
            return runner_for(Execution(), a, images, 0, None, sent, fresh)

        assert chosen().strategy == strategy
        with monkeypatch.context() as patch:
            patch.setattr(jax, "default_backend", lambda: "gpu")
            assert chosen().strategy == "vmap"


@pytest.mark.parametrize(
    ("execution", "name"),
    [
        (Execution("fast"), "strategy"), (Execution(chunk=0), "chunk"),
        (Execution("steps", 2), "chunk"), (Execution("debug", 7), "chunk"),
    ],
)  # fmt: skip
def test_what_cannot_be_run_is_refused(execution: Execution, name: str) -> None:
    with pytest.raises(fl.PlanError, match=name):
        made(small_data([3]), execution)
    with pytest.raises(fl.PlanError, match=name):
        fl.rounds(helpers.plan(), helpers.MODEL, helpers.small_data(), execution=execution)


def live_bytes() -> int:
    arrays: list[jax.Array] = jax.live_arrays()  # type: ignore[no-untyped-call]  # jax leaves it
    return sum(array.nbytes for array in arrays)


def test_memory_follows_the_chunk_not_the_cohort() -> None:
    """Live arrays while a cohort trains: those of a chunk, whatever the cohort's size."""
    model = fl.models.two_nn(4, 3, hidden=64)
    algorithm = fl.fedavg(
        model.loss, client_optimizer=optax.sgd(0.2), server_optimizer=optax.sgd(1.0),
        batch_size=None, local_epochs=1,
    )  # fmt: skip
    sent: PyTree = None

    def peak(chunk: int, cohort: int) -> int:
        nonlocal sent
        runner, sent, _ = made(small_data([3] * 64), Execution("scan", chunk), algorithm, model)
        gc.collect()
        before, most = live_bytes(), 0
        for trained in runner.train(sent, 0, range(cohort), lambda client: ()):
            most = max(most, live_bytes() - before)
            del trained
        return most

    peaks = {case: peak(*case) for case in [(2, 8), (2, 64), (8, 64)]}
    vector = 4 * sum(leaf.size for leaf in jax.tree.leaves(sent.params))
    assert peaks[2, 8] == peaks[2, 64]
    assert 2 * vector <= peaks[2, 64] < peaks[8, 64] <= 8 * 2 * vector


COUNT_COMPILATIONS = textwrap.dedent(
    """
    import sys, jax, numpy as np, optax, fl
    from jax import monitoring
    compiled = []
    monitoring.register_event_duration_secs_listener(
        lambda event, seconds, **kw: compiled.append(event) if "backend_compile" in event else None
    )
    rng = np.random.default_rng(0)
    sizes = rng.permutation(np.arange(200))
    ids = np.repeat(np.arange(200), sizes)
    fields = {"x": rng.normal(size=(len(ids), 4)).astype(np.float32),
              "y": rng.integers(0, 3, len(ids)).astype(np.int32)}
    data = fl.FederatedDataset.from_arrays(fields, ids, num_clients=200, test=fields, num_classes=3)
    model = fl.models.two_nn(4, 3, hidden=8)
    algorithm = fl.fedavg(model.loss, client_optimizer=optax.sgd(0.2), batch_size=16,
                          server_optimizer=optax.sgd(1.0, momentum=0.9), local_epochs=1)
    privacy = {"plain": fl.NotPrivate(), "ideal": fl.NotPrivate(1.0)}[sys.argv[1]]
    aggregation = {"plain": fl.Plain(), "ideal": fl.Ideal(corrupt=0.1, dropout=0.1)}[sys.argv[1]]
    plan = fl.Plan(rounds=5, cohort=fl.cohort.cyclic(60), algorithm=algorithm, privacy=privacy,
                   aggregation=aggregation, seed=0)
    fl.train(plan, model, data, execution=fl.Execution(sys.argv[2]))
    print(len(compiled))
    """
)


@pytest.mark.parametrize(("aggregation", "strategy"), [("plain", "auto"), ("ideal", "steps")])
def test_a_whole_run_compiles_at_most_eight_programs(aggregation: str, strategy: str) -> None:
    """In a fresh process, every program counted, over cohorts of clients of 200 sizes."""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", COUNT_COMPILATIONS, aggregation, strategy], cwd=root, text=True,
        capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    # start, server step, evaluation; local training once per bucket, or its three pieces
    assert int(done.stdout) <= 3 + MAX_BUCKETS <= 8
    assert int(done.stdout) >= 4


def failing(stage: str) -> fl.Algorithm:
    """FedAvg that fails at a stage for a client whose first label is 2."""

    def bad_step(state: Any, batch: Any, key: Any) -> Any:
        after = ALGORITHM.client_step(state, batch, key)
        hit = jnp.any((batch["y"] == 2) & (batch["mask"] > 0))
        return after._replace(
            params=jax.tree.map(lambda leaf: jnp.where(hit, jnp.nan, leaf), after.params)
        )

    def bad_final(state: Any) -> Any:
        message, kept, metrics = ALGORITHM.client_final(state)
        return jax.tree.map(lambda leaf: leaf / 0.0, message), kept, metrics

    def bad_init(sent: Any, kept: Any, key: Any) -> Any:
        raise ValueError("no such start")

    changed: dict[str, Any] = {
        "client_step": bad_step, "client_final": bad_final, "client_init": bad_init,
    }  # fmt: skip
    return ALGORITHM._replace(**{stage: changed[stage]})


@pytest.mark.parametrize("stage", ["client_init", "client_step", "client_final"])
def test_the_debug_runner_names_stage_client_and_inputs(stage: str) -> None:
    sizes = [4, 4, 4]
    x = np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32)
    y = np.array([0, 1, 0, 1, 0, 2, 0, 1, 1, 1, 0, 0], np.int32)
    data = fl.FederatedDataset.from_arrays(
        {"x": x, "y": y}, np.repeat(np.arange(3), sizes), num_classes=3
    )
    algorithm = failing(stage)
    runner, sent, fresh = made(data, Execution("debug"), algorithm)
    with pytest.raises(fl.LocalTrainingError) as caught:
        list(runner.train(sent, 0, [0, 1, 2], lambda client: fresh))
    error = caught.value
    assert error.stage.startswith(stage)
    assert error.client == (1 if stage == "client_step" else 0)
    if stage == "client_step":
        assert set(error.inputs) == {"state", "batch"}
        assert 2 in error.inputs["batch"]["y"]
        assert "batch['x']: float32[4, 4]" in str(error)
        assert ".params" in error.why
    if stage == "client_init":
        assert isinstance(error.__cause__, ValueError)
    if stage != "client_init":  # other strategies go on: the client sends zero
        quiet, *_ = made(data, Execution("scan", 3), algorithm)
        (chunk,) = quiet.train(sent, 0, [0, 1, 2], lambda client: fresh)
        assert chunk.finite.tolist() == ([True, False, True] if stage == "client_step"
                                         else [False] * 3)  # fmt: skip


def test_the_debug_runner_reports_nan_data_with_where_it_is() -> None:
    data = small_data([6, 6])
    x = np.array(data.fields["x"])
    x[8] = np.nan
    data = fl.FederatedDataset.from_arrays(
        {"x": x, "y": np.array(data.fields["y"])}, np.repeat([0, 1], 6), num_classes=3
    )
    plan = helpers.plan(
        algorithm=ALGORITHM, aggregation=fl.Plain(), privacy=fl.NotPrivate(), rounds=1
    )
    with pytest.raises(fl.LocalTrainingError, match="not finite") as caught:
        list(fl.rounds(plan, MODEL, data, execution=Execution("debug")))
    assert caught.value.client == 1
    assert "4 of 20 not finite" in str(caught.value)
