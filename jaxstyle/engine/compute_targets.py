"""The targets of the objective, computed once per run: content features and style statistics."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxstyle.config.content_terms import split_content_losses
from jaxstyle.config.layers import stride
from jaxstyle.config.recipe import Recipe
from jaxstyle.config.validation import WHOLE
from jaxstyle.engine.sizes import pyramid_levels
from jaxstyle.errors import JaxstyleError
from jaxstyle.images import color_transfer
from jaxstyle.losses.masks import Masks, downsample_mask, halve_mask, resize_mask
from jaxstyle.losses.objective import compared_image
from jaxstyle.losses.pyramid import halve, mirrored
from jaxstyle.losses.resolve import resolve_recipe
from jaxstyle.losses.statistics import (
    LayerTargets,
    content_layer_names,
    describe_structure,
    gram_factor,
    layer_statistics,
)
from jaxstyle.losses.style_losses import STYLE_LOSSES
from jaxstyle.losses.targets import JOINT, StyleTargets, Targets
from jaxstyle.nn.network import Network
from jaxstyle.nn.preprocessing import preprocess
from jaxstyle.nn.sharding import SpatialSharding
from jaxstyle.nn.tiling import feature_maps, mean_statistics


def compute_targets(
    network: Network,
    content: jax.Array,
    styles: Sequence[jax.Array],
    recipe: Recipe,
    *,
    masks: Masks | None = None,
    rows: SpatialSharding | None = None,
    pyramid: int | None = None,
) -> Targets:
    """Compute the content features and the style statistics of a recipe.

    Args:
      network: weights.
      content: RGB `[h, w, 3]` in [0, 1], of the output's size.
      styles: one or more RGB images `[h', w', 3]` in [0, 1], each of any size.
      recipe: settings of the objective, and the blend and colors of the styles.
      masks: concrete arrays, resized to their images; required if the recipe names files of masks.
      rows: sharding of the content's rows over devices, applied to the rows of styles too.
      pyramid: number of resolutions at which the style is compared; `pyramid_levels` if not given.

    Returns:
      `Targets`; A_l is the weighted mean over the styles or, with region masks, one per style.

    Raises:
      JaxstyleError: there is no style; blend weights or masks do not fit; a mask vanishes at a
        layer; an image is too small for a layer.
    """
    recipe = resolve_recipe(recipe, network)
    network = recipe.configure_network(network)
    blend = _blend(recipe, len(styles))
    masks = _checked(masks or Masks(), recipe, len(styles))
    content_layers = content_layer_names(recipe)
    style_layers = recipe.style_names
    content_weights = _content_weights(masks, content.shape, content_layers, recipe, rows)
    if pyramid is None:
        pyramid = pyramid_levels(recipe, [content.shape, *(style.shape for style in styles)])
    if rows:
        _check_rows(recipe, pyramid)
    matched = [color_transfer.MATCHES[recipe.preserve_color](style, content) for style in styles]
    if recipe.turn_style:
        matched = [jnp.rot90(style, turns) for style in matched for turns in range(4)]
        blend = [weight for weight in blend for _ in range(4)]
    levels = [
        _style_level(
            network, content.shape, matched, style_layers, recipe, blend, masks, level, rows
        )
        for level in range(pyramid)
    ]
    region_weights = _region_weights(masks, content.shape, blend) if masks.regions else None
    shown = compared_image(content, recipe)
    maps = _content_features(
        network, rows.place(shown) if rows else shown, content_layers,
        pooling=recipe.pooling, tile=recipe.tile, height=rows and rows.height,
        margin=recipe.margin,
    )  # fmt: skip
    structure = _structure(recipe.content_loss, maps, dict(recipe.content_layers), shown)
    if "features" not in split_content_losses(recipe.content_loss):
        maps = {}
    finest, *coarse = levels
    return Targets(
        maps, finest.style, content_weights, finest.regions,
        region_weights, tuple(coarse), structure or None,
    )  # fmt: skip


def _blend(recipe: Recipe, styles: int) -> Sequence[float]:
    """Return the weight of each style image, 1 unless the recipe has blend weights."""
    if not styles:
        raise JaxstyleError("styles: no style image was given; give at least one")
    blend = recipe.style_blend or (1.0,) * styles
    if len(blend) != styles:
        raise JaxstyleError(
            f"style_blend: {len(blend)} weights ({', '.join(f'{b:g}' for b in blend)}) for "
            f"{styles} style images; give one per style"
        )
    return blend


def _check_rows(recipe: Recipe, pyramid: int) -> None:
    """Raise a `JaxstyleError` for settings that an image sharded by rows does not support."""
    for name, value, off, unit in (
        ("pyramid", pyramid, 1, "resolutions"),
        ("margin", recipe.margin or 0, 0, "pixels"),
    ):
        if value > off:
            raise JaxstyleError(
                f"{name}: {value} {unit} do not work where devices share the rows of one image; "
                f"use --{name} {off}, or one device"
            )


def _content_weights(
    masks: Masks,
    shape: tuple[int, ...],
    layers: Sequence[str],
    recipe: Recipe,
    rows: SpatialSharding | None,
) -> dict[str, jax.Array] | None:
    """Return the content mask at each content layer, `[h, w, 1]`; None without a mask."""
    if masks.content is None:
        return None
    height, width = shape[:2]
    mask = mirrored(
        resize_mask(masks.content, height, width, argument="content_mask"), recipe.margin
    )
    weights = downsample_mask(mask, layers, pooling=recipe.pooling, argument="content_mask")
    return _on_devices(weights, rows)


def _style_level(
    network: Network,
    shape: tuple[int, ...],
    styles: Sequence[jax.Array],
    layers: tuple[str, ...],
    recipe: Recipe,
    blend: Sequence[float],
    masks: Masks,
    level: int,
    rows: SpatialSharding | None,
) -> StyleTargets:
    """Compute the style targets at one resolution of the image pyramid.

    Args:
      network: weights, configured by the recipe.
      shape: shape of the content image.
      styles: the style images, with the content's colors if the recipe preserves them.
      layers: style layers.
      recipe: resolved settings.
      blend: a weight for each style.
      masks: checked masks.
      level: number of times that the images are halved.
      rows: as in `compute_targets`.
    """
    of_styles = []
    for number, style in enumerate(styles):
        if STYLE_LOSSES[recipe.style_loss].is_joint and layers:
            statistics = _joint_statistics(
                network, style, dict(recipe.style_layers or ()), style_loss=recipe.style_loss,
                pooling=recipe.pooling, level=level, margin=recipe.margin,
            )  # fmt: skip
            of_styles.append({JOINT: statistics})
            continue
        of_style = rows.with_height(style.shape[0]) if rows else None
        region = _on_devices(_style_region(masks, number, style.shape, recipe, level), of_style)
        of_styles.append(
            _style_statistics(
                network, of_style.place(style) if of_style else style, layers, region,
                style_loss=recipe.style_loss, gram_normalization=recipe.gram_normalization,
                pooling=recipe.pooling, tile=recipe.tile, height=of_style and of_style.height,
                level=level, margin=recipe.margin,
            )
        )  # fmt: skip
    loss = STYLE_LOSSES[recipe.style_loss]
    if masks.regions:
        regions = _on_devices(_regions(masks, shape, layers, recipe, level), rows)
        targets = {layer: tuple(loss.target(of[layer]) for of in of_styles) for layer in layers}
        return StyleTargets(targets, regions)
    shares = [weight / sum(blend) for weight in blend]
    return StyleTargets(
        {
            layer: loss.target(loss.blend([of[layer] for of in of_styles], shares))
            for layer in of_styles[0]
        }
    )


def _on_devices(
    weights: dict[str, np.ndarray], rows: SpatialSharding | None
) -> dict[str, jax.Array]:
    """Return weights of positions `[h, w, n]` on the devices, 0 in the padding."""
    return {
        layer: rows.place_map(values, stride(layer)) if rows else jnp.asarray(values)
        for layer, values in weights.items()
    }


def _checked(masks: Masks, recipe: Recipe, styles: int) -> Masks:
    """Return the masks; raise a `JaxstyleError` unless they fit the recipe."""
    for name, present in (("content_mask", masks.content is not None), ("mask", masks.regions)):
        if getattr(recipe, name) and not present:
            raise JaxstyleError(
                f"{name}: {getattr(recipe, name)!r} names a file; load it and give it in `masks`"
            )
    if masks.regions and len(masks.regions) != styles:
        raise JaxstyleError(
            f"mask: {len(masks.regions)} pairs of masks for {styles} style images; give one pair "
            f"a style, {WHOLE!r} for the whole image"
        )
    if masks.regions and not STYLE_LOSSES[recipe.style_loss].is_mean_over_positions:
        raise JaxstyleError(
            f"mask: regions do not work with style_loss {recipe.style_loss!r}, which is no mean "
            "over positions; choose another style loss"
        )
    return masks


def _regions(
    masks: Masks, shape: tuple[int, ...], layers: tuple[str, ...], recipe: Recipe, level: int
) -> dict[str, np.ndarray]:
    """Return the regions' masks at the layers, `[h, w, r]`, each with a mean of 1."""
    of_regions = []
    for number, mask in enumerate(_region_masks(masks, shape), start=1):
        of_regions.append(_at_layers(mask, layers, recipe, level, f"mask: region {number}"))
    return {layer: np.concatenate([of[layer] for of in of_regions], -1) for layer in layers}


