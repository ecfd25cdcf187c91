"""Sizes of a run's images, and the types that are accepted as images."""

import dataclasses
import math
import os
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from PIL import Image

from jaxstyle import images
from jaxstyle.config.defaults import DEFAULT_MARGIN, MAX_SCALES, PYRAMID_SIDE
from jaxstyle.config.layers import stride
from jaxstyle.config.recipe import Recipe
from jaxstyle.errors import JaxstyleError
from jaxstyle.losses.resolve import resolve_recipe
from jaxstyle.nn.geometry import receptive_margin
from jaxstyle.nn.network import Network

MIN_PYRAMID_SIDE = 48
"""Least shorter side, in pixels, of the coarsest resolution of the image pyramid."""
ImageLike = ArrayLike | Image.Image | os.PathLike[str] | str
"""Images: arrays `[h, w, 3]` of uint8 or of floats in [0, 1], Pillow images, or file names."""
OVERSHOOT = 0.25
"""Tolerance beyond [0, 1]: filters and codecs exceed the range by less, images of another range by
more."""


def as_image(image: ImageLike, argument: str) -> np.ndarray:
    """Return an image as float32 `[h, w, 3]` in [0, 1].

    Args:
      image: file name, Pillow image or array.
      argument: name of the image in error messages; a `"start"` may have any finite values.

    Raises:
      JaxstyleError: not an image, or of another range or layout; the message says how to convert
        it.
    """
    if isinstance(image, str | os.PathLike):
        return images.load_image(image, argument=argument)
    if isinstance(image, Image.Image):
        return images.from_pil(image, argument=argument)
    try:
        array = np.asarray(image)
    except ValueError:
        # Rows of different lengths.
        raise JaxstyleError(f"{argument}: the lists are no array; give RGB [h, w, 3]") from None
    if array.ndim != 3 or array.shape[-1] != 3 or 0 in array.shape:
        raise JaxstyleError(
            f"{argument}: an array of shape {array.shape} is not an image; give RGB [h, w, 3]"
            + _layout_advice(array.shape)
        )
    if array.dtype == np.uint8:
        return array.astype(np.float32) / 255
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise JaxstyleError(
            f"{argument}: an array of type {array.dtype} is not an image, as its range is "
            "unknown; give uint8, or floats in [0, 1]"
        )
    if not np.isfinite(array).all():
        raise JaxstyleError(f"{argument}: the image has values that are not finite; replace them")
    if argument == "start":
        return array.astype(np.float32)
    low, high = float(array.min()), float(array.max())
    if low < -OVERSHOOT or high > 1 + OVERSHOOT:
        if low >= 0:
            advice = "values of 0 to 255 divided by 255" if high > 2.1 else f"divide by {high:.3g}"
        elif -1 - OVERSHOOT < low and high < 1 + OVERSHOOT:
            advice = "bring [-1, 1] there by x / 2 + 0.5"
        else:
            advice = "undo a normalization by x * std + mean"
        raise JaxstyleError(
            f"{argument}: the image has values from {low:.4g} to {high:.4g}; give RGB in [0, 1]: "
            f"{advice}"
        )
    return np.clip(array, 0, 1).astype(np.float32)


def _layout_advice(shape: tuple[int, ...]) -> str:
    """Return how to convert an array of another common layout to `[h, w, 3]`."""
    if len(shape) == 4 and shape[0] == 1:
        return ", x[0] of a batch of one"
    if len(shape) == 3 and shape[0] == 3:
        return ", x.transpose(1, 2, 0) of one with channels first"
    if len(shape) == 3 and shape[-1] == 4:
        return ", x[..., :3] of one with alpha"
    return ", np.stack([x] * 3, -1) of a gray one" if len(shape) == 2 else ""


def not_enlarged_notice(shape: tuple[int, ...], size: int | None, recipe: Recipe) -> str | None:
    """Return the notice for a content image smaller than the requested size.

    Args:
      shape: shape of the content image, height first.
      size: requested longest side in pixels; None for the default.
      recipe: settings; `upscale` is used.
    """
    height, width = shape[:2]
    if not size or recipe.upscale or max(height, width) >= size:
        return None
    return (
        f"--size {size} is above the content image's {max(height, width)} and not reached: the "
        f"output is {width}x{height}; --upscale enlarges it"
    )


def output_size(height: int, width: int, recipe: Recipe, *, level: int = 0) -> tuple[int, int]:
    """Return the height and width of the output at one scale.

    Args:
      height: height of the content image in pixels.
      width: width of the content image in pixels.
      recipe: settings; `size`, `upscale`, `scales` and `scale_ratio` are used.
      level: number of larger scales; each divides the sides by `scale_ratio`.

    Raises:
      JaxstyleError: a side would be shorter than `images.MIN_SIDE`.
    """
    if recipe.size:
        height, width = images.fitted(height, width, recipe.size, upscale=recipe.upscale)
    small = tuple(max(1, round(side / recipe.scale_ratio**level)) for side in (height, width))
    if level and min(small) < images.MIN_SIDE:
        raise JaxstyleError(
            f"scales: {recipe.scales} make the first image {small[1]}x{small[0]}, and both sides "
            f"need {images.MIN_SIDE} pixels; use fewer"
        )
    return small[0], small[1]


