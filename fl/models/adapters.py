"""Models written with Flax or Equinox, as the (init, apply) that `fl.models.classifier` takes.

    model = fl.models.classifier(*fl.models.from_flax(MyModule(), x=jnp.zeros((1, 64))))

Only parameters travel. A module with other variables (batch statistics, a dropout counter) is
refused: they would be neither trained nor averaged, and they would not be in the privacy statement.
"""

from collections.abc import Callable
from typing import Any

import jax

from fl.errors import MissingExtraError, PlanError, fault
from fl.types import PyTree

InitApply = tuple[Callable[[jax.Array], PyTree], Callable[[PyTree, jax.Array], jax.Array]]


def from_flax(module: Any, x: jax.Array) -> InitApply:
    """Returns init and apply of a `flax.linen.Module` that maps x [B, ...] to outputs [B, ...].

    Nothing of Flax is imported here: what has its `init` and `apply` will do.

    Args:
        module: the module.
        x: a batch to initialise with; only its shape and type count.

    Raises:
        PlanError: the module keeps variables besides parameters.
    """
    found = jax.eval_shape(module.init, jax.random.key(0), x)
    _check_alone(sorted(set(found) - {"params"}))

    def init(key: jax.Array) -> PyTree:
        return module.init(key, x)["params"]

    def apply(params: PyTree, batch: jax.Array) -> jax.Array:
        outputs: jax.Array = module.apply({"params": params}, batch)
        return outputs

    return init, apply


def from_nnx(make: Callable[[Any], Any]) -> InitApply:
    """Returns init and apply of a `flax.nnx.Module` that maps x [B, ...] to outputs [B, ...].

    Args:
        make: flax.nnx.Rngs -> module.

    Raises:
        MissingExtraError: Flax is not installed.
        PlanError: the module keeps variables besides parameters.
    """
    try:
        from flax import nnx
    except ModuleNotFoundError as error:
        raise MissingExtraError("a model of Flax", "models") from error
    graph, _, others = nnx.split(make(nnx.Rngs(0)), nnx.Param, ...)
    _check_alone(sorted({".".join(map(str, path)) for path, _ in nnx.to_flat_state(others)}))

    def init(key: jax.Array) -> PyTree:
        return nnx.split(make(nnx.Rngs(key)), nnx.Param, ...)[1]

    def apply(params: PyTree, batch: jax.Array) -> jax.Array:
        outputs: jax.Array = nnx.merge(graph, params)(batch)
        return outputs

    return init, apply


def from_equinox(make: Callable[[jax.Array], Any]) -> InitApply:
    """Returns init and apply of an `equinox.Module` that maps one example to its outputs.

    Floating-point arrays are the parameters; whatever else the module holds stays as it is.

    Args:
        make: key -> module; everything but parameters must not depend on the key.

    Raises:
        MissingExtraError: Equinox is not installed.
    """
    try:
        import equinox as eqx
    except ModuleNotFoundError as error:
        raise MissingExtraError("a model of Equinox", "models") from error
    static = eqx.partition(make(jax.random.key(0)), eqx.is_inexact_array)[1]

    def init(key: jax.Array) -> PyTree:
        return eqx.filter(make(key), eqx.is_inexact_array)

    def apply(params: PyTree, batch: jax.Array) -> jax.Array:
        outputs: jax.Array = jax.vmap(eqx.combine(params, static))(batch)
        return outputs

    return init, apply


def _check_alone(others: list[str]) -> None:
    if others:
        takes = "a module of parameters alone"
        raise PlanError((fault("module", f"other variables too: {', '.join(others)}", takes),))
