"""Nearest-neighbor search by inner products, block by block to bound the memory."""

import jax
import jax.numpy as jnp
from jax import lax

BLOCK = 1024
"""Number of vectors compared at a time."""


def most_similar(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return for each vector of `a` and of `b` the index of its most similar vector in the other.

    The most similar vector has the largest inner product.

    Args:
      a: vectors `[n, d]`.
      b: vectors `[m, d]`.

    Returns:
      Indices into `b`, int32 `[n]`, and into `a`, int32 `[m]`; they are not differentiated.
    """
    a, b = lax.stop_gradient((a, b))
    count, size = b.shape
    blocks = -(-count // BLOCK)
    filled = jnp.pad(b, ((0, blocks * BLOCK - count), (0, 0))).reshape(blocks, BLOCK, size)

    def compare(
        best: tuple[jax.Array, jax.Array], block: tuple[jax.Array, jax.Array]
    ) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
        first, vectors = block
        scores = jnp.matmul(a, vectors.T, precision="highest")
        is_padding = first + jnp.arange(BLOCK) >= count
        in_block = jnp.where(is_padding, -jnp.inf, scores)
        index = jnp.argmax(in_block, 1)
        score = jnp.take_along_axis(in_block, index[:, None], 1)[:, 0]
        better = score > best[0]
        best_so_far = jnp.where(better, score, best[0]), jnp.where(better, first + index, best[1])
        return best_so_far, jnp.argmax(scores, 0)

    start = jnp.full(len(a), -jnp.inf), jnp.zeros(len(a), int)
    (_, of_a), of_b = lax.scan(compare, start, (jnp.arange(blocks) * BLOCK, filled))
    return of_a, of_b.reshape(-1)[:count]
