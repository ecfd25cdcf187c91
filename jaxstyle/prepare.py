"""From pictures and a recipe to a `Job`: sized, with targets and initial pictures."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxstyle import colours, images
from jaxstyle.errors import JaxstyleError
from jaxstyle.masks import Masks
from jaxstyle.objective import Targets, compute_targets
from jaxstyle.recipe import INITS, Recipe
from jaxstyle.vgg import InputConvention, Network, receptive_margin, smallest_side


class Job(NamedTuple):
    """What a run needs, ready for the device."""

    network: Network
    targets: Targets
    recipe: Recipe
    """Resolved."""
    start: jax.Array
    """Initial picture `[h, w, 3]`, or a batch of them `[k, h, w, 3]`."""
    lanes: tuple[Recipe, ...] | None = None
    """One recipe a lane if they differ in numbers (`stack`); `recipe` is that of the first."""
    own_targets: bool = False
    """Whether `targets` have a lane axis too, instead of one set for all lanes."""
    chroma: jax.Array | None = None
    """The picture whose colours the result takes, `[h, w, 3]`, or one a lane as with `targets`."""
    coarser: tuple["Job", ...] = ()
    """With several scales the jobs of the smaller ones, smallest first; the `start` of the first
    is where the run starts."""

    @property
    def scales(self) -> tuple["Job", ...]:
        """The jobs of all scales, smallest first."""
        return (*self.coarser, self._replace(coarser=()))


def prepare(
    content: ArrayLike,
    styles: ArrayLike | Sequence[ArrayLike],
    *,
    recipe: Recipe,
    network: Network,
    start: ArrayLike | str | None = None,
    lanes: Sequence[ArrayLike | str] | None = None,
    masks: Masks | None = None,
    targets: Targets | Sequence[Targets] | None = None,
) -> Job:
    """Size the pictures, compute the targets and paint the initial picture or pictures.

    Args:
      content: RGB `[h, w, 3]` in [0, 1]; brought to `recipe.size` (0: left as it is).
      styles: one such picture or several, each of any size; see `style_size`.
      recipe: the settings; resolved here.
      network: weights.
      start: initial picture, resized to the output, or a name (`initial_picture`);
        `recipe.init` if not given.
      lanes: a batch instead: one start a lane, pictures and names mixed as you like; lane i
        has seed `recipe.seed + i`.
      masks: see `compute_targets`.
      targets: those of an earlier job with the same pictures, layers and sizes, to share them; with
        several scales one each, as in `Job.scales`.

    Returns:
      `Job`, to be given to `iterates`.

    Raises:
      JaxstyleError: what does not fit, by name.
    """
    recipe = recipe.resolved(network)
    content = picture(content, "content")
    several: Sequence[Any] = [styles] if getattr(styles, "ndim", 0) == 3 else styles  # type: ignore[assignment]
    pictures = [picture(style, "style") for style in several]
    shared = (targets,) if isinstance(targets, Targets) else targets
    jobs = [
        _at_scale(
            content, pictures, recipe=recipe, network=network, start=start, lanes=lanes,
            masks=masks, targets=None if shared is None else shared[number], level=level,
        )
        for number, level in enumerate(reversed(range(recipe.scales)))
    ]  # fmt: skip
    return jobs[-1]._replace(coarser=tuple(jobs[:-1]))


def _at_scale(
    original: np.ndarray,
    styles: Sequence[np.ndarray],
    *,
    recipe: Recipe,
    network: Network,
    start: ArrayLike | str | None,
    lanes: Sequence[ArrayLike | str] | None,
    masks: Masks | None,
    targets: Targets | None,
    level: int,
) -> Job:
    """Prepare one scale of a job; `level` counts the scales above it."""
    height, width = original.shape[:2]
    content = images.resize(original, *output_size(height, width, recipe, level=level))
    shrunk = style_pictures(styles, recipe, level=level)
    if targets is None:
        targets = compute_targets(network, jnp.asarray(content), shrunk, recipe, masks=masks)

    def painted(start: str, seed: int) -> jax.Array:
        matched = colours.MATCHES[recipe.preserve_color]
        return initial_picture(
            start,
            content=content,
            style=matched(shrunk[0], jnp.asarray(content)) if start == "style" else shrunk[0],
            convention=recipe.seen_by(network).convention,
            noise_std=recipe.noise_std,
            seed=seed,
        )

    def started(start: ArrayLike | str, seed: int) -> jax.Array:
        if isinstance(start, str):
            clean = painted(start, seed)
        else:
            clean = jnp.asarray(images.resize(picture(start, "start"), *content.shape[:2]))
        share = recipe.noise_blend
        return (1 - share) * clean + share * painted("noise", seed) if share else clean

    chroma = jnp.asarray(content) if recipe.preserve_color == "luminance" else None
    if lanes is None:
        image = started(recipe.init if start is None else start, recipe.seed)
        return Job(network, targets, recipe, image, chroma=chroma)
    if not lanes:
        raise JaxstyleError("lanes: no initial picture was given; give at least one")
    if recipe.seed + len(lanes) > 2**31:
        raise JaxstyleError(
            f"seed: {recipe.seed} leaves too few seeds for {len(lanes)} pictures; "
            f"give at most {2**31 - len(lanes)}"
        )
    seeds = range(recipe.seed, recipe.seed + len(lanes))
    batch = jnp.stack([started(lane, seed) for lane, seed in zip(lanes, seeds, strict=True)])
    return Job(network, targets, recipe, batch, chroma=chroma)


def stack(jobs: Sequence[Job], *, own_targets: bool = True) -> Job:
    """Make one job of several, a lane each: run as one vmapped program.

    Args:
      jobs: unbatched, of one network and one size, with recipes that differ in numbers only
        and have equally many steps.
      own_targets: give each lane its own targets; if not, those of the first job serve all.

    Raises:
      JaxstyleError: the jobs do not fit one program.
    """
    first = jobs[0]

    def form(job: Job) -> tuple[Any, ...]:
        shapes = jax.tree.map(jnp.shape, job.targets)
        structure = jax.tree.structure(job.recipe.for_program())
        return id(job.network), job.start.shape, job.recipe.steps, structure, shapes

    if first.start.ndim != 3 or any(form(job) != form(first) for job in jobs):
        raise JaxstyleError(
            "jobs: their network, picture size, steps, layers or optimisers differ; lanes of one "
            "program may differ in numbers and pictures only"
        )
    targets, chroma = first.targets, first.chroma
    if own_targets:
        targets, chroma = jax.tree.map(
            lambda *leaves: jnp.stack(leaves), *((job.targets, job.chroma) for job in jobs)
        )
    start = jnp.stack([job.start for job in jobs])
    lanes = tuple(job.recipe for job in jobs)
    coarser = tuple(
        stack(scales, own_targets=own_targets)
        for scales in zip(*(job.coarser for job in jobs), strict=True)
    )
    return Job(first.network, targets, first.recipe, start, lanes, own_targets, chroma, coarser)


def initial_picture(
    init: str,
    *,
    content: ArrayLike,
    style: ArrayLike,
    convention: InputConvention,
    noise_std: float,
    seed: int,
) -> jax.Array:
    """Paint the picture that the optimiser starts from, RGB of the content's shape.

    Args:
      init: `"content"` and `"style"` are those pictures (the style resized); `"noise"` is
        normal noise around the network's mean colour, as in the papers.
      content: RGB `[h, w, 3]` in [0, 1].
      style: RGB of any size.
      convention: where the mean colour comes from.
      noise_std: standard deviation of the noise on the 0–255 scale.
      seed: of the noise.

    Raises:
      JaxstyleError: another `init`: a file is the caller's to load.
    """
    content = jnp.asarray(content, jnp.float32)
    if init == "content":
        return content
    if init == "style":
        height, width = content.shape[:2]
        return jnp.asarray(images.resize(np.asarray(style), height, width))
    if init == "noise":
        mean = jnp.asarray(convention.mean, jnp.float32) / convention.scale
        if convention.channel_order == "bgr":
            mean = mean[::-1]
        noise = jax.random.normal(jax.random.key(seed), content.shape, jnp.float32)
        return mean + noise * (noise_std / 255)
    raise JaxstyleError(
        f"init: {init!r} is none of {', '.join(INITS)}; to start from a picture, load it "
        "and give it as `start`"
    )


def picture(image: ArrayLike, argument: str) -> np.ndarray:
    """Check that an array is a picture, and give it as float32."""
    array = np.asarray(image)
    if array.ndim != 3 or array.shape[-1] != 3 or not np.issubdtype(array.dtype, np.floating):
        raise JaxstyleError(
            f"{argument}: an array of shape {array.shape} and type {array.dtype} is not a picture; "
            "give RGB [h, w, 3] of floats in [0, 1]"
        )
    if not np.isfinite(array).all():
        raise JaxstyleError(f"{argument}: the picture has values that are not finite; replace them")
    return array.astype(np.float32)


def output_size(height: int, width: int, recipe: Recipe, *, level: int = 0) -> tuple[int, int]:
    """Give the height and width of a run's picture for a content picture's.

    Args:
      height: pixels of the content picture.
      width: likewise.
      recipe: its `size`, `upscale` and `scales` are used.
      level: scales above the one that is asked for: each divides the sides by the root of 2.

    Raises:
      JaxstyleError: a side would be shorter than any picture's may be.
    """
    if recipe.size:
        height, width = images.fitted(height, width, recipe.size, upscale=recipe.upscale)
    small = tuple(max(1, round(side / 2 ** (level / 2))) for side in (height, width))
    if level and min(small) < images.MIN_SIDE:
        raise JaxstyleError(
            f"scales: {recipe.scales} make the first picture {small[1]}x{small[0]}, and both sides "
            f"need {images.MIN_SIDE} pixels; use fewer"
        )
    return small[0], small[1]


def style_pictures(
    styles: ArrayLike | Sequence[ArrayLike], recipe: Recipe, *, level: int = 0
) -> list[jax.Array]:
    """Give one or several style pictures as a list, of the sizes that `style_size` gives."""
    several: Sequence[Any] = [styles] if getattr(styles, "ndim", 0) == 3 else styles  # type: ignore[assignment]
    pictures = [picture(style, "style") for style in several]
    sizes = [style_size(p.shape[0], p.shape[1], recipe, level=level) for p in pictures]
    return [jnp.asarray(images.resize(p, *s)) for p, s in zip(pictures, sizes, strict=True)]


def style_size(height: int, width: int, recipe: Recipe, *, level: int = 0) -> tuple[int, int]:
    """Give a style picture's height and width in a run.

    Its longest side is that of the picture, at most `recipe.size`, times `recipe.style_scale`, at
    smaller scales shrunk as the output is (`output_size`).

    Raises:
      JaxstyleError: a side would be shorter than any picture's may be.
    """
    longest = max(height, width)
    if recipe.size:
        longest = min(longest, recipe.size)
    wanted = max(1, round(longest * recipe.style_scale / 2 ** (level / 2)))
    try:
        return images.fitted(height, width, wanted, upscale=True)
    except JaxstyleError as error:
        if recipe.style_scale == 1 and not level:
            raise
        name, value = ("scales", recipe.scales) if level else ("style_scale", recipe.style_scale)
        raise JaxstyleError(
            f"{name}: {value:g} leaves too little of a style picture of {width}x{height}, "
            f"{wanted} pixels on its longer side (both need {images.MIN_SIDE}); give a larger one"
        ) from error


def small_style_notice(
    sizes: Sequence[tuple[int, int]], recipe: Recipe, network: Network, *, shortest: int
) -> str | None:
    """The line to show when a style is smaller than what a position of its layers sees.

    Nothing is said where the output is no larger: its statistics are then of the same kind.

    Args:
      sizes: height and width of the style pictures, as given.
      recipe: resolved or not.
      network: weights.
      shortest: side of the output.
    """
    recipe = recipe.resolved(network)
    layers = [layer for layer, weight in recipe.style_layers or () if weight]
    for number, size in enumerate(sizes, start=1):
        height, width = style_size(*size, recipe)
        small = [l for l in layers if min(height, width) < min(_field(network, l), shortest)]
        if small:
            worst = max(small, key=lambda l: _field(network, l))
            return (
                f"style {number} is {width}x{height} pixels in this run, and a position of {worst} "
                f"sees {_field(network, worst)}: most of its style there is of the picture's edge; "
                "use a larger picture, a larger --style-scale or shallower layers"
            )
    return None


def _field(network: Network, layer: str) -> int:
    """Pixels a side that one position of a layer depends on."""
    return 2 * receptive_margin(network.topology, [layer]) + smallest_side([layer])
