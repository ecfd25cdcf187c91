"""The objective: what a picture is asked to be, as a pure function of it.

loss = content_weight · Σ_l w_l · mean((F_l − P_l)²)
     + style_weight · Σ_l w_l · mean((G_l − A_l)²)
     + tv_weight · TV(x)

after Gatys et al. (2016, eq. 7), with x the network's input, F_l the picture's features
at layer l, P_l those of the content picture, G_l and A_l the Gram matrices of the
picture and of the style picture. `losses` gives each normalisation. A recipe may ask for sums
in the place of means, other divisors of G, other statistics than G (`styles`) and other forms
of TV (`variation`).

A content mask multiplies the squares of (F_l − P_l) position by position. With region masks the
style term is a sum over regions r, each with one style:

    style_weight · Σ_r a_r · b_r · Σ_l w_l · mean((G_l^r − A_l^r)²)

G^r is the Gram matrix of the region's positions, A^r that of the style's region, a_r the region's
share of the picture, so that a position is pulled as strongly as it would be without masks, and b_r
the style's blend weight over the mean of these (Gatys et al., Controlling Perceptual Factors in
Neural Style Transfer, 2017, section 4, leaves the factor to the user).
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxstyle import colours
from jaxstyle.errors import JaxstyleError
from jaxstyle.losses import content_loss
from jaxstyle.masks import Masks, at_layers, fitted, normalised
from jaxstyle.recipe import WHOLE, Recipe
from jaxstyle.styles import STYLE_LOSSES, StyleLoss
from jaxstyle.tiles import feature_maps, means
from jaxstyle.variation import VARIATIONS
from jaxstyle.vgg import Network, map_size, preprocess


class Targets(NamedTuple):
    """What the objective compares with: fixed during a run, passed as an argument."""

    content: dict[str, jax.Array]
    """P_l `[h, w, c]` by layer."""
    style: dict[str, Any]
    """By layer the statistics of `styles`: for the Gram loss A_l, `[c, c]`; with region masks a
    tuple of them, one a region."""
    content_weights: dict[str, jax.Array] | None = None
    """The content mask at each content layer, `[h, w, 1]`."""
    regions: dict[str, jax.Array] | None = None
    """The region masks at each style layer, `[h, w, r]`, each with a mean of 1."""
    region_weights: jax.Array | None = None
    """What each region's terms are multiplied with, `[r]`."""


class Terms(NamedTuple):
    """The weighted parts of one objective value; their sum is the loss."""

    content: ArrayLike
    style: ArrayLike
    tv: ArrayLike


Objective = Callable[[jax.Array], tuple[jax.Array, Terms]]


def compute_targets(
    network: Network,
    content: jax.Array,
    styles: Sequence[jax.Array],
    recipe: Recipe,
    *,
    masks: Masks | None = None,
) -> Targets:
    """Compute the content features and the style Gram matrices of a recipe.

    Args:
      network: weights.
      content: RGB `[h, w, 3]` in [0, 1], of the output's size.
      styles: one or more RGB pictures `[h', w', 3]` in [0, 1], each of any size.
      recipe: what shapes the objective is used, and the styles' blend and colours.
      masks: concrete arrays, resized to their pictures; needed where the recipe names files.

    Returns:
      `Targets`; A_l is the weighted mean over the styles, or, with region masks, one a style.

    Raises:
      JaxstyleError: no style, blend weights or masks that do not fit, a mask that leaves nothing at
        a layer, a picture too small for a layer.
    """
    recipe = recipe.resolved(network)
    network = recipe.seen_by(network)
    if not styles:
        raise JaxstyleError("styles: no style picture was given; give at least one")
    blend = recipe.style_blend or (1.0,) * len(styles)
    if len(blend) != len(styles):
        raise JaxstyleError(
            f"style_blend: {len(blend)} weights ({', '.join(f'{b:g}' for b in blend)}) for "
            f"{len(styles)} style pictures; give one a style"
        )
    masks = _checked(masks or Masks(), recipe, len(styles))
    content_layers = tuple(layer for layer, _ in recipe.content_layers)
    style_layers = tuple(layer for layer, _ in recipe.style_layers or ())
    content_weights = regions = region_weights = None
    if masks.content is not None:
        mask = fitted(masks.content, *content.shape[:2], argument="content_mask")
        content_weights = jax.tree.map(
            jnp.asarray,
            at_layers(mask, content_layers, pooling=recipe.pooling, argument="content_mask"),
        )
    if masks.regions:
        regions, region_weights = _regions(masks, content, style_layers, recipe, blend)
    match = colours.MATCHES[recipe.preserve_color]
    found = [
        _style_statistics(
            network, match(style, content), style_layers, _style_region(masks, k, style, recipe),
            style_loss=recipe.style_loss, gram_normalization=recipe.gram_normalization,
            pooling=recipe.pooling, tile=recipe.tile,
        )
        for k, style in enumerate(styles)
    ]  # fmt: skip
    shares = [weight / sum(blend) for weight in blend]
    if regions is not None:
        style = {layer: tuple(of[layer] for of in found) for layer in style_layers}
    else:
        mix = STYLE_LOSSES[recipe.style_loss].blend
        style = {layer: mix([of[layer] for of in found], shares) for layer in style_layers}
    maps = _content_features(
        network, _seen(content, recipe), content_layers, pooling=recipe.pooling, tile=recipe.tile
    )
    return Targets(maps, style, content_weights, regions, region_weights)


