"""The run: from pictures and a recipe to a stylized picture.

`api.stylize` is `prepare`, then `iterates` with nothing in the loop, then `finish`.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from PIL import Image

from jaxstyle import images
from jaxstyle.descent import History, Iterate, iterates, measured_from, scale_at
from jaxstyle.divergence import diverged, only_rose
from jaxstyle.errors import JaxstyleError
from jaxstyle.files import StrPath
from jaxstyle.masks import Masks
from jaxstyle.objective import Terms
from jaxstyle.prepare import Job, prepare
from jaxstyle.programs import common_arguments, values
from jaxstyle.recipe import Recipe
from jaxstyle.sharding import Devices, readable
from jaxstyle.sizing import Picture, picture, style_pictures
from jaxstyle.targets import compute_targets
from jaxstyle.vgg import Network


class Result(NamedTuple):
    """A finished picture and how it came about."""

    image: np.ndarray
    """RGB `[h, w, 3]`, float32, in [0, 1]."""
    loss: float
    """Of `image` itself. The optimiser may leave [0, 1]; the history is of its own points."""
    terms: Terms
    initial_loss: float
    initial_terms: Terms
    history: History
    steps: int
    evaluations: int
    compile_seconds: float
    run_seconds: float
    recipe: Recipe
    """Every setting, resolved."""
    diverged: bool = False
    """Whether the run was stopped as its loss exploded, or made all its steps above the loss of its
    start; `image` is still the best one seen."""

    def save(self, path: StrPath, *, bit_depth: int = 8) -> None:
        """Write the image, in the format of the path's ending; see `images.save_image`."""
        images.save_image(path, self.image, argument="path", bit_depth=bit_depth)

    def to_pil(self) -> Image.Image:
        """Return the image as Pillow's, RGB of 8 bits."""
        return Image.fromarray(np.rint(np.clip(self.image, 0, 1) * 255).astype(np.uint8))

    def _repr_png_(self) -> bytes:
        """Return what a notebook shows."""
        return images.encode_image(self.image, "PNG")


def finish(job: Job, seen: Sequence[Iterate]) -> list[Result]:
    """Make results of the iterates seen so far, one a lane; also after an interruption.

    The picture is clipped to [0, 1], as a file needs it, and its loss is that of the
    clipped picture (one more evaluation).

    Args:
      job: what `iterates` was given.
      seen: the iterates that it yielded, in order, at least one; earlier pictures are not used.

    Raises:
      JaxstyleError: no iterate.
    """
    if not seen:
        raise JaxstyleError("seen: there is no iterate; give at least the first of `iterates`")
    recipe, start = job.recipe, job.start
    batched = start.ndim == 4
    last = seen[-1]
    level = scale_at(job, last.step)
    scale = job.scales[level]
    arguments, axes = common_arguments(scale)
    image = scale.layout.place(last.image) if scale.layout else last.image
    losses, terms = jax.device_get(
        readable(values(*arguments, image, axes=axes, layout=scale.layout))
    )
    pictures = np.asarray(last.image)

    def lane(tree: Any, k: int) -> Any:
        return jax.tree.map(lambda x: x[k], tree) if batched else tree

    results = []
    for k in range(len(start) if batched else 1):
        parts = [History(i.history.step, *(lane(h, k) for h in i.history[1:])) for i in seen]
        first = measured_from(job, level)
        past, gone = _until_divergence(parts, first)
        if past.step[-1] == recipe.total_steps:
            gone = gone or only_rose(past.loss[past.step >= first])
        results.append(
            Result(
                image=lane(pictures, k),
                loss=float(lane(losses, k)),
                terms=Terms(*(float(lane(term, k)) for term in terms)),
                initial_loss=float(past.loss[0]),
                initial_terms=Terms(*(float(term[0]) for term in past[2:])),
                history=past,
                steps=int(past.step[-1]),
                evaluations=int(lane(last.evaluations, k)),
                compile_seconds=sum(i.compile_seconds for i in seen),
                run_seconds=sum(i.run_seconds for i in seen),
                recipe=job.lanes[k]
                if job.lanes
                else dataclasses.replace(recipe, seed=recipe.seed + k),
                diverged=gone,
            )
        )
    return results


def _until_divergence(parts: Sequence[History], first: int) -> tuple[History, bool]:
    """Join a lane's history up to the chunk of its last scale in which it diverges.

    However long the others of its batch go on.

    Args:
      parts: a chunk each, from step 0.
      first: step whose loss is what the scale is measured by.
    """
    kept: list[History] = []
    initial, gone = None, False
    for part in parts:
        kept.append(part)
        losses = part.loss[part.step >= first]
        if losses.size:
            initial = losses[0] if initial is None else initial
            if gone := bool(diverged(initial, losses)):
                break
    return History(*map(np.concatenate, zip(*kept, strict=True))), gone


def stylize_batch(
    content: Picture,
    style: Picture | Sequence[Picture],
    *,
    recipe: Recipe,
    network: Network,
    starts: Sequence[ArrayLike | str] | int,
    masks: Masks | None = None,
    devices: Devices = None,
) -> list[Result]:
    """Stylize from several initial pictures at once: one vmapped program, a lane each.

    Args:
      content: as in `stylize`.
      style: as in `stylize`.
      recipe: the settings of all lanes; lane i has seed `recipe.seed + i`.
      network: weights.
      starts: the number of lanes that start after `recipe.init`; or one start a lane,
        each a picture or one of `"content"`, `"noise"`, `"style"`, mixed as you like.
      masks: as in `stylize`.
      devices: how many of `jax.devices()` share the lanes, `"all"`, or a list; as many as divide
        them.

    Returns:
      One `Result` a lane, in order.

    Raises:
      JaxstyleError: what does not fit, by name.
    """
    lanes = [recipe.init] * starts if isinstance(starts, int) else starts
    job = prepare(
        content, style, recipe=recipe, network=network, lanes=lanes, masks=masks, devices=devices
    )
    return finish(job, _seen(iterates(job)))


def evaluate(
    image: Picture,
    content: Picture,
    styles: Picture | Sequence[Picture],
    *,
    recipe: Recipe,
    network: Network,
    masks: Masks | None = None,
) -> tuple[float, Terms]:
    """Score any picture under a recipe: its loss and the weighted terms.

    The content picture is resized to the image's size; the style pictures keep theirs,
    bounded by `recipe.size`.
    """
    recipe = recipe.resolved(network)
    image = picture(image, "image")
    content = images.resize(picture(content, "content"), *image.shape[:2])
    shrunk = style_pictures(styles, recipe)
    targets = compute_targets(network, jnp.asarray(content), shrunk, recipe, masks=masks)
    loss, terms = jax.device_get(
        values(network, targets, recipe.for_program(), jnp.asarray(image), axes=None, layout=None)
    )
    return float(loss), Terms(*map(float, terms))


def _seen(run: Iterator[Iterate]) -> list[Iterate]:
    """Exhaust a run, keeping of each iterate but the last only the numbers."""
    seen: list[Iterate] = []
    for iterate in run:
        if seen:
            seen[-1] = seen[-1]._replace(image=None)  # type: ignore[arg-type]
        seen.append(iterate._replace(carry=None))
    return seen
