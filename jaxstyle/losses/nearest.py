"""The nearest of many vectors, found block by block, so that memory stays bounded."""

import jax
import jax.numpy as jnp
from jax import lax

from jaxstyle.losses.base import EXACT

BLOCK = 1024
"""Vectors compared at a time."""


def most_similar(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return for each vector the index of the one with the largest product in the other list.

    Args:
      a: `[n, d]`.
      b: `[m, d]`.

    Returns:
      Indices into `b`, int32 `[n]`, and into `a`, int32 `[m]`. There is no derivative.
    """
    a, b = lax.stop_gradient((a, b))
    count, size = b.shape
    blocks = -(-count // BLOCK)
    filled = jnp.pad(b, ((0, blocks * BLOCK - count), (0, 0))).reshape(blocks, BLOCK, size)

    def compare(
        best: tuple[jax.Array, jax.Array], block: tuple[jax.Array, jax.Array]
    ) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
        first, some = block
        scores = jnp.matmul(a, some.T, precision=EXACT)
        places = first + jnp.arange(BLOCK)
        mine = jnp.where(places < count, scores, -jnp.inf)
        index = jnp.argmax(mine, 1)
        score = jnp.take_along_axis(mine, index[:, None], 1)[:, 0]
        better = score > best[0]
        best_so_far = jnp.where(better, score, best[0]), jnp.where(better, first + index, best[1])
        return best_so_far, jnp.argmax(scores, 0)

    start = jnp.full(len(a), -jnp.inf), jnp.zeros(len(a), int)
    (_, of_a), of_b = lax.scan(compare, start, (jnp.arange(blocks) * BLOCK, filled))
    return of_a, of_b.reshape(-1)[:count]