def _seen(picture: jax.Array, recipe: Recipe) -> jax.Array:
    """Give what the network is shown of a picture."""
    return colours.grey(picture) if recipe.preserve_color == "luminance" else picture


def _checked(masks: Masks, recipe: Recipe, styles: int) -> Masks:
    for name, given in (("content_mask", masks.content is not None), ("mask", masks.regions)):
        if getattr(recipe, name) and not given:
            raise JaxstyleError(
                f"{name}: {getattr(recipe, name)!r} names a file; load it and give it in `masks`"
            )
    if masks.regions and len(masks.regions) != styles:
        raise JaxstyleError(
            f"mask: {len(masks.regions)} pairs of masks for {styles} style pictures; give one pair "
            f"a style, {WHOLE!r} for the whole picture"
        )
    if masks.regions and not STYLE_LOSSES[recipe.style_loss].of_means:
        raise JaxstyleError(
            f"mask: regions do not work with style_loss {recipe.style_loss!r}, which is no mean "
            "over positions; choose another style loss"
        )
    return masks


def _regions(
    masks: Masks,
    content: jax.Array,
    layers: tuple[str, ...],
    recipe: Recipe,
    blend: Sequence[float],
) -> tuple[dict[str, jax.Array], jax.Array]:
    """Give the regions' masks at the layers, and the weights of their terms."""
    height, width = content.shape[:2]
    found, shares = [], []
    for number, (region, _) in enumerate(masks.regions, start=1):
        mask = np.ones((height, width), np.float32)
        if region is not None:
            mask = fitted(region, height, width, argument=f"mask: region {number}")
        levels = at_layers(mask, layers, pooling=recipe.pooling, argument=f"mask: region {number}")
        found.append(normalised(levels))
        shares.append(mask.mean())
    weights = np.array(shares) * blend * len(blend) / sum(blend)
    regions = {
        layer: jnp.concatenate([jnp.asarray(of[layer]) for of in found], -1) for layer in layers
    }
    return regions, jnp.asarray(weights, jnp.float32)


def _style_region(
    masks: Masks, number: int, style: jax.Array, recipe: Recipe
) -> dict[str, np.ndarray]:
    """Give the weights of a style's positions at the layers; none for the whole picture."""
    region = masks.regions[number][1] if masks.regions else None
    if region is None:
        return {}
    argument = f"mask: style region {number + 1}"
    layers = [layer for layer, _ in recipe.style_layers or ()]
    mask = fitted(region, *style.shape[:2], argument=argument)
    return normalised(at_layers(mask, layers, pooling=recipe.pooling, argument=argument))


@partial(jax.jit, static_argnames=("layers", "pooling", "tile"))
def _content_features(
    network: Network, image: jax.Array, layers: tuple[str, ...], *, pooling: str, tile: int
) -> dict[str, jax.Array]:
    x = preprocess(network.convention, image)
    return feature_maps(network, x, layers, pooling=pooling, tile=tile)


@partial(jax.jit, static_argnames=("layers", "style_loss", "gram_normalization", "pooling", "tile"))
def _style_statistics(
    network: Network,
    image: jax.Array,
    layers: tuple[str, ...],
    region: dict[str, jax.Array],
    *,
    style_loss: str,
    gram_normalization: str,
    pooling: str,
    tile: int,
) -> dict[str, Any]:
    x = preprocess(network.convention, image)
    statistic = partial(_statistic, STYLE_LOSSES[style_loss], frozenset(layers))
    maps = {layer: _Maps(None, None, weights) for layer, weights in region.items()}
    found = means(network, x, layers, statistic, maps, pooling=pooling, tile=tile)
    return {
        layer: jax.tree.map(
            lambda leaf, layer=layer: (
                leaf * _gram_factor(gram_normalization, leaf, layer, image.shape, pooling)
            ),
            # A style has one region.
            of_layer.style[0],
        )
        for layer, of_layer in found.items()
    }


