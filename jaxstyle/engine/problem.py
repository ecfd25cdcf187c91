"""Building a `Problem`, with targets and initial images, from images and a recipe."""

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxstyle import images
from jaxstyle.config.choices import INITS
from jaxstyle.config.layers import smallest_side
from jaxstyle.config.numbers import Numbers, static_part
from jaxstyle.config.recipe import Recipe
from jaxstyle.engine.sizes import (
    ImageLike,
    as_image,
    as_images,
    output_size,
    pyramid_levels,
    resolve_scales,
    style_images,
)
from jaxstyle.engine.targets import compute_targets
from jaxstyle.errors import JaxstyleError
from jaxstyle.images import color_transfer
from jaxstyle.losses.balance import balance_recipe
from jaxstyle.losses.masks import Masks
from jaxstyle.losses.objective import Targets
from jaxstyle.losses.resolve import resolve_recipe
from jaxstyle.nn.network import Network
from jaxstyle.nn.preprocessing import Preprocessing
from jaxstyle.nn.sharding import (
    BatchSharding,
    Devices,
    Layout,
    SpatialSharding,
    put_on_devices,
    sharing_devices,
)


class Problem(NamedTuple):
    """One optimization problem: network, targets, settings and initial images."""

    network: Network
    """Weights."""
    targets: Targets
    """Targets of the objective."""
    recipe: Recipe
    """Settings, resolved for the network."""
    start: jax.Array
    """Initial image `[h, w, 3]`, or a batch of them `[k, h, w, 3]`."""
    elements: tuple[Recipe, ...] | None = None
    """The recipe of each batch element if they differ in numbers (`stack`); `recipe` is the
    first."""
    own_targets: bool = False
    """Whether `targets` have a batch axis; if not, batch elements share them."""
    chroma: jax.Array | None = None
    """The image whose chroma the result takes, `[h, w, 3]`; with `own_targets` one for each batch
    element."""
    coarse_levels: tuple["Problem", ...] = ()
    """The problems of the smaller scales, smallest first; the run starts from the `start` of the
    first."""
    detailed: tuple[bool, ...] = ()
    """For each initial image, whether larger scales add its high frequencies (`scale_detail`)."""
    layout: Layout | None = None
    """How batch elements, or the image's rows, are sharded over several devices."""

    @property
    def scales(self) -> tuple["Problem", ...]:
        """The problems of all scales, smallest first."""
        return (*self.coarse_levels, self._replace(coarse_levels=()))

    @property
    def numbers(self) -> Numbers:
        """The numbers that programs take as arguments; each `[k]` if batch elements differ."""
        return Numbers.stack(self.elements) if self.elements else Numbers.of(self.recipe)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images, without the padding of a sharding."""
        height, width = self.start.shape[-3:-1]
        return (self.layout.height if isinstance(self.layout, SpatialSharding) else height), width


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
      styles: one such image or several, each of any size; see `style_size`.
      recipe: the settings; resolved here.
      network: weights.
      start: initial image, resized to the output, or a name (`initial_image`);
        `recipe.init` if not given.
      elements: initial images or names for a batch, instead of `start`; batch element i has seed
        `recipe.seed + i`.
      masks: see `compute_targets`.
      targets: those of an earlier problem with the same images, layers and sizes, and, with losses
        that take layers together, the same weights of layers, to share them;
        with several scales one each, as in `Problem.scales`; on one device only.
      devices: how many of `jax.devices()`, `"all"`, or a list of them: batch elements are
        sharded over them, or without a batch the rows of the image.

    Returns:
      `Problem`, the argument of `iterates`.

    Raises:
      JaxstyleError: an argument that is not valid or does not fit the others; names it.
    """
    asked, recipe = recipe, resolve_recipe(recipe, network)
    if elements is not None:
        _check_elements(elements, recipe)
    devices = sharing_devices(devices, 1 if elements is None else len(elements))
    if len(devices) == 1 and devices[0] != jax.local_devices()[0]:
        # What is computed with the weights is computed where they are.
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
    known: Sequence[Targets | None] = [None] * recipe.scales
    if targets is not None:
        known = [targets] if isinstance(targets, Targets) else targets
    if len(known) != recipe.scales:
        raise JaxstyleError(
            f"targets: {len(known)} are given for {recipe.scales} scales; give one a scale"
        )
    *coarse_levels, problem = [
        _at_scale(
            content, loaded, level, recipe=recipe, network=network, masks=masks, targets=of_scale,
            starts=[recipe.init if start is None else start] if elements is None else elements,
            batched=elements is not None, row_devices=devices if by_rows else (),
        )
        for level, of_scale in zip(reversed(range(recipe.scales)), known, strict=True)
    ]  # fmt: skip
    shown = jnp.asarray(images.resize(content, *problem.size))
    layout = problem.layout if isinstance(problem.layout, SpatialSharding) else None
    weight = balance_recipe(
        asked, problem.recipe, problem.network, problem.targets,
        layout.place(shown) if layout else shown, rows=layout,
    ).style_weight  # fmt: skip
    *coarse_levels, problem = (
        level._replace(recipe=dataclasses.replace(level.recipe, style_weight=weight))
        for level in (*coarse_levels, problem)
    )
    problem = problem._replace(coarse_levels=tuple(coarse_levels))
    return problem if elements is None else shard_batch(problem, devices)


