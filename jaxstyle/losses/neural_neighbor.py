"""The style loss of Neural Neighbor Style Transfer, on nearest hypercolumns."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxstyle.losses.base import StyleDefaults, StyleLoss, concatenating_blend
from jaxstyle.losses.columns import bounded_columns, spaced_rows, unit
from jaxstyle.losses.nearest import most_similar


def divided_columns(
    maps: Mapping[str, jax.Array], weights: Mapping[str, float], image: jax.Array
) -> jax.Array:
    """Return hypercolumns `[n, d]` of features divided by the number of channels of their layer.

    Args:
      maps: features by layer, `[h, w, c]`.
      weights: a factor for each layer.
      image: not used.
    """
    shares = {layer: weights[layer] / act.shape[-1] for layer, act in maps.items()}
    columns = bounded_columns(maps, shares)
    return columns.reshape(-1, columns.shape[-1])


MOST_STYLE = 4096
"""Largest number of evenly spaced hypercolumns of the style; the cost grows with their number."""


class Neighbors(NamedTuple):
    """The hypercolumns of a style."""

    columns: jax.Array
    """Unit vectors, `[m, d]`."""
    centered: jax.Array
    """Unit vectors after subtraction of the mean, `[m, d]`, for the nearest-neighbor search."""


def neighbors(columns: jax.Array) -> Neighbors:
    """Return the target of `neural_neighbor_distance` for the hypercolumns `[m, d]` of a style."""
    centered = columns - jnp.mean(columns, 0, keepdims=True)
    return Neighbors(*(spaced_rows(unit(x), MOST_STYLE) for x in (columns, centered)))


def neural_neighbor_distance(image: jax.Array, style: Neighbors) -> jax.Array:
    """Compute the mean of 1 - cosine of hypercolumns and their nearest neighbors in the style.

    Kolkin, Kucera, Paris, Sykora, Shechtman & Shakhnarovich, Neural Neighbor Style Transfer, 2022
    (arXiv:2203.13215). The nearest neighbor has the largest cosine after subtraction of each
    image's mean; the choice is not differentiated. It is made in every step and for the image
    itself, whereas the paper keeps it for the 200 steps of a scale.

    Args:
      image: hypercolumns `[n, d]`.
      style: target of the style (`neighbors`).
    """
    nearest, _ = most_similar(unit(image - jnp.mean(image, 0, keepdims=True)), style.centered)
    return jnp.mean(1 - jnp.sum(unit(image) * style.columns[nearest], -1))


# The activations of the paper's VGG-16 grow from layer to layer. Those of normalized networks do
# not, so that the few channels of the first layers would dominate. With these weights the layers of
# `medium` have about the same shares in a hypercolumn as those of the exact VGG-16 up to relu3_3,
# as measured on one painting; the weights of relu4 are a guess.
_SHARES = {
    **{"relu1_1": 0.15, "relu1_2": 1.0, "relu2_1": 1.5, "relu2_2": 2.0},
    **{"relu3_1": 2.5, "relu3_2": 2.5, "relu3_3": 2.5},
    **{"relu4_1": 2.0, "relu4_2": 2.0, "relu4_3": 2.0},
}
LAYERS = tuple((layer, 1.0) for layer in _SHARES)
NEURAL_NEIGHBOR = StyleLoss(
    divided_columns,
    neural_neighbor_distance,
    normalized=StyleDefaults(50.0, tuple(_SHARES.items())),
    unnormalized=StyleDefaults(50.0, LAYERS),
    is_mean_over_positions=False,
    blend=concatenating_blend("neural-neighbor"),
    target=neighbors,
    is_joint=True,
)
