"""The style-transfer loss as a pure function of the image.

loss = content_weight · Σ_l w_l · mean((F_l − P_l)²)
     + style_weight · Σ_l w_l · mean((G_l − A_l)²)
     + tv_weight · TV(x)

after Gatys et al. (2016, eq. 7), with x the network's input, F_l the image's features
at layer l, P_l those of the content image, G_l and A_l the Gram matrices of the
image and of the style image. Each loss documents its normalization. A recipe may use sums
instead of means, other divisors of G, other statistics than G (`style_losses`) and other forms
of TV (`total_variation`).

With an image pyramid the style term is the weighted mean of its values at several resolutions, each
half the one before: x is averaged over cells of 2x2 pixels, and so is the style image (Snelgrove,
High-Resolution Multi-Scale Neural Texture Synthesis, 2017, equation 2, with equal weights). Each
resolution is weighted by its number of pixels. Large structures of a style are then compared within
the network's receptive field, whatever the size of the image.

Other content losses (`content_losses`) stand beside or in the place of the first term, each with
its own weight.

A content mask multiplies the squares of (F_l − P_l) position by position. With region masks the
style term is a sum over regions r, each with one style:

    style_weight · Σ_r a_r · b_r · Σ_l w_l · mean((G_l^r − A_l^r)²)

G^r is the Gram matrix of the region's positions, A^r that of the style's region, a_r the region's
share of the image, so that the gradient at a position is as large as without masks, and b_r
the style's blend weight divided by the mean of these (Gatys et al., Controlling Perceptual Factors
in Neural Style Transfer, 2017, section 4, leaves the factor to the user).
"""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxstyle.config.numbers import Numbers
from jaxstyle.config.recipe import Recipe
from jaxstyle.images import color_transfer
from jaxstyle.losses.base import StyleLoss
from jaxstyle.losses.content import content_loss
from jaxstyle.losses.content_losses import STRUCTURE_LOSSES, content_loss_weights
from jaxstyle.losses.resolve import resolve_recipe
from jaxstyle.losses.style_losses import STYLE_LOSSES
from jaxstyle.losses.total_variation import VARIATIONS
from jaxstyle.nn.geometry import map_size
from jaxstyle.nn.network import Network
from jaxstyle.nn.pooling import avg_pool
from jaxstyle.nn.preprocessing import preprocess
from jaxstyle.nn.sharding import SpatialSharding
from jaxstyle.nn.tiling import means

JOINT = "joint"
"""Stands in the place of a layer for style losses that take the layers together."""


class StyleTargets(NamedTuple):
    """Targets of the style loss at one resolution of the image pyramid."""

    style: dict[str, Any]
    """Statistics by layer, as in `Targets`."""
    regions: dict[str, jax.Array] | None = None
    """Region masks by layer, as in `Targets`."""


class Targets(NamedTuple):
    """Constants of the objective during a run; passed as an argument to compiled programs."""

    content: dict[str, jax.Array]
    """Features of the content image by layer, P_l `[h, w, c]`; empty without the content loss
    `features`."""
    style: dict[str, Any]
    """Statistics of the style images by layer: for the Gram loss A_l, `[c, c]`; with region masks
    a tuple of statistics, one for each region; one entry `JOINT` of a loss that takes the layers
    together."""
    content_weights: dict[str, jax.Array] | None = None
    """The content mask at each content layer, `[h, w, 1]`."""
    regions: dict[str, jax.Array] | None = None
    """The region masks at each style layer, `[h, w, r]`, each with a mean of 1."""
    region_weights: jax.Array | None = None
    """Factor a_r · b_r of each region's style loss, `[r]`."""
    coarse: tuple[StyleTargets, ...] = ()
    """Style targets of the image pyramid below the full resolution, each half the one before."""
    structure: dict[str, jax.Array] | None = None
    """What the other content losses compare, by name (`content_losses`)."""


class Terms(NamedTuple):
    """The weighted terms of one value of the objective, scalars; their sum is the loss."""

    content: ArrayLike
    """content_weight times the content loss."""
    style: ArrayLike
    """style_weight times the style loss."""
    tv: ArrayLike
    """tv_weight times the total variation."""