def _check_elements(elements: Sequence[ArrayLike | str], recipe: Recipe) -> None:
    """Raise a `JaxstyleError` for no batch element, or for too few seeds."""
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
      content: of its own size, as are the styles.
      styles: one or more.
      level: the number of larger scales.
      recipe: resolved.
      network: weights.
      masks: as in `prepare`.
      targets: of this scale, if they are there already.
      starts: initial images or their names, one for each batch element.
      batched: whether the problem has a batch axis.
      row_devices: devices that share the rows of the image, if any.
    """
    height, width = content.shape[:2]
    assert recipe.content_weight is not None, "resolved"
    weight = recipe.content_weight * recipe.scale_content**level
    recipe = dataclasses.replace(recipe, content_weight=weight)
    content = images.resize(content, *output_size(height, width, recipe, level=level))
    shrunk = style_images(styles, recipe, level=level)
    rows = shard_rows(row_devices, content.shape[0], recipe) if row_devices else None
    if rows:
        network = put_on_devices(network, rows.replicated)
    if targets is None:
        targets = compute_targets(
            network, jnp.asarray(content), shrunk, recipe, masks=masks, rows=rows,
            pyramid=pyramid_levels(recipe, [], level=level),
        )  # fmt: skip
    made = [
        _start_image(start, content, shrunk[0], seed=seed, recipe=recipe, network=network)
        for seed, start in enumerate(starts, start=recipe.seed)
    ]
    image = jnp.stack(made) if batched else made[0]
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


def _start_image(
    start: ArrayLike | str,
    content: np.ndarray,
    style: jax.Array,
    *,
    seed: int,
    recipe: Recipe,
    network: Network,
) -> jax.Array:
    """Return the initial image of a batch element, with the recipe's share of noise."""
    named = partial(
        initial_image, content=content, convention=recipe.configure_network(network).convention,
        noise_std=recipe.noise_std, seed=seed,
    )  # fmt: skip
    if not isinstance(start, str):
        given = as_image(start, "start")
        # It may have values outside [0, 1], which resizing must not change.
        inside = bool(given.min() >= 0 and given.max() <= 1)
        clean = jnp.asarray(images.resize(given, *content.shape[:2], clip=inside))
    elif start in ("style", "recolored"):
        match = color_transfer.MATCHES[recipe.preserve_color]
        clean = named(start, style=match(style, jnp.asarray(content)))
    else:
        clean = named(start, style=style)
    share = recipe.noise_blend
    return (1 - share) * clean + share * named("noise", style=style) if share else clean


def shard_batch(problem: Problem, devices: Sequence[jax.Device]) -> Problem:
    """Return a batched problem with its batch elements distributed over devices.

    Raises:
      JaxstyleError: the batch elements do not divide evenly.
    """
    if len(devices) == 1:
        return problem
    layout = BatchSharding.over(devices, len(problem.start))
    targets, chroma = put_on_devices(
        (problem.targets, problem.chroma),
        layout.by_element if problem.own_targets else layout.replicated,
    )
    return problem._replace(
        network=put_on_devices(problem.network, layout.replicated),
        targets=targets,
        start=layout.place(problem.start),
        chroma=chroma,
        coarse_levels=tuple(shard_batch(scale, devices) for scale in problem.coarse_levels),
        layout=layout,
    )


