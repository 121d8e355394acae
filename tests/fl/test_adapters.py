"""Models of Flax and Equinox train as they are; what they would lose is refused."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fl
from fl.models import classifier, from_equinox, from_flax, from_nnx
from fl.types import PyTree
from tests.fl import helpers

linen = pytest.importorskip("flax.linen", reason="needs the extra 'models'")
nnx = pytest.importorskip("flax.nnx", reason="needs the extra 'models'")
eqx = pytest.importorskip("equinox", reason="needs the extra 'models'")


class Linen(linen.Module):  # type: ignore[name-defined]  # found at run time
    @linen.compact
    def __call__(self, x: Any) -> Any:
        hidden = linen.relu(linen.Dense(5)(x))
        return linen.Dense(3)(hidden)


class Nnx(nnx.Module):  # type: ignore[name-defined]
    def __init__(self, rngs: Any) -> None:
        self.first, self.second = nnx.Linear(4, 5, rngs=rngs), nnx.Linear(5, 3, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        return self.second(nnx.relu(self.first(x)))


def mlp(key: jax.Array) -> Any:
    return eqx.nn.MLP(4, 3, 5, 1, key=key)


def linen_layers(params: PyTree) -> list[Any]:
    return [(params[f"Dense_{i}"]["kernel"], params[f"Dense_{i}"]["bias"]) for i in (0, 1)]


def nnx_layers(params: PyTree) -> list[Any]:
    return [
        (params[name]["kernel"][...], params[name]["bias"][...]) for name in ("first", "second")
    ]


def eqx_layers(params: PyTree) -> list[Any]:
    return [(layer.weight.T, layer.bias) for layer in params.layers]


CASES: dict[str, Any] = {
    "linen": (from_flax(Linen(), jnp.zeros((1, 4))), linen_layers),
    "nnx": (from_nnx(Nnx), nnx_layers),
    "equinox": (from_equinox(mlp), eqx_layers),
}


@pytest.mark.parametrize("name", CASES)
def test_an_adapted_model_computes_what_its_parameters_say(name: str) -> None:
    (init, apply), layers = CASES[name]
    params = init(jax.random.key(3))
    (w1, b1), (w2, b2) = [(np.asarray(w), np.asarray(b)) for w, b in layers(params)]
    x = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    np.testing.assert_allclose(
        apply(params, jnp.asarray(x)), np.maximum(x @ w1 + b1, 0) @ w2 + b2, rtol=1e-4, atol=1e-5
    )
    assert helpers.params_bytes(params) == helpers.params_bytes(init(jax.random.key(3)))
    assert helpers.params_bytes(params) != helpers.params_bytes(init(jax.random.key(4)))


@pytest.mark.parametrize("name", CASES)
def test_an_adapted_model_trains_alike_under_ideal_and_secure(name: str) -> None:
    model = classifier(*CASES[name][0])
    algorithm = fl.fedavg(
        model.loss, client_optimizer=optax.sgd(0.3), server_optimizer=optax.sgd(1.0),
        batch_size=None, local_epochs=2,
    )  # fmt: skip
    data = helpers.small_data(num_clients=12)
    runs, started = [], CASES[name][0][0](helpers.KEY)
    for aggregation in (helpers.ideal(), helpers.secure()):
        plan = helpers.plan(
            algorithm=algorithm,
            aggregation=aggregation,
            privacy=fl.NotPrivate(4.0),
            rounds=4,
            seeded_secrets=True,
        )
        assert fl.resolve(plan, data).messages.dim == 4 * 5 + 5 + 5 * 3 + 3
        runs.append(fl.train(plan, model, data))
    ours, other = (helpers.params_bytes(run.params) for run in runs)
    assert ours == other
    assert str(jax.tree.structure(runs[0].params)) == str(jax.tree.structure(started))
    assert runs[0].metrics["accuracy"] > 0.5  # chance is a third


def test_variables_besides_parameters_are_refused() -> None:
    class Normed(linen.Module):  # type: ignore[name-defined]
        @linen.compact
        def __call__(self, x: Any) -> Any:
            return linen.BatchNorm(use_running_average=False)(x)

    with pytest.raises(fl.PlanError, match="module: got other variables too: batch_stats"):
        from_flax(Normed(), jnp.zeros((2, 4)))
    with pytest.raises(fl.PlanError, match="other variables too: mean, var"):
        from_nnx(lambda rngs: nnx.BatchNorm(4, rngs=rngs))


@pytest.mark.parametrize(("adapt", "package"), [(from_nnx, "flax"), (from_equinox, "equinox")])
def test_an_absent_package_is_an_extra(
    adapt: Any, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(fl.MissingExtraError, match=r"private-aggregation\[models\]"):
        adapt(lambda _: None)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["flax_model", "equinox_model"])
def test_the_example_runs_as_it_is(name: str) -> None:
    """Both print about 93 %; the noise is fresh each time and moves that by a point or two."""
    script = Path(__file__).parents[2] / "examples" / f"{name}.py"
    printed = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, check=True
    ).stdout
    accuracy = re.match(r"accuracy ([\d.]+)%\n", printed)
    assert accuracy is not None
    assert float(accuracy[1]) > 85
    assert "server: epsilon planned <= 8.00" in printed
