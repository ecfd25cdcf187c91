"""The objective: what a picture is asked to be, as a pure function of it.

loss = content_weight · Σ_l w_l · mean((F_l − P_l)²)
     + style_weight · Σ_l w_l · mean((G_l − A_l)²)
     + tv_weight · TV(x)

after Gatys et al. (2016, eq. 7), with x the network's input, F_l the picture's features
at layer l, P_l those of the content picture, G_l and A_l the Gram matrices of the
picture and of the style picture. `losses` gives each normalisation. A recipe may ask for sums
in the place of means, other divisors of G, other statistics than G (`styles`) and other forms
of TV (`variation`).
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxstyle.errors import JaxstyleError
from jaxstyle.losses import content_loss
from jaxstyle.recipe import Recipe
from jaxstyle.sharding import Rows
from jaxstyle.styles import STYLE_LOSSES, StyleLoss
from jaxstyle.tiles import feature_maps, means
from jaxstyle.variation import VARIATIONS
from jaxstyle.vgg import Network, map_size, preprocess


class Targets(NamedTuple):
    """What the objective compares with: fixed during a run, passed as an argument."""

    content: dict[str, jax.Array]
    """P_l `[h, w, c]` by layer."""
    style: dict[str, Any]
    """By layer the statistics of `styles`: for the Gram loss A_l, `[c, c]`."""


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
    style_blend: Sequence[float] | None = None,
    rows: Rows | None = None,
) -> Targets:
    """Compute the content features and the style Gram matrices of a recipe.

    Args:
      network: weights.
      content: RGB `[h, w, 3]` in [0, 1], of the output's size.
      styles: one or more RGB pictures `[h', w', 3]` in [0, 1], each of any size.
      recipe: its layers and pooling are used.
      style_blend: one weight a style, at least 0, divided by their sum; equal if not given.
      rows: how the content's rows are shared out over devices; the styles' are likewise.

    Returns:
      `Targets`; A_l is the weighted mean over the styles.

    Raises:
      JaxstyleError: no style, blend weights that do not fit, a picture too small for a layer.
    """
    recipe = recipe.resolved(network)
    network = recipe.seen_by(network)
    if not styles:
        raise JaxstyleError("styles: no style picture was given; give at least one")
    if style_blend is None:
        style_blend = [1.0] * len(styles)
    fits = len(style_blend) == len(styles) and all(blend >= 0 for blend in style_blend)
    if not (fits and 0 < sum(style_blend) < float("inf")):
        raise JaxstyleError(
            f"style_blend: {list(style_blend)} does not fit {len(styles)} style pictures; give one "
            "weight a style, none negative, not all 0"
        )
    content_layers = tuple(layer for layer, _ in recipe.content_layers)
    style_layers = tuple(layer for layer, _ in recipe.style_layers or ())
    total = sum(style_blend)
    found = [
        _style_statistics(
            network, rows.of(style.shape[0]).place(style) if rows else style, style_layers,
            style_loss=recipe.style_loss, gram_normalization=recipe.gram_normalization,
            pooling=recipe.pooling, tile=recipe.tile, height=style.shape[0] if rows else None,
        )
        for style in styles
    ]  # fmt: skip
    shares = [blend / total for blend in style_blend]
    blended = {
        layer: STYLE_LOSSES[recipe.style_loss].blend([of[layer] for of in found], shares)
        for layer in style_layers
    }
    maps = _content_features(
        network, rows.place(content) if rows else content, content_layers,
        pooling=recipe.pooling, tile=recipe.tile, height=rows.height if rows else None,
    )  # fmt: skip
    return Targets(content=maps, style=blended)


@partial(jax.jit, static_argnames=("layers", "pooling", "tile", "height"))
def _content_features(
    network: Network,
    image: jax.Array,
    layers: tuple[str, ...],
    *,
    pooling: str,
    tile: int,
    height: int | None,
) -> dict[str, jax.Array]:
    x = preprocess(network.convention, image)
    return feature_maps(network, x, layers, pooling=pooling, tile=tile, height=height)


@partial(
    jax.jit,
    static_argnames=("layers", "style_loss", "gram_normalization", "pooling", "tile", "height"),
)
def _style_statistics(
    network: Network,
    image: jax.Array,
    layers: tuple[str, ...],
    *,
    style_loss: str,
    gram_normalization: str,
    pooling: str,
    tile: int,
    height: int | None,
) -> dict[str, Any]:
    x = preprocess(network.convention, image)
    statistic = partial(_statistic, STYLE_LOSSES[style_loss], frozenset(layers))
    found = means(network, x, layers, statistic, {}, pooling=pooling, tile=tile, height=height)
    shape = (height or image.shape[0], *image.shape[1:])
    return {
        layer: jax.tree.map(
            lambda leaf, layer=layer: (
                leaf * _gram_factor(gram_normalization, leaf, layer, shape, pooling)
            ),
            of_layer.style,
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


class _Means(NamedTuple):
    """What the objective asks of a layer; means over its positions, if the style loss's are."""

    content: jax.Array | None
    style: Any


def _statistic(
    style_loss: StyleLoss,
    style_layers: frozenset[str],
    layer: str,
    act: jax.Array,
    target: jax.Array | None,
) -> _Means:
    return _Means(
        content=None if target is None else content_loss(act, target),
        style=style_loss.statistics(act) if layer in style_layers else None,
    )


def make_objective(
    network: Network, targets: Targets, recipe: Recipe, *, rows: Rows | None = None
) -> Objective:
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
      rows: how the picture's rows are shared out over devices; the function then takes
        `[rows.padded, w, 3]`, of which the rows beyond the picture count for nothing.
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

    def objective(image: jax.Array) -> tuple[jax.Array, Terms]:
        height = image.shape[0] if rows is None else rows.height
        shape = (height, *image.shape[1:])
        x = preprocess(network.convention, image)
        found = means(
            network, x, layers, statistic, targets.content,
            pooling=recipe.pooling, tile=recipe.tile, height=rows.height if rows else None,
        )  # fmt: skip

        def of_content(layer: str) -> jax.Array:
            sums = recipe.content_reduction == "sum"
            channels = targets.content[layer].shape[-1]
            size = math.prod(map_size(layer, *shape[:2], pooling=recipe.pooling)) * channels
            return found[layer].content * (size if sums else 1)

        def of_style(layer: str) -> jax.Array:
            statistics, target = found[layer].style, targets.style[layer]
            if recipe.style_loss != "gram":
                return style_loss.distance(statistics, target)
            statistics = statistics * _gram_factor(
                recipe.gram_normalization, statistics, layer, shape, recipe.pooling
            )
            sums = recipe.style_reduction == "sum"
            return style_loss.distance(statistics, target) * (target.size if sums else 1)

        zero = jnp.zeros((), jnp.float32)
        terms = Terms(
            content=alpha * sum((w * of_content(l) for l, w in recipe.content_layers), zero),
            style=beta * sum((w * of_style(l) for l, w in style_weights), zero),
            tv=tv_weight * variation(image, x, height=height),
        )
        return jnp.asarray(terms.content + terms.style + terms.tv), terms

    return objective
