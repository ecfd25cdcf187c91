"""The result of a run: the best image, its loss and the history of the losses."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from PIL import Image

from jaxstyle import images
from jaxstyle.config.recipe import Recipe
from jaxstyle.engine.divergence import diverged, divergence_bound, ended_above
from jaxstyle.engine.iterate import History, Iterate
from jaxstyle.engine.problem import Problem
from jaxstyle.engine.program import common_arguments, values
from jaxstyle.engine.scales import reference_step, scale_at
from jaxstyle.errors import JaxstyleError
from jaxstyle.files import StrPath
from jaxstyle.losses.objective import LayerLosses, Terms
from jaxstyle.nn.sharding import gather


class Result(NamedTuple):
    """The result of a run: image, loss and history."""

    image: np.ndarray
    """RGB `[h, w, 3]`, float32, in [0, 1]."""
    loss: float
    """Loss of `image` as it is, clipped; `history` has the losses before clipping."""
    terms: Terms
    """Terms of `loss`."""
    layers: LayerLosses
    """Parts of the content and style terms, by layer."""
    initial_loss: float
    """Loss of the initial image."""
    initial_terms: Terms
    """Terms of `initial_loss`."""
    history: History
    """Loss and terms after each step."""
    steps: int
    """Number of steps, over all scales."""
    evaluations: int
    """Number of evaluations of the objective and its gradient."""
    compile_seconds: float
    """Seconds that the run waited for tracing and compiling."""
    run_seconds: float
    """Seconds of running."""
    recipe: Recipe
    """All settings, resolved."""
    diverged: bool = False
    """Whether the loss exploded, or never fell below that of the initial image; `image` is the best
    image of the run in either case."""

    def save(self, path: StrPath, *, bit_depth: int = 8) -> None:
        """Write the image, in the format of the path's ending; see `images.save_image`."""
        images.save_image(path, self.image, argument="path", bit_depth=bit_depth)

    def to_pil(self) -> Image.Image:
        """Return the image as Pillow's, RGB of 8 bits."""
        return Image.fromarray(np.rint(np.clip(self.image, 0, 1) * 255).astype(np.uint8))

    def _repr_png_(self) -> bytes:
        """Return the image as PNG, for notebooks."""
        return images.encode_image(self.image, "PNG")


def finish(problem: Problem, iterates: Sequence[Iterate]) -> list[Result]:
    """Return the results of a run from its iterates, one per batch element.

    The run need not be complete. Images are clipped to [0, 1], as in files, and losses are those
    of the clipped images (one more evaluation).

    Args:
      problem: the argument of `iterates`.
      iterates: the iterates in order, at least one; only the last one needs its image.

    Raises:
      JaxstyleError: there is no iterate.
    """
    if not iterates:
        raise JaxstyleError("iterates: there is none; give at least the first of `iterates`")
    recipe = problem.recipe
    last = iterates[-1]
    level = scale_at(problem, last.step)
    scale = problem.scales[level]
    arguments, program = common_arguments(scale)
    image = scale.layout.place(last.image) if scale.layout else last.image
    losses, terms, layers = jax.device_get(gather(values(*arguments, image, program=program)))
    clipped = np.asarray(last.image)
    first, bound = reference_step(problem, level), divergence_bound(recipe.optimizer)

    def element(tree: Any, k: int) -> Any:
        return jax.tree.map(lambda x: x[k], tree) if problem.batched else tree

    results = []
    for k in range(problem.batch_size):
        parts = [History(i.history.step, *(element(h, k) for h in i.history[1:])) for i in iterates]
        past, has_diverged = truncate_at_divergence(parts, first, bound=bound)
        if past.step[-1] == recipe.total_steps:
            has_diverged = has_diverged or ended_above(past.loss[past.step >= first])
        results.append(
            Result(
                image=element(clipped, k),
                loss=float(element(losses, k)),
                terms=Terms(*(float(element(term, k)) for term in terms)),
                layers=jax.tree.map(float, element(layers, k)),
                initial_loss=float(past.loss[0]),
                initial_terms=Terms(*(float(term[0]) for term in past[2:])),
                history=past,
                steps=int(past.step[-1]),
                evaluations=int(element(last.evaluations, k)),
                compile_seconds=sum(i.compile_seconds for i in iterates),
                run_seconds=sum(i.run_seconds for i in iterates),
                recipe=problem.elements[k]
                if problem.elements
                else dataclasses.replace(recipe, seed=recipe.seed + k),
                diverged=has_diverged,
            )
        )
    return results


def truncate_at_divergence(
    parts: Sequence[History], first: int, *, bound: float
) -> tuple[History, bool]:
    """Return a batch element's history up to the chunk in which it diverges, and whether it does.

    Args:
      parts: histories of the chunks, from step 0.
      first: step whose loss is the reference (`reference_step`).
      bound: as in `diverged`.
    """
    past: list[History] = []
    initial, has_diverged = None, False
    for part in parts:
        past.append(part)
        losses = part.loss[part.step >= first]
        if losses.size:
            initial = losses[0] if initial is None else initial
            if has_diverged := bool(diverged(initial, losses, bound=bound)):
                break
    return History(*map(np.concatenate, zip(*past, strict=True))), has_diverged


def collect_iterates(
    run: Iterator[Iterate], *, show: Callable[[Iterate], None] = lambda iterate: None
) -> list[Iterate]:
    """Run to the end and return the iterates; only the last has its image.

    Args:
      run: from `iterates`.
      show: called with each iterate.
    """
    collected: list[Iterate] = []
    for iterate in run:
        append_iterate(collected, iterate._replace(carry=None))
        show(iterate)
    return collected


def append_iterate(collected: list[Iterate], iterate: Iterate) -> None:
    """Append an iterate, and drop the image and the state of the one before it.

    `finish` needs the losses of all iterates and the image of the last.
    """
    # In this order, as Ctrl-C may interrupt between the two.
    collected.append(iterate)
    if len(collected) > 1:
        collected[-2] = collected[-2]._replace(image=None, carry=None)  # type: ignore[arg-type]
