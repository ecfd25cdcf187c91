"""The 3x3 convolution of the network, with a gradient that is fast on CPU inside loops too."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from jaxstyle.nn import winograd

_DIMENSIONS = ("NHWC", "HWIO", "NHWC")
PRECISIONS = {
    "tf32": lax.Precision.DEFAULT,
    "float32": lax.Precision.HIGHEST,
    # Products of bfloat16 are exact; the image itself is float32.
    "bfloat16": lax.Precision.HIGHEST,
}
"""Precision of products by the value of `Recipe.precision`: the 10 bits of TF32 on GPUs that have
it (bfloat16 on TPUs, float32 on CPUs), float32 everywhere, or bfloat16 inputs. Sums are float32."""


def use_winograd(height: int, width: int, channels: int, width_out: int) -> bool:
    """Return whether `winograd` is faster than the direct convolution of a map.

    Measured on two x86 CPUs, forward and gradient (`experiments/bench/convolutions.py`): 0.34 to
    0.84 of the time from 128 channels on, even at 32 pixels; with 64 the same on small maps, but on
    large ones up to 1.23 on one of them; with fewer the additions outweigh the products. GPUs and
    TPUs have fast convolutions of their own.
    """
    narrow = min(channels, width_out)
    deep = narrow >= 128 or (narrow >= 64 and height * width <= 128 * 128)
    return deep and height * width >= 16 * 16 and jax.default_backend() == "cpu"


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def convolve(
    x: jax.Array, kernel: jax.Array, transformed: jax.Array | None = None, precision: str = "tf32"
) -> jax.Array:
    """Compute the cross-correlation of a map with 3x3 kernels, zero-padded: `[h, w, i]` to `[h,
    w, o]`.

    Args:
      x: `[h, w, i]`.
      kernel: `[3, 3, i, o]`, of the map's type.
      transformed: the kernel by `winograd.transform`, used where that is faster.
      precision: one of `PRECISIONS`.
    """
    if transformed is not None and use_winograd(*x.shape[:2], *kernel.shape[2:]):
        return winograd.convolve(x, transformed)
    return _correlate(x, kernel, precision)


def _correlate(x: jax.Array, kernel: jax.Array, precision: str) -> jax.Array:
    """Compute the cross-correlation directly, without Winograd's transformation."""
    if precision == "bfloat16":
        # XLA's CPU backend of JAX 0.12 fuses pooling and two convolutions of bfloat16 into one
        # program, whose numbers are wrong, many not finite. Convolutions apart are right.
        x, kernel = lax.optimization_barrier((x, kernel))
    return lax.conv_general_dilated(
        x[None], kernel, (1, 1), "SAME",
        dimension_numbers=_DIMENSIONS, precision=PRECISIONS[precision],
    )[0]  # fmt: skip


_Saved = tuple[jax.Array, jax.Array, jax.Array | None]


def _forward(
    x: jax.Array, kernel: jax.Array, transformed: jax.Array | None, precision: str
) -> tuple[jax.Array, _Saved]:
    return convolve(x, kernel, transformed, precision), (x, kernel, transformed)


def _backward(
    precision: str, saved: _Saved, cotangent: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    x, kernel, transformed = saved
    # The gradient with respect to the map is a convolution with the kernel turned by 180
    # degrees and its channels swapped.
    if transformed is not None and use_winograd(*x.shape[:2], *kernel.shape[2:]):
        of_x = winograd.convolve(cotangent, transformed, turned=True)
    else:
        # Left to itself, XLA folds the swap into the convolution's layout, for which the CPU has
        # no fast routine inside a loop: the gradient then takes four times as long. The barrier
        # keeps the swap apart.
        turned = lax.optimization_barrier(jnp.flip(kernel, (0, 1)).swapaxes(2, 3))
        of_x = convolve(cotangent, turned, None, precision)
    # The gradient of the kernel is for training; elsewhere the compiler drops it as unused.
    _, of_kernel = jax.vjp(lambda kernel: _correlate(x, kernel, precision), kernel)
    unused = None if transformed is None else jnp.zeros_like(transformed)
    return of_x, of_kernel(cotangent)[0], unused


convolve.defvjp(_forward, _backward)
