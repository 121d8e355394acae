"""The CNN of McMahan et al. 2017, with its convolutions written in two ways.

XLA on a CPU runs `lax.conv_general_dilated` an order of magnitude slower inside a loop than
outside (github.com/jax-ml/jax/issues/12868). As 25 shifted slices and one matrix product ("im2col")
a convolution is the same sum and runs everywhere at the speed of the product. Parameters are the
same in both forms and outputs agree to float32 rounding, so either may train what the other began.
"""

import math
from typing import Literal

import jax
import jax.numpy as jnp

from fl.errors import PlanError, fault
from fl.models.base import Model, classifier
from fl.types import PyTree

_KERNEL = 5
Form = Literal["im2col", "lax"]


def cnn(
    num_features: int,
    num_classes: int,
    *,
    form: Form = "im2col",
    channels: tuple[int, int] = (32, 64),
    hidden: int = 512,
) -> Model:
    """Two 5x5 convolutions, each with ReLU and 2x2 max pooling, and one hidden ReLU layer.

    1,663,370 parameters for MNIST. McMahan et al. 2017, section 3; padding keeps the image's size.

    Args:
        num_features: pixels of a square grey image, row by row; the side is a multiple of 4.
        num_classes: how many.
        form: "im2col" for a compiled loop over steps, "lax" for one compiled call per step.
        channels: of the two convolutions.
        hidden: units of the dense layer.

    Raises:
        PlanError: the image is not square with such a side, or the form is unknown.
    """
    side = math.isqrt(num_features)
    if side == 0 or side**2 != num_features or side % 4:
        takes = "a square image whose side is a multiple of 4"
        raise PlanError((fault("num_features", num_features, takes),))
    if form not in ("im2col", "lax"):
        raise PlanError((fault("form", form, "im2col | lax"),))
    convolve = _im2col if form == "im2col" else _lax
    first, second = channels
    shapes = {
        "conv1": (_KERNEL, _KERNEL, 1, first),
        "conv2": (_KERNEL, _KERNEL, first, second),
        "dense": ((side // 4) ** 2 * second, hidden),
        "out": (hidden, num_classes),
    }

    def init(key: jax.Array) -> PyTree:
        glorot = jax.nn.initializers.glorot_uniform()
        keys = jax.random.split(key, len(shapes))
        return {
            name: {"b": jnp.zeros(shape[-1]), "w": glorot(k, shape)}
            for k, (name, shape) in zip(keys, shapes.items(), strict=True)
        }

    def apply(params: PyTree, x: jax.Array) -> jax.Array:
        images = x.reshape(-1, side, side, 1)
        for name in ("conv1", "conv2"):
            images = convolve(images, params[name]["w"]) + params[name]["b"]
            images = _max_pool(jax.nn.relu(images))
        flat = images.reshape(len(images), -1)
        units = jax.nn.relu(flat @ params["dense"]["w"] + params["dense"]["b"])
        logits: jax.Array = units @ params["out"]["w"] + params["out"]["b"]
        return logits

    return classifier(init, apply)


def _lax(images: jax.Array, kernel: jax.Array) -> jax.Array:
    """[B, H, W, C] with [5, 5, C, D] -> [B, H, W, D]."""
    return jax.lax.conv_general_dilated(
        images, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _im2col(images: jax.Array, kernel: jax.Array) -> jax.Array:
    """The same: each pixel's 5x5 neighbourhood as one row of a matrix, times the kernel."""
    height, width = images.shape[1:3]
    edge = _KERNEL // 2
    padded = jnp.pad(images, ((0, 0), (edge, edge), (edge, edge), (0, 0)))
    shifted = [
        padded[:, i : i + height, j : j + width] for i in range(_KERNEL) for j in range(_KERNEL)
    ]
    columns = jnp.concatenate(shifted, axis=-1)  # [B, H, W, 25 C], in the kernel's order
    return columns @ kernel.reshape(-1, kernel.shape[-1])


def _max_pool(images: jax.Array) -> jax.Array:
    """2x2 without overlap. As a reshape: its gradient is elementwise, unlike reduce_window's."""
    batch, height, width, channels = images.shape
    return images.reshape(batch, height // 2, 2, width // 2, 2, channels).max(axis=(2, 4))
