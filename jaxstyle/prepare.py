"""From pictures and a recipe to a `Job`: sized, with targets and initial pictures."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxstyle import colours, images
from jaxstyle.errors import JaxstyleError, shortened
from jaxstyle.masks import Masks
from jaxstyle.objective import Targets
from jaxstyle.recipe import INITS, Recipe
from jaxstyle.sharding import Devices, Lanes, Layout, Rows, put, shared_by
from jaxstyle.sizing import (
    Picture,
    output_size,
    picture,
    pictures,
    pyramid_levels,
    resolve_scales,
    style_pictures,
)
from jaxstyle.targets import compute_targets
from jaxstyle.vgg import InputConvention, Network, smallest_side


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
    detailed: tuple[bool, ...] = ()
    """For each initial image, whether larger scales add its fine detail (`scale_detail`)."""
    layout: Layout | None = None
    """How lanes, or the picture's rows, are shared out over several devices (`spread`)."""

    @property
    def scales(self) -> tuple["Job", ...]:
        """The jobs of all scales, smallest first."""
        return (*self.coarser, self._replace(coarser=()))

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the pictures, without the rows that a layout adds."""
        height, width = self.start.shape[-3:-1]
        return (self.layout.height if isinstance(self.layout, Rows) else height), width


def prepare(
    content: Picture,
    styles: Picture | Sequence[Picture],
    *,
    recipe: Recipe,
    network: Network,
    start: ArrayLike | str | None = None,
    lanes: Sequence[ArrayLike | str] | None = None,
    masks: Masks | None = None,
    targets: Targets | Sequence[Targets] | None = None,
    devices: Devices = None,
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
        several scales one each, as in `Job.scales`; on one device only.
      devices: how many of `jax.devices()`, `"all"`, or a list of them: lanes are shared out
        over them, or without lanes the rows of the one picture.

    Returns:
      `Job`, to be given to `iterates`.

    Raises:
      JaxstyleError: what does not fit, by name.
    """
    if not isinstance(recipe, Recipe):
        raise JaxstyleError(
            f"recipe: {shortened(recipe)} is no Recipe; give one, e.g. jaxstyle.presets['default']"
        )
    recipe = recipe.resolved(network)
    devices = shared_by(devices, 1 if lanes is None else len(lanes))
    content = picture(content, "content")
    if lanes is None and len(devices) > 1 and recipe.scales is None:
        # Devices that share the rows of one image hold only one resolution of it.
        recipe = dataclasses.replace(recipe, scales=1)
    loaded = pictures(styles)
    recipe = resolve_scales(recipe, content.shape, [style.shape for style in loaded])
    assert recipe.scales is not None, "resolved above"
    if lanes is None and len(devices) > 1 and recipe.scales > 1:
        raise JaxstyleError(
            f"devices: {len(devices)} do not share the rows of one picture through several scales "
            f"(scales {recipe.scales}); use one device, one scale, or a batch"
        )
    shared = (targets,) if isinstance(targets, Targets) else targets
    jobs = [
        _at_scale(
            content, loaded, recipe=recipe, network=network, start=start, lanes=lanes,
            masks=masks, targets=None if shared is None else shared[number], level=level,
            devices=devices,
        )
        for number, level in enumerate(reversed(range(recipe.scales)))
    ]  # fmt: skip
    job = jobs[-1]._replace(coarser=tuple(jobs[:-1]))
    return job if lanes is None else spread(job, devices)