def resolve_scales(
    recipe: Recipe,
    shape: tuple[int, ...],
    styles: Sequence[tuple[int, ...]],
    *,
    rows: bool = False,
) -> Recipe:
    """Return the recipe with its scales, pyramid resolutions and margin filled in.

    Args:
      recipe: settings whose `scales`, `pyramid` and `margin` may be None.
      shape: shape of the content image before resizing, height first.
      styles: shapes of the style images before resizing.
      rows: whether devices share the rows of one image; the defaults are then one scale, one
        resolution and no margin.
    """
    if rows and recipe.scales is None:
        recipe = dataclasses.replace(recipe, scales=1)
    scales = number_of_scales(recipe, shape)
    pyramid = recipe.pyramid
    if pyramid is None and recipe.scales != 1:
        sizes = [style_size(style[0], style[1], recipe) for style in styles]
        pyramid = pyramid_levels(recipe, [output_size(shape[0], shape[1], recipe), *sizes])
    return dataclasses.replace(
        recipe, scales=scales, pyramid=pyramid or 1, margin=margin_of(recipe)
    )


def margin_of(recipe: Recipe) -> int:
    """Return the margin in pixels, by default none with one scale."""
    if recipe.margin is not None:
        return recipe.margin
    return 0 if recipe.scales == 1 else DEFAULT_MARGIN


def number_of_scales(recipe: Recipe, shape: tuple[int, ...]) -> int:
    """Return the number of scales, by default from the size of the output.

    Args:
      recipe: settings.
      shape: shape of the content image before resizing, height first.
    """
    if recipe.scales is not None:
        return recipe.scales
    longest = max(output_size(shape[0], shape[1], recipe))
    ratio = math.log(longest / recipe.scale_side) / math.log(recipe.scale_ratio)
    return 1 + min(MAX_SCALES - 1, max(0, math.floor(ratio + 1e-9)))


def pyramid_levels(recipe: Recipe, shapes: Sequence[tuple[int, ...]], *, level: int = 0) -> int:
    """Return the number of resolutions at which the style of a run is compared.

    Args:
      recipe: settings; if `pyramid` is None, the number is 1 with one scale, else chosen by the
        sizes.
      shapes: shapes of the resized content and style images, height first.
      level: number of larger scales; each reduces `pyramid` by the logarithm of `scale_ratio`.
    """
    if recipe.pyramid is not None:
        return max(1, recipe.pyramid - round(level * math.log2(recipe.scale_ratio)))
    if recipe.scales == 1:
        return 1
    longest = min(max(height, width) for height, width, *_ in shapes)
    shortest = min(min(height, width) for height, width, *_ in shapes)
    halvings = min(math.log2(longest / PYRAMID_SIDE), math.log2(shortest / MIN_PYRAMID_SIDE))
    return 1 + max(0, math.floor(halvings))


def as_images(styles: ImageLike | Sequence[ImageLike]) -> list[np.ndarray]:
    """Return one or several style images as a list of arrays (`as_image`)."""
    single = isinstance(styles, str | os.PathLike | Image.Image) or getattr(styles, "ndim", 4) < 4
    several: Sequence[Any] = [styles] if single else styles  # type: ignore[assignment]
    if not len(several):
        raise JaxstyleError("style: no image was given; give at least one")
    return [as_image(style, "style") for style in several]


def style_images(
    styles: ImageLike | Sequence[ImageLike], recipe: Recipe, *, level: int = 0
) -> list[jax.Array]:
    """Return one or several style images as a list, resized to their `style_size`."""
    loaded = as_images(styles)
    sizes = [style_size(p.shape[0], p.shape[1], recipe, level=level) for p in loaded]
    return [jnp.asarray(images.resize(p, *s)) for p, s in zip(loaded, sizes, strict=True)]


def style_size(height: int, width: int, recipe: Recipe, *, level: int = 0) -> tuple[int, int]:
    """Return the height and width of a style image at one scale of a run.

    Its longest side is that of the image, at most `recipe.size`, times `recipe.style_scale`; at
    smaller scales it is reduced like the output (`output_size`).

    Args:
      height: height of the style image in pixels.
      width: width of the style image in pixels.
      recipe: settings.
      level: number of larger scales.

    Raises:
      JaxstyleError: a side would be shorter than `images.MIN_SIDE`.
    """
    longest = max(height, width)
    if recipe.size:
        longest = min(longest, recipe.size)
    resized = max(1, round(longest * recipe.style_scale / recipe.scale_ratio**level))
    try:
        return images.fitted(height, width, resized, upscale=True)
    except JaxstyleError as error:
        if recipe.style_scale == 1 and not level:
            raise JaxstyleError(f"style: {error}") from None
        name, value = ("scales", recipe.scales) if level else ("style_scale", recipe.style_scale)
        raise JaxstyleError(
            f"{name}: {value:g} leaves too little of a style image of {width}x{height}, "
            f"{resized} pixels on its longer side (both need {images.MIN_SIDE}); give a larger one"
        ) from error


def small_style_notice(
    sizes: Sequence[tuple[int, int]], recipe: Recipe, network: Network, *, shortest: int
) -> str | None:
    """Return the notice for a style image smaller than a receptive field of its layers.

    None if there is no such image, or the output is as small.

    Args:
      sizes: height and width of the style images before resizing.
      recipe: settings, resolved or not.
      network: weights.
      shortest: shorter side of the output in pixels.
    """
    recipe = resolve_recipe(recipe, network)
    layers = [layer for layer, weight in recipe.style_layers or () if weight]
    for number, size in enumerate(sizes, start=1):
        height, width = style_size(*size, recipe)
        small = [l for l in layers if min(height, width) < min(_field(network, l), shortest)]
        if small:
            worst = max(small, key=lambda l: _field(network, l))
            return (
                f"style {number} is {width}x{height} pixels in this run, and a position of {worst} "
                f"sees {_field(network, worst)}: most of its style there is of the image's edge; "
                "use a larger image, a larger --style-scale or shallower layers"
            )
    return None


def _field(network: Network, layer: str) -> int:
    """Return the side of a layer's receptive field in pixels."""
    return 2 * receptive_margin(network.topology, [layer]) + stride(layer)
