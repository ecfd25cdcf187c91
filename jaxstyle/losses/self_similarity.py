"""A content loss on self-similarity: the distances between the positions of an image."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from jaxstyle.losses.columns import average_to, cosine_distances, hypercolumns

MOST_POSITIONS = 16384
"""Largest number of positions: all those of a 512-pixel image at a quarter of its resolution."""
MOST_REGIONS = 256
"""Largest number of regions that each position is compared with."""


def self_similarity(
    maps: Mapping[str, jax.Array], weights: Mapping[str, float], image: jax.Array
) -> jax.Array:
    """Compute the cosine distances between positions and regions, each column divided by its sum.

    D / sum over i of D of Kolkin, Salavon & Shakhnarovich, Style Transfer by Relaxed Optimal
    Transport and Self-Similarity, 2019 (section 2.3). The paper compares 1024 positions with each
    other and samples them anew in every step. Here all positions are compared with the means of 256
    regions: the objective is the same function in every step, and all pixels have equal weights.
    With 1024 fixed positions, flat skies had a lattice of dots. In small images each position is a
    region.

    Args:
      maps: features by layer, `[h, w, c]`.
      weights: a factor for each layer.
      image: not used.

    Returns:
      `[n, m]`, with a row per position and a column per region.
    """
    positions = average_to(hypercolumns(maps, weights), MOST_POSITIONS)
    regions = average_to(positions, MOST_REGIONS)
    distances = cosine_distances(*(x.reshape(-1, x.shape[-1]) for x in (positions, regions)))
    if regions.shape == positions.shape:
        # Exactly 0: rounding leaves about 1e-7, whose absolute value would have a gradient.
        distances *= 1 - jnp.eye(len(distances), dtype=distances.dtype)
    return distances / jnp.maximum(jnp.sum(distances, 0, keepdims=True), 1e-6)


def self_similarity_distance(image: jax.Array, content: jax.Array) -> jax.Array:
    """Compute n times the mean absolute difference of two self-similarities `[n, m]`.

    As columns sum to 1, it is from 0 to 2 for any number of positions: the mean over columns of
    the sum of absolute differences. The paper divides the sum by n².
    """
    return len(image) * jnp.mean(jnp.abs(image - content))
