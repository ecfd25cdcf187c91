"""The style loss of Neural Neighbor Style Transfer: each position takes after its nearest one."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxstyle.losses.base import StyleDefaults, StyleLoss, concatenated
from jaxstyle.losses.columns import bounded_columns, spaced_rows, unit
from jaxstyle.losses.nearest import most_similar


def divided_columns(
    maps: Mapping[str, jax.Array], weights: Mapping[str, float], image: jax.Array
) -> jax.Array:
    """Return hypercolumns of features that are divided by their number of channels, `[n, d]`.

    Args:
      maps: features by layer, `[h, w, c]`.
      weights: further factors of the layers.
      image: not used.
    """
    shares = {layer: weights[layer] / act.shape[-1] for layer, act in maps.items()}
    columns = bounded_columns(maps, shares)
    return columns.reshape(-1, columns.shape[-1])


MOST_STYLE = 4096
"""Vectors of the style that are compared, evenly spaced: the cost grows with their number."""


class Neighbors(NamedTuple):
    """The vectors of a style."""

    columns: jax.Array
    """Divided by their lengths, `[m, d]`."""
    centered: jax.Array
    """Those less their mean, divided by their lengths, by which the nearest is found."""


def neighbors(columns: jax.Array) -> Neighbors:
    """Return hypercolumns `[m, d]` as the distance takes those of the style."""
    centered = columns - jnp.mean(columns, 0, keepdims=True)
    return Neighbors(*(spaced_rows(unit(x), MOST_STYLE) for x in (columns, centered)))


def neural_neighbor_distance(image: jax.Array, style: Neighbors) -> jax.Array:
    """Compute the mean of 1 - cosine of hypercolumns and their nearest ones in the style.

    Kolkin, Kucera, Paris, Sykora, Shechtman & Shakhnarovich, Neural Neighbor Style Transfer, 2022
    (arXiv:2203.13215): the nearest has the largest cosine after each side's mean is subtracted;
    it is chosen, not differentiated. It is chosen in every step, of the image itself, where the
    paper keeps a choice for 200 steps of a scale.
    """
    nearest, _ = most_similar(unit(image - jnp.mean(image, 0, keepdims=True)), style.centered)
    return jnp.mean(1 - jnp.sum(unit(image) * style.columns[nearest], -1))


# Activations of the paper's VGG-16 grow from layer to layer. Those of normalized networks do not,
# so that the few channels of their first layers would outweigh all others. With these weights the
# layers of `medium` have about the shares in a hypercolumn that those of the exact VGG-16 have, up
# to relu3_3, as measured on one painting; those of relu4 are a guess.
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
    blend=concatenated("neural-neighbor"),
    target=neighbors,
    is_joint=True,
)
