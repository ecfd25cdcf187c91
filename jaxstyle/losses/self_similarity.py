"""A content loss on self-similarity: which positions of an image look alike."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from jaxstyle.losses.columns import average_to, cosine_distances, hypercolumns

MOST_POSITIONS = 16384
"""Positions that are compared: all at a quarter of the size of an image of 512 pixels."""
MOST_REGIONS = 256
"""Regions that each position is compared with."""


def self_similarity(
    maps: Mapping[str, jax.Array], weights: Mapping[str, float], image: jax.Array
) -> jax.Array:
    """Compute the cosine distances of hypercolumns and those of regions, columns divided by sums.

    The D / sum over i of D of Kolkin, Salavon & Shakhnarovich, Style Transfer by Relaxed Optimal
    Transport and Self-Similarity, 2019 (section 2.3), which compares 1024 positions with each
    other and draws new ones in every step. Here all positions are compared with the means of 256
    regions, so that the objective is one function and every pixel counts alike: with 1024 fixed
    positions flat skies had a lattice of dots. In small images each position is a region.

    Args:
      maps: features by layer, `[h, w, c]`.
      weights: factors of the layers.
      image: not used.

    Returns:
      `[n, m]`, a row a position and a column a region.
    """
    positions = average_to(hypercolumns(maps, weights), MOST_POSITIONS)
    regions = average_to(positions, MOST_REGIONS)
    distances = cosine_distances(*(x.reshape(-1, x.shape[-1]) for x in (positions, regions)))
    if regions.shape == positions.shape:
        # Exactly 0, where rounding leaves 1e-7, whose sign would have a gradient.
        distances *= 1 - jnp.eye(len(distances), dtype=distances.dtype)
    return distances / jnp.maximum(jnp.sum(distances, 0, keepdims=True), 1e-6)


def self_similarity_distance(mine: jax.Array, target: jax.Array) -> jax.Array:
    """Compute n times the mean absolute difference of two self-similarities `[n, m]`.

    Columns sum to 1, so n times the mean is the mean over columns of the sum of differences, from
    0 to 2, whatever the number of positions. The paper divides the sum by
    n².
    """
    return len(mine) * jnp.mean(jnp.abs(mine - target))