def _region_weights(masks: Masks, shape: tuple[int, ...], blend: Sequence[float]) -> jax.Array:
    """Return the factors of the regions' style losses, `[r]`."""
    shares = [mask.mean() for mask in _region_masks(masks, shape)]
    return jnp.asarray(np.array(shares) * blend * len(blend) / sum(blend), jnp.float32)


def _region_masks(masks: Masks, shape: tuple[int, ...]) -> list[np.ndarray]:
    """Return the regions of the output as masks of its size."""
    height, width = shape[:2]
    return [
        np.ones((height, width), np.float32)
        if region is None
        else resize_mask(region, height, width, argument=f"mask: region {number}")
        for number, (region, _) in enumerate(masks.regions, start=1)
    ]


def _style_region(
    masks: Masks, number: int, shape: tuple[int, ...], recipe: Recipe, level: int
) -> dict[str, np.ndarray]:
    """Return the weights of a style's positions at the layers; empty for the whole image."""
    region = masks.regions[number][1] if masks.regions else None
    if region is None:
        return {}
    argument = f"mask: style region {number + 1}"
    mask = resize_mask(region, *shape[:2], argument=argument)
    return _at_layers(mask, recipe.style_names, recipe, level, argument)


def _at_layers(
    mask: np.ndarray, layers: Sequence[str], recipe: Recipe, level: int, argument: str
) -> dict[str, np.ndarray]:
    """Return a mask, halved `level` times, at each layer, scaled to a mean of 1."""
    mask = mirrored(halve_mask(mask, level), recipe.margin)
    weights = downsample_mask(mask, layers, pooling=recipe.pooling, argument=argument)
    return {layer: values / values.mean() for layer, values in weights.items()}