def shard_rows(devices: Sequence[jax.Device], height: int, recipe: Recipe) -> SpatialSharding:
    """Return how the rows of an image are distributed over devices.

    Raises:
      JaxstyleError: an objective that is not separable (`Recipe.is_separable`).
    """
    if not recipe.is_separable:
        raise JaxstyleError(
            f"devices: the rows of one image are not shared out with content_loss "
            f"{recipe.content_loss!r}, style_loss {recipe.style_loss!r} and pooling "
            f"{recipe.pooling!r}, which need whole maps in one place; use one device, or a batch"
        )
    names = (*recipe.content_names, *recipe.style_names)
    return SpatialSharding.over(devices, height, smallest_side(names) if names else 1)


def stack(problems: Sequence[Problem], *, own_targets: bool = True) -> Problem:
    """Return several problems as one batched problem, run as one vmapped program.

    Args:
      problems: unbatched, of one network and one size, with recipes that differ in numbers only
        and have equally many steps.
      own_targets: whether batch elements keep their own targets; if not, all share those of the
        first problem.

    Raises:
      JaxstyleError: the problems do not fit one program.
    """
    first = problems[0]

    def form(problem: Problem) -> tuple[Any, ...]:
        shapes = jax.tree.map(jnp.shape, problem.targets)
        recipe = problem.recipe
        settings = recipe.steps, static_part(recipe), jax.tree.structure(Numbers.of(recipe))
        return problem.network.key, problem.start.shape, settings, shapes

    if first.start.ndim != 3 or any(form(problem) != form(first) for problem in problems):
        raise JaxstyleError(
            "problems: their network, image size, steps, layers or optimizers differ; batch "
            "elements of one "
            "program may differ in numbers and images only"
        )
    targets, chroma = first.targets, first.chroma
    if own_targets:
        targets, chroma = jax.tree.map(
            lambda *leaves: jnp.stack(leaves),
            *((problem.targets, problem.chroma) for problem in problems),
        )
    start = jnp.stack([problem.start for problem in problems])
    elements = tuple(problem.recipe for problem in problems)
    coarse_levels = tuple(
        stack(scales, own_targets=own_targets)
        for scales in zip(*(problem.coarse_levels for problem in problems), strict=True)
    )
    return Problem(
        first.network, targets, first.recipe, start, elements, own_targets, chroma, coarse_levels,
        detailed=sum((problem.detailed for problem in problems), ()),
    )  # fmt: skip


def initial_image(
    init: str,
    *,
    content: ArrayLike,
    style: ArrayLike,
    convention: Preprocessing,
    noise_std: float,
    seed: int,
) -> jax.Array:
    """Return the image that the optimizer starts from, RGB of the content's shape.

    Args:
      init: `"content"` and `"style"` are those images (the style resized); `"recolored"` is the
        content with mean and covariance of the style's colors; `"noise"` is normal noise around
        the network's mean color, as in the papers.
      content: RGB `[h, w, 3]` in [0, 1].
      style: RGB of any size.
      convention: preprocessing of the network, with its mean color.
      noise_std: standard deviation of the noise on the 0–255 scale.
      seed: of the noise.

    Raises:
      JaxstyleError: another `init`; the caller loads files.
    """
    content = jnp.asarray(content, jnp.float32)
    if init == "content":
        return content
    if init == "style":
        height, width = content.shape[:2]
        return jnp.asarray(images.resize(np.asarray(style), height, width))
    if init == "recolored":
        return color_transfer.match_cholesky(content, jnp.asarray(style))
    if init == "noise":
        mean = np.asarray(convention.mean, np.float32) / np.float32(convention.scale)
        if convention.channel_order == "bgr":
            mean = mean[::-1]
        noise = jax.random.normal(
            jax.random.key(seed, impl="threefry2x32"), content.shape, jnp.float32
        )
        return noise * (noise_std / 255) + mean[None, None]
    raise JaxstyleError(
        f"init: {init!r} is none of {', '.join(INITS)}; to start from an image, load it "
        "and give it as `start`"
    )
