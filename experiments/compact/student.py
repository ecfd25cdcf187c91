"""The student: its widths, its random start, and a forward pass that is quick to train on CPU.

The same function as `jaxstyle.vgg` on the same params (`export.py` compares them), with
convolutions written so that XLA's CPU gradients cost less.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import lax

from jaxstyle.vgg import convolutions, max_pool

WIDTHS = {"1": 16, "2": 32, "3": 64, "4": 128, "5": 128}
"""Channels in each block."""
# Nothing teaches conv5_2 … conv5_4: a random layer there would pass for a trained one.
DEEPEST = "conv5_1"
INPUT_SCALE = 64.0
"""The student sees x / 64, so that a usual start suits it; export.py folds it into conv1_1."""

Tree = dict[str, dict[str, jax.Array]]


def layers() -> tuple[str, ...]:
    """List the student's convolutions, conv1_1 … conv5_1."""
    every = convolutions("vgg19")
    return every[: every.index(DEEPEST) + 1]


def init(key: jax.Array) -> Tree:
    """Draw kernels (He) and set biases to 0."""
    student: Tree = {}
    he, width_in = jax.nn.initializers.he_normal(), 3
    for name, k in zip(layers(), jax.random.split(key, len(layers())), strict=True):
        width = WIDTHS[name[4]]
        kernel = he(k, (3, 3, width_in, width), jnp.float32)
        student[name] = {"kernel": kernel, "bias": jnp.zeros(width)}
        width_in = width
    return student


def features(student: Tree, x: jax.Array, wanted: Sequence[str]) -> dict[str, jax.Array]:
    """Compute the activations after the ReLU at the `wanted` layers, for `[n, h, w, 3]`."""
    found, block = {}, "1"
    x = x / INPUT_SCALE
    for name in layers():
        if name[4] != block:
            x, block = max_pool(x), name[4]
        kernel, bias = student[name]["kernel"], student[name]["bias"]
        x = jax.nn.relu(_convolution(kernel.shape[2])(x, kernel) + bias)
        rectified = name.replace("conv", "relu")
        if rectified in wanted:
            found[rectified] = x
    return found


def _convolution(channels: int) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """Choose the form whose gradient was quickest on CPU at 96 px, on busy cores.

    3 channels: columns and one product. 64 and more: XLA's own, but the kernel's gradient
    as nine products. Between them XLA's own.
    """
    return _as_columns if channels == 3 else _by_products if channels >= 64 else _direct


def _direct(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _shifts(x: jax.Array) -> list[jax.Array]:
    _, h, w, _ = x.shape
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return [x[:, i : i + h, j : j + w] for i in range(3) for j in range(3)]


def _as_columns(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return jnp.concatenate(_shifts(x), -1) @ kernel.reshape(-1, kernel.shape[-1])


@jax.custom_vjp
def _by_products(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return _direct(x, kernel)


def _forward(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _direct(x, kernel), (x, kernel)


def _backward(kept: tuple[jax.Array, jax.Array], g: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = kept
    flat = g.reshape(-1, g.shape[-1])
    products = [shift.reshape(-1, x.shape[-1]).T @ flat for shift in _shifts(x)]
    return (
        _direct(g, jnp.flip(kernel, (0, 1)).swapaxes(2, 3)),
        jnp.stack(products).reshape(kernel.shape),
    )


_by_products.defvjp(_forward, _backward)