class LayerLosses(NamedTuple):
    """What each layer adds to the content and the style term, by layer, weighted as in the loss."""

    content: dict[str, ArrayLike]
    """Their sum is `Terms.content`, less what content losses of the whole image add."""
    style: dict[str, ArrayLike]
    """Their sum is `Terms.style`; empty for losses that compare all layers together."""


Objective = Callable[[jax.Array], tuple[jax.Array, Terms]]


def compared_image(image: jax.Array, recipe: Recipe) -> jax.Array:
    """Return an image as the network takes it: gray where only luminance is stylized."""
    return color_transfer.gray(image) if recipe.preserve_color == "luminance" else image


def gram_factor(
    normalization: str, gram: jax.Array, layer: str, shape: tuple[int, ...], pooling: str
) -> float:
    """Return the factor from `gram_matrix`, divided by the map's elements, to another divisor."""
    if normalization == "elements":
        return 1.0
    channels = gram.shape[-1]
    if normalization == "positions":
        return float(channels)
    height, width = map_size(layer, shape[0], shape[1], pooling=pooling)
    return channels * height * width / (shape[0] * shape[1])


def halve(x: jax.Array) -> jax.Array:
    """Return the image pyramid's next resolution: the mean of each 2x2 cell of `[h, w, c]`.

    An odd last row or column counts twice, so that sizes are rounded up.
    """
    return avg_pool(jnp.pad(x, ((0, x.shape[0] % 2), (0, x.shape[1] % 2), (0, 0)), mode="edge"))


MULTIPLE = 16
"""Sides of a mirrored image are multiples of this: four poolings then drop no row or column."""


def mirrored(x: ArrayLike, margin: int | None) -> Any:
    """Return an image or mask `[h, w, ...]` with its mirror image around it.

    Padding changes features near the edges of a map, and poolings drop an odd last row or column:
    both cause artifacts along the edges of the result. With a margin they fall outside the image.

    Args:
      x: of any size; a NumPy array stays one.
      margin: pixels on each side; below and to the right as many more as make whole multiples of
        `MULTIPLE`. 0 or None returns `x` as it is.
    """
    if not margin:
        return x
    sides = np.shape(x)[:2]
    pads = [(margin, margin + -(side + 2 * margin) % MULTIPLE) for side in sides]
    pads += [(0, 0)] * (np.ndim(x) - 2)
    return (np if isinstance(x, np.ndarray) else jnp).pad(x, pads, mode="symmetric")


class Maps(NamedTuple):
    """Targets and masks of the positions of one layer; None where there are none."""

    content: jax.Array | None
    """Content features, `[h, w, c]`."""
    content_weights: jax.Array | None
    """Content mask, `[h, w, 1]`."""
    regions: jax.Array | None
    """Region masks, `[h, w, r]`."""


class _Means(NamedTuple):
    """Content loss and style statistics of one layer."""

    content: jax.Array | None
    """Content loss of the layer, a scalar; None where it is no content layer."""
    style: tuple[Any, ...]
    """Style statistics for each region; of the whole layer if there are no regions."""
    features: jax.Array | None = None
    """The activations, for losses that take several layers together."""


def layer_statistics(
    style_loss: StyleLoss,
    style_layers: frozenset[str],
    layer: str,
    act: jax.Array,
    maps: Maps | None,
    *,
    joint_layers: frozenset[str] = frozenset(),
) -> _Means:
    """Compute the content loss and the style statistics of one layer.

    Args:
      style_loss: whose statistics are computed.
      style_layers: layers of the style loss.
      layer: name of this layer.
      act: its activations, `[h, w, c]`.
      maps: its targets and masks.
      joint_layers: layers whose activations are needed as they are.
    """
    target, weights, regions = maps or Maps(None, None, None)
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
    difference = None if target is None else content_loss(act, target, weights=weights)
    return _Means(difference, style, act if layer in joint_layers else None)


def content_layer_names(recipe: Recipe) -> tuple[str, ...]:
    """Return the content layers of a recipe, none if no content loss takes features."""
    losses = content_loss_weights(recipe.content_loss)
    if "features" not in losses and not any(STRUCTURE_LOSSES[l].needs_network for l in losses):
        return ()
    return recipe.content_names