def _gram_factor(
    normalization: str, gram: jax.Array, layer: str, shape: tuple[int, ...], pooling: str
) -> float:
    """Lead from `gram_matrix`, divided by the elements of the map, to another divisor."""
    if normalization == "elements":
        return 1.0
    channels = gram.shape[-1]
    if normalization == "positions":
        return float(channels)
    height, width = map_size(layer, shape[0], shape[1], pooling=pooling)
    return channels * height * width / (shape[0] * shape[1])


class _Maps(NamedTuple):
    """What belongs to the positions of a layer."""

    content: jax.Array | None
    content_weights: jax.Array | None
    regions: jax.Array | None


class _Means(NamedTuple):
    """What the objective asks of a layer; means over its positions, if the style loss's are."""

    content: jax.Array | None
    style: tuple[Any, ...]
    """One a region; one if there are none."""


def _statistic(
    style_loss: StyleLoss,
    style_layers: frozenset[str],
    layer: str,
    act: jax.Array,
    maps: _Maps | None,
) -> _Means:
    target, weights, regions = maps or _Maps(None, None, None)
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
    return _Means(None if target is None else content_loss(act, target, weights=weights), style)


def make_objective(network: Network, targets: Targets, recipe: Recipe) -> Objective:
    """Bind weights, targets and recipe; return the pure function `image -> (loss, Terms)`.

    The function takes one RGB picture `[h, w, 3]` of the content picture's size in
    [0, 1] (values outside are allowed) and may be jitted, vmapped and differentiated.
    Bind inside the jitted function, so that weights and targets are its arguments:

      >>> @jax.jit
      ... def value(network, targets, recipe, image):
      ...     return make_objective(network, targets, recipe)(image)

    Args:
      network: weights.
      targets: of the same network and recipe (`compute_targets`).
      recipe: what shapes the objective is used: layers and weights, losses, pooling, tiles.
    """
    recipe = recipe.resolved(network)
    network = recipe.seen_by(network)
    style_loss = STYLE_LOSSES[recipe.style_loss]
    alpha, beta, tv_weight = recipe.content_weight, recipe.style_weight, recipe.tv_weight
    style_weights = recipe.style_layers
    assert alpha is not None and beta is not None and tv_weight is not None, "resolved above"
    assert style_weights is not None, "resolved above"
    layers = tuple(dict.fromkeys((*targets.content, *targets.style)))
    statistic = partial(_statistic, style_loss, frozenset(targets.style))
    variation = VARIATIONS[recipe.variation]
    maps = {
        layer: _Maps(
            targets.content.get(layer),
            (targets.content_weights or {}).get(layer),
            (targets.regions or {}).get(layer),
        )
        for layer in layers
    }

    def objective(image: jax.Array) -> tuple[jax.Array, Terms]:
        image = _seen(image, recipe)
        x = preprocess(network.convention, image)
        found = means(network, x, layers, statistic, maps, pooling=recipe.pooling, tile=recipe.tile)

        def of_content(layer: str) -> jax.Array:
            sums = recipe.content_reduction == "sum"
            return found[layer].content * (targets.content[layer].size if sums else 1)

        def of_style(layer: str) -> jax.Array:
            if targets.region_weights is None:
                return of_region(layer, found[layer].style[0], targets.style[layer])
            several = zip(found[layer].style, targets.style[layer], strict=True)
            regions = jnp.stack([of_region(layer, *pair) for pair in several])
            return jnp.sum(targets.region_weights * regions)

        def of_region(layer: str, statistics: Any, target: Any) -> jax.Array:
            if recipe.style_loss != "gram":
                return style_loss.distance(statistics, target)
            statistics = statistics * _gram_factor(
                recipe.gram_normalization, statistics, layer, image.shape, recipe.pooling
            )
            sums = recipe.style_reduction == "sum"
            return style_loss.distance(statistics, target) * (target.size if sums else 1)

        zero = jnp.zeros((), jnp.float32)
        terms = Terms(
            content=alpha * sum((w * of_content(l) for l, w in recipe.content_layers), zero),
            style=beta * sum((w * of_style(l) for l, w in style_weights), zero),
            tv=tv_weight * variation(image, x),
        )
        return jnp.asarray(terms.content + terms.style + terms.tv), terms

    return objective
