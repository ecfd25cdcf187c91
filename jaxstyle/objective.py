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

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxstyle.errors import JaxstyleError
from jaxstyle.losses import content_loss
from jaxstyle.recipe import Recipe
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
) -> Targets:
    """Compute the content features and the style Gram matrices of a recipe.

    Args:
      network: weights.
      content: RGB `[h, w, 3]` in [0, 1], of the output's size.
      styles: one or more RGB pictures `[h', w', 3]` in [0, 1], each of any size.
      recipe: what shapes the objective is used, and the blend of the styles.

    Returns:
      `Targets`; A_l is the weighted mean over the styles.

    Raises:
      JaxstyleError: no style, blend weights that do not fit, a picture too small for a layer.
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
    content_layers = tuple(layer for layer, _ in recipe.content_layers)
    style_layers = tuple(layer for layer, _ in recipe.style_layers or ())
    found = [
        _style_statistics(
            network, style, style_layers, style_loss=recipe.style_loss,
            gram_normalization=recipe.gram_normalization, pooling=recipe.pooling, tile=recipe.tile,
        )
        for style in styles
    ]  # fmt: skip
    shares = [weight / sum(blend) for weight in blend]
    blended = {
        layer: STYLE_LOSSES[recipe.style_loss].blend([of[layer] for of in found], shares)
        for layer in style_layers
    }
    maps = _content_features(
        network, content, content_layers, pooling=recipe.pooling, tile=recipe.tile
    )
    return Targets(content=maps, style=blended)


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
    *,
    style_loss: str,
    gram_normalization: str,
    pooling: str,
    tile: int,
) -> dict[str, Any]:
    x = preprocess(network.convention, image)
    statistic = partial(_statistic, STYLE_LOSSES[style_loss], frozenset(layers))
    found = means(network, x, layers, statistic, {}, pooling=pooling, tile=tile)
    return {
        layer: jax.tree.map(
            lambda leaf, layer=layer: (
                leaf * _gram_factor(gram_normalization, leaf, layer, image.shape, pooling)
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

    def objective(image: jax.Array) -> tuple[jax.Array, Terms]:
        x = preprocess(network.convention, image)
        found = means(
            network, x, layers, statistic, targets.content, pooling=recipe.pooling, tile=recipe.tile
        )

        def of_content(layer: str) -> jax.Array:
            sums = recipe.content_reduction == "sum"
            return found[layer].content * (targets.content[layer].size if sums else 1)

        def of_style(layer: str) -> jax.Array:
            statistics, target = found[layer].style, targets.style[layer]
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
