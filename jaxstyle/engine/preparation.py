"""Building a `Problem`, with its targets and initial images, from images and a recipe."""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxstyle import images
from jaxstyle.config.recipe import Recipe
from jaxstyle.engine.compute_targets import compute_targets
from jaxstyle.engine.initial_images import start_image
from jaxstyle.engine.problem import Problem, shard_batch, shard_rows
from jaxstyle.engine.sizes import (
    ImageLike,
    as_image,
    as_images,
    output_size,
    pyramid_levels,
    resolve_scales,
    style_images,
)
from jaxstyle.errors import JaxstyleError
from jaxstyle.losses.balance import balance_recipe
from jaxstyle.losses.masks import Masks
from jaxstyle.losses.resolve import resolve_recipe
from jaxstyle.losses.targets import Targets
from jaxstyle.nn.network import Network
from jaxstyle.nn.sharding import Devices, SpatialSharding, put_on_devices, sharing_devices


def prepare(
    content: ImageLike,
    styles: ImageLike | Sequence[ImageLike],
    *,
    recipe: Recipe,
    network: Network,
    start: ArrayLike | str | None = None,
    elements: Sequence[ArrayLike | str] | None = None,
    masks: Masks | None = None,
    targets: Targets | Sequence[Targets] | None = None,
    devices: Devices = None,
) -> Problem:
    """Build a problem: resize the images, compute the targets and make the initial images.

    Args:
      content: RGB `[h, w, 3]` in [0, 1]; resized to `recipe.size` (0: not resized).
      styles: one such image or several, each of any size, resized to `style_size`.
      recipe: settings; resolved here.
      network: weights.
      start: initial image, resized to the output, or a name (`initial_image`);
        `recipe.init` if not given.
      elements: initial images or names for a batch, instead of `start`; batch element i has seed
        `recipe.seed + i`.
      masks: see `compute_targets`.
      targets: targets of an earlier problem to share, one per scale (`Problem.scales`). It must
        have the same images, layers and sizes and, with losses that take layers together, the same
        weights of the layers. On one device only.
      devices: number of `jax.devices()` to use, `"all"`, or a list of devices. The batch is
        sharded over them or, without a batch, the rows of the image.

    Returns:
      `Problem`, the argument of `iterates`.

    Raises:
      JaxstyleError: an argument is not valid or does not fit the others; the message names it.
    """
    unresolved, recipe = recipe, resolve_recipe(recipe, network)
    if elements is not None:
        _check_elements(elements, recipe)
    devices = sharing_devices(devices, 1 if elements is None else len(elements))
    if len(devices) == 1 and devices[0] != jax.local_devices()[0]:
        # JAX computes on the device of the weights.
        network = jax.device_put(network, devices[0])
    content = as_image(content, "content")
    loaded = as_images(styles)
    by_rows = elements is None and len(devices) > 1
    shapes = [style.shape for style in loaded]
    recipe = resolve_scales(recipe, content.shape, shapes, rows=by_rows)
    assert recipe.scales is not None, "resolved above"
    if by_rows and recipe.scales > 1:
        raise JaxstyleError(
            f"devices: {len(devices)} do not share the rows of one image through several scales "
            f"(scales {recipe.scales}); use one device, one scale, or a batch"
        )
    levels = zip(
        reversed(range(recipe.scales)), _targets_by_scale(targets, recipe.scales), strict=True
    )
    *coarse_levels, problem = [
        _at_scale(
            content, loaded, level, recipe=recipe, network=network, masks=masks,
            targets=level_targets,
            starts=[recipe.init if start is None else start] if elements is None else elements,
            batched=elements is not None, row_devices=devices if by_rows else (),
        )
        for level, level_targets in levels
    ]  # fmt: skip
    weight = _style_weight(unresolved, problem, content)
    *coarse_levels, problem = (
        level._replace(recipe=dataclasses.replace(level.recipe, style_weight=weight))
        for level in (*coarse_levels, problem)
    )
    problem = problem._replace(coarse_levels=tuple(coarse_levels))
    return problem if elements is None else shard_batch(problem, devices)


