"""The one 3x3 convolution of the network, with a gradient that stays fast inside loops."""

import jax
import jax.numpy as jnp
from jax import lax

_DIMENSIONS = ("NHWC", "HWIO", "NHWC")


@jax.custom_vjp
def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Cross-correlate a map with 3x3 kernels, zeros outside: `[h, w, i]` to `[h, w, o]`.

    Args:
      x: `[h, w, i]`.
      kernel: `[3, 3, i, o]`.
    """
    return _correlate(x, kernel)


def _correlate(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return lax.conv_general_dilated(x[None], kernel, (1, 1), "SAME", dimension_numbers=_DIMENSIONS)[
        0
    ]


def _forward(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return convolve(x, kernel), (x, kernel)


def _backward(
    saved: tuple[jax.Array, jax.Array], cotangent: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = saved
    # The gradient with respect to the map is a convolution with the kernel turned by 180
    # degrees and its channels swapped. Left to itself, XLA folds the swap into the
    # convolution's layout, for which the CPU has no fast routine inside a loop: the
    # gradient then takes four times as long. The barrier keeps the swap apart.
    turned = lax.optimization_barrier(jnp.flip(kernel, (0, 1)).swapaxes(2, 3))
    # Of the kernel: only training asks for it; elsewhere it is dropped as unused.
    _, of_kernel = jax.vjp(lambda kernel: _correlate(x, kernel), kernel)
    return convolve(cotangent, turned), of_kernel(cotangent)[0]


convolve.defvjp(_forward, _backward)
