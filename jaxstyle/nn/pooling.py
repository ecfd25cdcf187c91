"""Poolings of the network: 2x2 with stride 2."""

from collections.abc import Callable

import jax
import jax.numpy as jnp


def max_pool(x: jax.Array) -> jax.Array:
    """Return the maximum of each 2x2 cell of `[..., h, w, c]`, without an odd last row or column.

    Written as a reshape, as the gradient of `reduce_window` is a select-and-scatter:
    about ten times slower on CPUs, and not supported by XLA's deterministic mode on
    GPUs.
    """
    return _cells(x).max((-4, -2))


def avg_pool(x: jax.Array) -> jax.Array:
    """Return the mean of each 2x2 cell of `[..., h, w, c]`, without an odd last row or column."""
    return _cells(x).mean((-4, -2))


def max_pool_ceil(x: jax.Array) -> jax.Array:
    """Return `max_pool` with sizes rounded up: an odd last row or column forms its own cells.

    Caffe and TensorFlow's SAME padding round in this way.
    """
    *batch, h, w, _ = x.shape
    ends = [(0, 0)] * len(batch) + [(0, h % 2), (0, w % 2), (0, 0)]
    return max_pool(jnp.pad(x, ends, mode="edge"))


def _cells(x: jax.Array) -> jax.Array:
    """Return `[..., h, w, c]` as 2x2 cells, `[..., h / 2, 2, w / 2, 2, c]`."""
    *batch, h, w, c = x.shape
    x = x[..., : h // 2 * 2, : w // 2 * 2, :]
    return x.reshape(*batch, h // 2, 2, w // 2, 2, c)


POOLINGS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "max": max_pool,
    "avg": avg_pool,
    "max-ceil": max_pool_ceil,
}