def _targets_by_scale(
    targets: Targets | Sequence[Targets] | None, scales: int
) -> Sequence[Targets | None]:
    """Return the given targets of each scale, None for those to be computed."""
    if targets is None:
        return [None] * scales
    by_scale = [targets] if isinstance(targets, Targets) else targets
    if len(by_scale) != scales:
        raise JaxstyleError(
            f"targets: {len(by_scale)} are given for {scales} scales; give one per scale"
        )
    return by_scale


def _style_weight(unresolved: Recipe, problem: Problem, content: np.ndarray) -> float | None:
    """Return the style weight, by default from the images at the largest scale."""
    image = jnp.asarray(images.resize(content, *problem.size))
    layout = problem.layout if isinstance(problem.layout, SpatialSharding) else None
    balanced = balance_recipe(
        unresolved, problem.recipe, problem.network, problem.targets,
        layout.place(image) if layout else image, rows=layout,
    )  # fmt: skip
    return balanced.style_weight


def _check_elements(elements: Sequence[ArrayLike | str], recipe: Recipe) -> None:
    """Raise a `JaxstyleError` if there is no batch element, or too few seeds are left."""
    if not elements:
        raise JaxstyleError("elements: no initial image was given; give at least one")
    if recipe.seed + len(elements) > 2**31:
        raise JaxstyleError(
            f"seed: {recipe.seed} leaves too few seeds for {len(elements)} images; "
            f"give at most {2**31 - len(elements)}"
        )


def _at_scale(
    content: np.ndarray,
    styles: Sequence[np.ndarray],
    level: int,
    *,
    recipe: Recipe,
    network: Network,
    masks: Masks | None,
    targets: Targets | None,
    starts: Sequence[ArrayLike | str],
    batched: bool,
    row_devices: Sequence[jax.Device],
) -> Problem:
    """Build the problem of one scale.

    Args:
      content: content image before resizing.
      styles: one or more style images before resizing.
      level: number of larger scales.
      recipe: resolved settings.
      network: weights.
      masks: as in `prepare`.
      targets: targets of this scale, if already computed.
      starts: initial images or their names, one per batch element.
      batched: whether the problem has a batch axis.
      row_devices: devices that share the rows of the image, if any.
    """
    height, width = content.shape[:2]
    assert recipe.content_weight is not None, "resolved"
    weight = recipe.content_weight * recipe.scale_content**level
    recipe = dataclasses.replace(recipe, content_weight=weight)
    content = images.resize(content, *output_size(height, width, recipe, level=level))
    resized = style_images(styles, recipe, level=level)
    rows = shard_rows(row_devices, content.shape[0], recipe) if row_devices else None
    if rows:
        network = put_on_devices(network, rows.replicated)
    if targets is None:
        targets = compute_targets(
            network, jnp.asarray(content), resized, recipe, masks=masks, rows=rows,
            pyramid=pyramid_levels(recipe, [], level=level),
        )  # fmt: skip
    initial = [
        start_image(start, content, resized[0], seed=seed, recipe=recipe, network=network)
        for seed, start in enumerate(starts, start=recipe.seed)
    ]
    image = jnp.stack(initial) if batched else initial[0]
    chroma = jnp.asarray(content) if recipe.preserve_color == "luminance" else None
    if rows:
        image, chroma = rows.place(image), None if chroma is None else rows.place(chroma)
    # Noise has no detail worth adding.
    detailed = [
        recipe.scale_detail
        and not recipe.noise_blend
        and not (isinstance(start, str) and start == "noise")
        for start in starts
    ]
    return Problem(
        network, targets, recipe, image, chroma=chroma, detailed=tuple(detailed), layout=rows
    )