@partial(jax.jit, static_argnames=("layers", "pooling", "tile", "height", "margin"))
def _content_features(
    network: Network,
    image: jax.Array,
    layers: tuple[str, ...],
    *,
    pooling: str,
    tile: int,
    height: int | None,
    margin: int | None,
) -> dict[str, jax.Array]:
    """Compute the features of the content image, with its margin, by layer."""
    x = mirrored(preprocess(network.convention, image), margin)
    return feature_maps(network, x, layers, pooling=pooling, tile=tile, height=height)


@partial(jax.jit, static_argnames=("style_loss", "pooling", "level", "margin"))
def _joint_statistics(
    network: Network,
    image: jax.Array,
    weights: dict[str, jax.Array],
    *,
    style_loss: str,
    pooling: str,
    level: int,
    margin: int | None,
) -> Any:
    """Compute the statistics of a style image by a loss that takes the layers together."""
    for _ in range(level):
        image = halve(image)
    x = mirrored(preprocess(network.convention, image), margin)
    maps = feature_maps(network, x, tuple(weights), pooling=pooling)
    return STYLE_LOSSES[style_loss].statistics(maps, weights, image)


@partial(
    jax.jit,
    static_argnames=(
        "layers",
        "style_loss",
        "gram_normalization",
        "pooling",
        "tile",
        "height",
        "level",
        "margin",
    ),
)
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
    height: int | None,
    level: int,
    margin: int | None,
) -> dict[str, Any]:
    """Compute the statistics of a style image, or of a region of it, by layer."""
    x = preprocess(network.convention, image)
    for _ in range(level):
        x = halve(x)
    x = mirrored(x, margin)
    statistic = partial(layer_statistics, STYLE_LOSSES[style_loss], frozenset(layers))
    maps = {layer: LayerTargets(regions=weights) for layer, weights in region.items()}
    averages = mean_statistics(
        network, x, layers, statistic, maps, pooling=pooling, tile=tile, height=height
    )
    shape = (height or x.shape[0], *x.shape[1:])
    return {
        layer: jax.tree.map(
            lambda leaf, layer=layer: (
                leaf * gram_factor(gram_normalization, leaf, layer, shape, pooling)
            ),
            # A style has one region.
            of_layer.style[0],
        )
        for layer, of_layer in averages.items()
    }


_structure = jax.jit(describe_structure, static_argnames=("content_loss",))


def lower_style_statistics(
    network: Network, size: tuple[int, int], recipe: Recipe
) -> jax.stages.Lowered:
    """Return the lowered program of the statistics of one style image.

    Args:
      network: weights; arrays or `jax.ShapeDtypeStruct`s.
      size: height and width of the style image in the run.
      recipe: resolved settings.
    """
    network = recipe.configure_network(network)
    image = jax.ShapeDtypeStruct((*size, 3), jnp.float32)
    if STYLE_LOSSES[recipe.style_loss].is_joint:
        return _joint_statistics.lower(
            network, image, dict(recipe.style_layers or ()), style_loss=recipe.style_loss,
            pooling=recipe.pooling, level=0, margin=recipe.margin,
        )  # fmt: skip
    return _style_statistics.lower(
        network,
        image,
        recipe.style_names,
        {},
        style_loss=recipe.style_loss, gram_normalization=recipe.gram_normalization,
        pooling=recipe.pooling, tile=recipe.tile, height=None, level=0, margin=recipe.margin,
    )  # fmt: skip