def network_layers(recipe: Recipe) -> tuple[str, ...]:
    """Return the layers that the objective of a resolved recipe needs, none twice."""
    return tuple(dict.fromkeys((*content_layer_names(recipe), *recipe.style_names)))


def describe_structure(
    content_loss: str, features: Mapping[str, jax.Array], weights: Any, image: jax.Array
) -> dict[str, jax.Array]:
    """Compute what the content losses but `features` compare.

    Args:
      content_loss: of the recipe.
      features: of the content layers, `[h, w, c]` each.
      weights: of the content layers, by name.
      image: RGB `[h, w, 3]`.

    Returns:
      `{name: array}`; a loss of features is left out where there are no layers.
    """
    losses = (name for name in content_loss_weights(content_loss) if name != "features")
    return {
        name: STRUCTURE_LOSSES[name].describe(features, weights, image)
        for name in losses
        if features or not STRUCTURE_LOSSES[name].needs_network
    }


def _mean_over_pyramid(styles: list[jax.Array]) -> jax.Array:
    """Return the mean of the style losses of all resolutions, weighted by their pixels."""
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

    The function takes one RGB image `[h, w, 3]` of the content image's size in
    [0, 1] (values outside are allowed) and may be jitted, vmapped and differentiated.
    Bind inside the jitted function, so that weights and targets are its arguments; with `numbers`
    as one too, other weights of the terms do not recompile:

      >>> @jax.jit
      ... def value(network, targets, recipe, numbers, image):
      ...     return make_objective(network, targets, recipe, numbers=numbers)(image)

    Args:
      network: weights.
      targets: of the same network and recipe (`compute_targets`).
      recipe: its layers and weights, losses, pooling, margin and tiles are used.
      numbers: in the place of the recipe's, perhaps traced.
      rows: how the image's rows are sharded over devices; the function then takes
        `[rows.padded, w, 3]` and ignores the rows beyond the image.

    Raises:
      JaxstyleError: a layer that the network does not have, or all weights 0.
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
        # A mean counts the mirrored pixels as the style term does; without them edges would be
        # rougher than the inside. A sum is that of the image's own pixels.
        varied = padded if recipe.variation == "mean-squared" else x
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
            tv=numbers.tv_weight * variation(image, varied, height=height),
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
) -> dict[str, _Means]:
    """Compute the content loss and the style statistics of an image at every layer.

    Args:
      network: weights, as the recipe uses them.
      recipe: resolved.
      structure_layers: layers whose activations the content losses but `features` need.
      x: the network's input with its margin, `[h, w, 3]`.
      style: targets at this resolution; its region masks are used.
      content: targets of the content, which is compared at the full resolution only.
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
        layer: Maps(features.get(layer), masks.get(layer), regions.get(layer)) for layer in layers
    }
    layer_means: dict[str, _Means] = means(
        network, x, layers, statistic, maps,
        pooling=recipe.pooling, tile=recipe.tile, height=rows.height if rows else None,
        remat=recipe.remat,
    )  # fmt: skip
    return layer_means


def _content_term(
    recipe: Recipe,
    numbers: Numbers,
    targets: Targets,
    layer_means: dict[str, _Means],
    shape: tuple[int, ...],
    image: jax.Array,
) -> jax.Array:
    """Compute the content losses of a recipe, each times its weight.

    Args:
      recipe: resolved.
      numbers: weights of the layers.
      targets: features and structure of the content.
      layer_means: of the image, by layer.
      shape: of the network's input, without the padding of a sharding.
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
        mine = describe_structure(recipe.content_loss, maps, numbers.content_layers, image)
        for name, target in targets.structure.items():
            total += weights[name] * STRUCTURE_LOSSES[name].distance(mine[name], target)
    return total


def _style_term(
    recipe: Recipe,
    numbers: Numbers,
    region_weights: jax.Array | None,
    targets: dict[str, Any],
    layer_means: dict[str, _Means],
    shape: tuple[int, ...],
    image: jax.Array,
) -> jax.Array:
    """Compute the style loss at one resolution, summed over layers and regions.

    Args:
      recipe: resolved.
      numbers: weights of the layers.
      region_weights: factors of the regions, `[r]`.
      targets: statistics of the style at this resolution.
      layer_means: of the image, by layer.
      shape: of the network's input, without the padding of a sharding.
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
