"""A content loss on self-similarity: which positions of an image look alike."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from jaxstyle.losses.columns import cosine_distances, hypercolumns, sample_positions

MOST_POSITIONS = 1024
"""Positions whose distances are compared, as in STROTSS."""


def self_similarity(
    maps: Mapping[str, jax.Array], weights: Mapping[str, float], image: jax.Array
) -> jax.Array:
    """Compute the cosine distances of hypercolumns at sampled positions, columns divided by sums.

    The D / sum over i of D of Kolkin, Salavon & Shakhnarovich, Style Transfer by Relaxed Optimal
    Transport and Self-Similarity, 2019 (section 2.3). The positions are evenly spaced and the same
    in every step, where the paper draws new ones: the objective is one function.

    Args:
      maps: features by layer, `[h, w, c]`.
      weights: factors of the layers.
      image: not used.

    Returns:
      `[n, n]`, n at most 1024.
    """
    distances = _distances(maps, weights)
    return distances / jnp.maximum(jnp.sum(distances, 0, keepdims=True), 1e-6)


def _distances(maps: Mapping[str, jax.Array], weights: Mapping[str, float]) -> jax.Array:
    columns = sample_positions(hypercolumns(maps, weights), MOST_POSITIONS)
    distances = cosine_distances(columns, columns)
    # Exactly 0, where rounding leaves 1e-7, whose sign would have a gradient.
    return distances * (1 - jnp.eye(len(distances), dtype=distances.dtype))


def self_similarity_distance(mine: jax.Array, target: jax.Array) -> jax.Array:
    """Compute n times the mean absolute difference of two self-similarities `[n, n]`.

    Columns sum to 1, so n times the mean is the mean over columns of the sum of differences, from
    0 to 2, whatever the number of positions. The paper divides the sum by n².
    """
    return len(mine) * jnp.mean(jnp.abs(mine - target))
