"""A content loss on the Laplacian of the image, which preserves edges and lines."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from jaxstyle.losses.columns import average_cells

POOL = 4
"""Side, in pixels, of the cells over which the Laplacian is averaged."""


def pooled_laplacian(
    maps: Mapping[str, jax.Array], weights: Mapping[str, float], image: jax.Array
) -> jax.Array:
    """Compute the Laplacian of an image, averaged over cells of 4x4 pixels.

    4 x[i, j] - x[i-1, j] - x[i+1, j] - x[i, j-1] - x[i, j+1], summed over the channels, with the
    edge repeated beyond the image. Li, Xu, Nie & Liu, Laplacian-Steered Neural Style Transfer, 2017
    (arXiv:1707.01253, section 3.2), on values in [0, 1] instead of 0-255.

    Args:
      maps: not used.
      weights: not used.
      image: RGB `[h, w, 3]`, with sides of at least 4 pixels.

    Returns:
      `[h / 4, w / 4]`, rounded down.
    """
    gray = jnp.sum(image, -1, keepdims=True)
    x = jnp.pad(gray, ((1, 1), (1, 1), (0, 0)), mode="edge")
    around = x[:-2, 1:-1] + x[2:, 1:-1] + x[1:-1, :-2] + x[1:-1, 2:]
    return average_cells(4 * gray - around, POOL)[..., 0]


def laplacian_distance(image: jax.Array, content: jax.Array) -> jax.Array:
    """Compute the mean squared difference of two pooled Laplacians; the paper takes the sum."""
    return jnp.mean(jnp.square(image - content))
