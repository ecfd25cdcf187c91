"""A style loss on nearest patches, after Li and Wand (2016)."""

import jax
import jax.numpy as jnp

from jaxstyle.errors import JaxstyleError
from jaxstyle.losses.base import StyleDefaults, StyleLoss, concatenating_blend
from jaxstyle.losses.columns import unit
from jaxstyle.losses.nearest import most_similar


def patches(features: jax.Array) -> jax.Array:
    """Return all 3x3 patches of a feature map `[h, w, c]`, as `[(h - 2) · (w - 2), 9 · c]`.

    Raises:
      JaxstyleError: the map has fewer than 3 rows or columns.
    """
    h, w, c = features.shape
    if min(h, w) < 3:
        raise JaxstyleError(
            f"style_layers: a map of {w}x{h} positions has no 3x3 patches, which the style loss "
            "'patches' compares; use larger images or shallower layers"
        )
    shifts = [features[i : i + h - 2, j : j + w - 2] for i in range(3) for j in range(3)]
    return jnp.stack(shifts, -2).reshape(-1, 9 * c)


def patches_distance(image: jax.Array, style: jax.Array) -> jax.Array:
    """Compute the mean squared difference of patches and their nearest style patches.

    Li & Wand, Combining Markov Random Fields and Convolutional Neural Networks for Image
    Synthesis, 2016 (equations 2 and 3). The nearest patch has the largest normalized
    cross-correlation; the choice is not differentiated.

    Args:
      image: patches of the image, `[n, d]`.
      style: patches of the style, `[m, d]`.
    """
    nearest, _ = most_similar(image, unit(style))
    return jnp.mean(jnp.square(image - style[nearest]))


LAYERS = (("relu3_1", 1.0), ("relu4_1", 1.0))
PATCHES = StyleLoss(
    patches,
    patches_distance,
    normalized=StyleDefaults(4.0, LAYERS),
    unnormalized=StyleDefaults(1.0, LAYERS),
    balance=2.0,
    is_mean_over_positions=False,
    blend=concatenating_blend("patches"),
)
