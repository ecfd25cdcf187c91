"""The style-transfer loss as a pure function of the image.

loss = content_weight · Σ_l w_l · mean((F_l − P_l)²)
     + style_weight · Σ_l w_l · d_l
     + tv_weight · TV(x)

after Gatys et al. (2016, eq. 7), with x the network's input, F_l the image's features at layer l,
P_l those of the content image, and d_l a style loss (`style_losses`): the Wasserstein distance of
the features' normal distributions, or, as in the paper, mean((G_l − A_l)²) with the Gram matrices
G_l of the image and A_l of the style image. Each loss documents its normalization. A recipe may use
sums instead of means, other divisors of G and other forms of TV (`total_variation`).

With an image pyramid the style term is the weighted mean of its values at several resolutions, each
half of the previous one: x and the style image are averaged over cells of 2x2 pixels (Snelgrove,
High-Resolution Multi-Scale Neural Texture Synthesis, 2017, equation 2, with equal weights). Each
resolution is weighted by its number of pixels. The network's receptive field then covers large
structures of a style at any image size.

Other content losses (`content`) are added to the first term or replace it, each with its own
weight.

A content mask multiplies the squares of (F_l − P_l) position by position. With region masks the
style term is a sum over regions r, each with one style:

    style_weight · Σ_r a_r · b_r · Σ_l w_l · d_l^r

d^r compares the positions of the region with those of the style's region. a_r is the
region's fraction of the image, with which the gradient at a position is as large as without masks,
and b_r the style's blend weight divided by the mean blend weight. Gatys et al., Controlling
Perceptual Factors in Neural Style Transfer, 2017, section 4, leave the factor to the user.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxstyle.config.numbers import Numbers
from jaxstyle.config.recipe import Recipe
from jaxstyle.images import color_transfer
from jaxstyle.losses.content import DESCRIPTOR_LOSSES, content_loss_weights
from jaxstyle.losses.pyramid import halve, mirrored
from jaxstyle.losses.resolve import resolve_recipe
from jaxstyle.losses.statistics import (
    LayerStatistics,
    LayerTargets,
    content_layer_names,
    describe_structure,
    gram_factor,
    layer_statistics,
)
from jaxstyle.losses.style_losses import STYLE_LOSSES
from jaxstyle.losses.targets import JOINT, StyleTargets, Targets
from jaxstyle.losses.total_variation import VARIATIONS
from jaxstyle.nn.geometry import map_size
from jaxstyle.nn.network import Network
from jaxstyle.nn.preprocessing import preprocess
from jaxstyle.nn.sharding import SpatialSharding
from jaxstyle.nn.tiling import mean_statistics


class Terms(NamedTuple):
    """The weighted terms of the objective at an image, scalars; their sum is the loss."""

    content: ArrayLike
    """content_weight times the content loss."""
    style: ArrayLike
    """style_weight times the style loss."""
    tv: ArrayLike
    """tv_weight times the total variation."""


class LayerLosses(NamedTuple):
    """The weighted parts of the content and style terms, scalars by layer."""

    content: dict[str, ArrayLike]
    """Parts of `Terms.content`; content losses that do not compare layers are left out."""
    style: dict[str, ArrayLike]
    """Parts of `Terms.style`; empty for losses that take the layers together."""


Objective = Callable[[jax.Array], tuple[jax.Array, Terms]]


def compared_image(image: jax.Array, recipe: Recipe) -> jax.Array:
    """Return the image that the network sees: gray if only the luminance is stylized."""
    return color_transfer.gray(image) if recipe.preserve_color == "luminance" else image


def _mean_over_pyramid(styles: list[jax.Array]) -> jax.Array:
    """Return the mean of the style losses of all resolutions, weighted by their areas."""
    weights = np.array([4.0**-level for level in range(len(styles))])
    return jnp.vdot(jnp.asarray(weights / weights.sum(), styles[0].dtype), jnp.stack(styles))


def make_objective(
    network: Network,
    targets: Targets,
    recipe: Recipe,
    *,
    numbers: Numbers | None = None,
    rows: SpatialSharding | None = None,
) -> Objective:
    """Build the style-transfer loss as a pure function `image -> (loss, Terms)`.

    The function takes one RGB image `[h, w, 3]` of the content image's size, in [0, 1]
    (values outside are allowed), and may be jitted, vmapped and differentiated. Build it inside
    the jitted function, so that weights and targets are arguments. If `numbers` is an argument
    too, other weights of the terms do not recompile:

      >>> @jax.jit
      ... def value(network, targets, recipe, numbers, image):
      ...     return make_objective(network, targets, recipe, numbers=numbers)(image)

    Args:
      network: weights.
      targets: targets for the same network and recipe (`compute_targets`).
      recipe: settings; its layers, weights, losses, pooling, margin and tiles are used.
      numbers: numbers that replace those of the recipe; may be traced.
      rows: sharding of the image's rows over devices; the function then takes
        `[rows.padded, w, 3]` and ignores the rows beyond the image.

    Raises:
      JaxstyleError: the network lacks a layer, or all weights are 0.
    """
    recipe = resolve_recipe(recipe, network)
    network = recipe.configure_network(network)
    numbers = numbers or Numbers.of(recipe)
    structure_layers = content_layer_names(recipe) if targets.structure else ()
    finest = StyleTargets(targets.style, targets.regions)
    compared = partial(_compare_layers, network, recipe, structure_layers, rows=rows)
    style_term = partial(_style_term, recipe, numbers, targets.region_weights)
    variation = VARIATIONS[recipe.variation]

    def objective(image: jax.Array) -> tuple[jax.Array, Terms]:
        image = compared_image(image, recipe)
        x = preprocess(network.convention, image)
        padded = mirrored(x, recipe.margin)
        # A mean includes the mirrored pixels, as the style term does; without them edges would be
        # rougher than the interior. A sum is over the image's own pixels.
        varied = {"mean-squared": padded, "nine-point": image}.get(recipe.variation, x)
        height = rows.height if rows else None
        shape = (height or padded.shape[0], *padded.shape[1:])
        layer_means = compared(padded, finest, content=targets)
        content = _content_term(recipe, numbers, targets, layer_means, shape, image)
        styles = [style_term(finest.style, layer_means, shape, image)]
        coarse, small = x, image
        for level in targets.coarse:
            coarse, small = halve(coarse), halve(small)
            padded = mirrored(coarse, recipe.margin)
            layer_means = compared(padded, level)
            styles.append(style_term(level.style, layer_means, padded.shape, small))
        terms = Terms(
            content=numbers.content_weight * content,
            style=numbers.style_weight * _mean_over_pyramid(styles),
            tv=numbers.tv_weight * variation(varied, height=height),
        )
        return jnp.asarray(terms.content + terms.style + terms.tv), terms

    return objective


def _compare_layers(
    network: Network,
    recipe: Recipe,
    structure_layers: tuple[str, ...],
    x: jax.Array,
    style: StyleTargets,
    *,
    content: Targets | None = None,
    rows: SpatialSharding | None = None,
) -> dict[str, LayerStatistics]:
    """Compute the content loss and the style statistics of an image at every layer.

    Args:
      network: weights, configured by the recipe.
      recipe: resolved settings.
      structure_layers: layers whose activations content losses other than `features` need.
      x: the network's input with its margin, `[h, w, 3]`.
      style: style targets at this resolution, for their region masks.
      content: targets of the content, at the full resolution; None at lower ones.
      rows: as in `make_objective`.
    """
    style_loss = STYLE_LOSSES[recipe.style_loss]
    style_layers = recipe.style_names
    joint, separate = (style_layers, ()) if style_loss.is_joint else ((), style_layers)
    features = content.content if content else {}
    masks = (content.content_weights if content else None) or {}
    regions = style.regions or {}
    structure = structure_layers if content else ()
    layers = tuple(dict.fromkeys((*features, *structure, *style_layers)))
    statistic = partial(
        layer_statistics, style_loss, frozenset(separate),
        joint_layers=frozenset((*structure, *joint)),
    )  # fmt: skip
    maps = {
        layer: LayerTargets(features.get(layer), masks.get(layer), regions.get(layer))
        for layer in layers
    }
    layer_means: dict[str, LayerStatistics] = mean_statistics(
        network, x, layers, statistic, maps,
        pooling=recipe.pooling, tile=recipe.tile, height=rows.height if rows else None,
        remat=recipe.remat,
    )  # fmt: skip
    return layer_means


def _content_term(
    recipe: Recipe,
    numbers: Numbers,
    targets: Targets,
    layer_means: dict[str, LayerStatistics],
    shape: tuple[int, ...],
    image: jax.Array,
) -> jax.Array:
    """Compute the weighted sum of a recipe's content losses.

    Args:
      recipe: resolved settings.
      numbers: weights of the layers.
      targets: content features, and targets of the other content losses.
      layer_means: statistics of the image by layer.
      shape: shape of the network's input, without the padding of a sharding.
      image: RGB `[h, w, 3]`.
    """

    def of_layer(layer: str) -> Any:
        difference: Any = layer_means[layer].content
        if recipe.content_reduction == "mean":
            return difference
        positions = math.prod(map_size(layer, *shape[:2], pooling=recipe.pooling))
        return difference * (positions * targets.content[layer].shape[-1])

    weights = content_loss_weights(recipe.content_loss)
    parts: Any = (numbers.content_layers[layer] * of_layer(layer) for layer in targets.content)
    total = weights.get("features", 0.0) * sum(parts, jnp.zeros((), jnp.float32))
    if targets.structure:
        maps: Any = {layer: layer_means[layer].features for layer in content_layer_names(recipe)}
        described = describe_structure(recipe.content_loss, maps, numbers.content_layers, image)
        for name, target in targets.structure.items():
            total += weights[name] * DESCRIPTOR_LOSSES[name].distance(described[name], target)
    return total


def _style_term(
    recipe: Recipe,
    numbers: Numbers,
    region_weights: jax.Array | None,
    targets: dict[str, Any],
    layer_means: dict[str, LayerStatistics],
    shape: tuple[int, ...],
    image: jax.Array,
) -> jax.Array:
    """Compute the style loss at one resolution, summed over layers and regions.

    Args:
      recipe: resolved settings.
      numbers: weights of the layers.
      region_weights: factors of the regions, `[r]`.
      targets: statistics of the style at this resolution.
      layer_means: statistics of the image by layer.
      shape: shape of the network's input, without the padding of a sharding.
      image: RGB `[h, w, 3]`, at this resolution.
    """
    style_loss = STYLE_LOSSES[recipe.style_loss]
    weights = {layer: numbers.style_layers[layer] for layer in recipe.style_names}
    if style_loss.is_joint and weights:
        maps: Any = {layer: layer_means[layer].features for layer in weights}
        return style_loss.distance(style_loss.statistics(maps, weights, image), targets[JOINT])

    def of_region(layer: str, statistics: Any, target: Any) -> jax.Array:
        if recipe.style_loss != "gram":
            return style_loss.distance(statistics, target)
        statistics = statistics * gram_factor(
            recipe.gram_normalization, statistics, layer, shape, recipe.pooling
        )
        size = target.size if recipe.style_reduction == "sum" else 1
        return style_loss.distance(statistics, target) * size

    def of_layer(layer: str) -> jax.Array:
        if region_weights is None:
            return of_region(layer, layer_means[layer].style[0], targets[layer])
        several = zip(layer_means[layer].style, targets[layer], strict=True)
        return jnp.sum(region_weights * jnp.stack([of_region(layer, *pair) for pair in several]))

    parts: Any = (weight * of_layer(layer) for layer, weight in weights.items())
    return sum(parts, jnp.zeros((), jnp.float32))