def _at_scale(
    original: np.ndarray,
    styles: Picture | Sequence[Picture],
    *,
    recipe: Recipe,
    network: Network,
    start: ArrayLike | str | None,
    lanes: Sequence[ArrayLike | str] | None,
    masks: Masks | None,
    targets: Targets | None,
    level: int,
    devices: Sequence[jax.Device],
) -> Job:
    """Prepare one scale of a job; `level` counts the scales above it."""
    height, width = original.shape[:2]
    content = images.resize(original, *output_size(height, width, recipe, level=level))
    shrunk = style_pictures(styles, recipe, level=level)
    rows = None
    if lanes is None and len(devices) > 1:
        rows = rows_over(devices, content.shape[0], recipe)
        network = put(network, rows.on_all)
    if targets is None:
        targets = compute_targets(
            network, jnp.asarray(content), shrunk, recipe, masks=masks, rows=rows,
            pyramid=pyramid_levels(recipe, [], level=level),
        )  # fmt: skip

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
        alone = started(recipe.init if start is None else start, recipe.seed)
        if rows:
            alone, chroma = rows.place(alone), None if chroma is None else rows.place(chroma)
        return Job(
            network, targets, recipe, alone,
            chroma=chroma, detailed=_detailed(recipe, [start]), layout=rows,
        )  # fmt: skip
    if not lanes:
        raise JaxstyleError("lanes: no initial picture was given; give at least one")
    if recipe.seed + len(lanes) > 2**31:
        raise JaxstyleError(
            f"seed: {recipe.seed} leaves too few seeds for {len(lanes)} pictures; "
            f"give at most {2**31 - len(lanes)}"
        )
    seeds = range(recipe.seed, recipe.seed + len(lanes))
    batch = jnp.stack([started(lane, seed) for lane, seed in zip(lanes, seeds, strict=True)])
    return Job(network, targets, recipe, batch, chroma=chroma, detailed=_detailed(recipe, lanes))


def _detailed(recipe: Recipe, starts: Sequence[ArrayLike | str | None]) -> tuple[bool, ...]:
    """Return for each start whether its fine detail is worth adding: not that of noise."""
    names = [recipe.init if start is None else start for start in starts]
    keep = recipe.scale_detail and not recipe.noise_blend
    return tuple(keep and not (isinstance(name, str) and name == "noise") for name in names)


def spread(job: Job, devices: Sequence[jax.Device]) -> Job:
    """Share out the lanes of a batched job over devices, one of them or as many as divide them.

    Raises:
      JaxstyleError: the lanes do not divide evenly.
    """
    if len(devices) == 1:
        return job
    layout = Lanes.over(devices, len(job.start))
    targets, chroma = put(
        (job.targets, job.chroma), layout.by_lane if job.own_targets else layout.on_all
    )
    return job._replace(
        network=put(job.network, layout.on_all),
        targets=targets,
        start=layout.place(job.start),
        chroma=chroma,
        coarser=tuple(spread(scale, devices) for scale in job.coarser),
        layout=layout,
    )


def rows_over(devices: Sequence[jax.Device], height: int, recipe: Recipe) -> Rows:
    """Share out the rows of a picture over devices.

    Raises:
      JaxstyleError: the recipe's objective needs the whole of a map in one place.
    """
    if not recipe.in_parts:
        raise JaxstyleError(
            f"devices: the rows of one picture are not shared out with style_loss "
            f"{recipe.style_loss!r} and pooling {recipe.pooling!r}, which need whole maps in one "
            "place; use one device, or a batch"
        )
    names = [layer for layer, _ in (*recipe.content_layers, *(recipe.style_layers or ()))]
    return Rows.over(devices, height, smallest_side(names) if names else 1)


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
    return Job(
        first.network, targets, first.recipe, start, lanes, own_targets, chroma, coarser,
        detailed=sum((job.detailed for job in jobs), ()),
    )  # fmt: skip


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
        mean = np.asarray(convention.mean, np.float32) / np.float32(convention.scale)
        if convention.channel_order == "bgr":
            mean = mean[::-1]
        noise = jax.random.normal(jax.random.key(seed), content.shape, jnp.float32)
        return noise * (noise_std / 255) + mean
    raise JaxstyleError(
        f"init: {init!r} is none of {', '.join(INITS)}; to start from a picture, load it "
        "and give it as `start`"
    )
