"""What the objective computes from the activations of each layer."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax

from jaxstyle.config.recipe import Recipe
from jaxstyle.losses.base import StyleLoss
from jaxstyle.losses.content import DESCRIPTOR_LOSSES, content_loss, content_loss_weights
from jaxstyle.nn.geometry import map_size


def gram_factor(
    normalization: str, gram: jax.Array, layer: str, shape: tuple[int, ...], pooling: str
) -> float:
    """Return the factor that converts a `gram_matrix` to another normalization.

    Args:
      normalization: as in `Recipe.gram_normalization`.
      gram: Gram matrix `[c, c]`, divided by the elements of the map.
      layer: name of the layer.
      shape: shape of the network's input, height first.
      pooling: as in `Recipe.pooling`.
    """
    if normalization == "elements":
        return 1.0
    channels = gram.shape[-1]
    if normalization == "positions":
        return float(channels)
    height, width = map_size(layer, shape[0], shape[1], pooling=pooling)
    return channels * height * width / (shape[0] * shape[1])


class LayerTargets(NamedTuple):
    """Targets and masks at the positions of one layer; None if there are none."""

    content: jax.Array | None = None
    """Content features, `[h, w, c]`."""
    content_weights: jax.Array | None = None
    """Content mask, `[h, w, 1]`."""
    regions: jax.Array | None = None
    """Region masks, `[h, w, r]`."""


class LayerStatistics(NamedTuple):
    """Content loss and style statistics of one layer."""

    content: jax.Array | None
    """Content loss of the layer, a scalar; None if it is not a content layer."""
    style: tuple[Any, ...]
    """Style statistics of each region, or of the whole map without regions."""
    features: jax.Array | None = None
    """Activations `[h, w, c]`, for losses that take the layers together."""


def layer_statistics(
    style_loss: StyleLoss,
    style_layers: frozenset[str],
    layer: str,
    act: jax.Array,
    targets: LayerTargets | None,
    *,
    joint_layers: frozenset[str] = frozenset(),
) -> LayerStatistics:
    """Compute the content loss and the style statistics of one layer.

    Args:
      style_loss: the style loss.
      style_layers: layers of the style loss.
      layer: name of this layer.
      act: activations of this layer, `[h, w, c]`.
      targets: targets and masks of this layer; None if there are none.
      joint_layers: layers whose activations are returned, for losses that take layers together.
    """
    content, weights, regions = targets or LayerTargets()
    style: tuple[Any, ...] = ()
    if layer in style_layers:
        style = (
            (style_loss.statistics(act),)
            if regions is None
            else tuple(
                style_loss.statistics(act, weights=regions[..., r : r + 1])
                for r in range(regions.shape[-1])
            )
        )
    difference = None if content is None else content_loss(act, content, weights=weights)
    return LayerStatistics(difference, style, act if layer in joint_layers else None)


def content_layer_names(recipe: Recipe) -> tuple[str, ...]:
    """Return the content layers of a recipe; none if no content loss depends on features."""
    losses = content_loss_weights(recipe.content_loss)
    if "features" not in losses and not any(DESCRIPTOR_LOSSES[l].needs_network for l in losses):
        return ()
    return recipe.content_names


def network_layers(recipe: Recipe) -> tuple[str, ...]:
    """Return the layers that the objective of a resolved recipe needs, without duplicates."""
    return tuple(dict.fromkeys((*content_layer_names(recipe), *recipe.style_names)))


def describe_structure(
    content_loss: str, features: Mapping[str, jax.Array], weights: Any, image: jax.Array
) -> dict[str, jax.Array]:
    """Compute the descriptors of the content losses other than `features`.

    Args:
      content_loss: as in `Recipe.content_loss`.
      features: features of the content layers, `{layer: [h, w, c]}`.
      weights: weights of the content layers, by layer.
      image: RGB `[h, w, 3]`.

    Returns:
      `{loss: descriptor}`; without layers, losses that need features are left out.
    """
    losses = (name for name in content_loss_weights(content_loss) if name != "features")
    return {
        name: DESCRIPTOR_LOSSES[name].describe(features, weights, image)
        for name in losses
        if features or not DESCRIPTOR_LOSSES[name].needs_network
    }
