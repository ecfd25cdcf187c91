"""Whether a run fits into memory, and the largest size that does."""

import dataclasses
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import jax

from jaxstyle.config.accelerators import Accelerator
from jaxstyle.config.choices import LBFGS_OPTIMIZERS
from jaxstyle.config.defaults import MIN_HISTORY_SIZE, default_history_size
from jaxstyle.config.recipe import Recipe
from jaxstyle.engine import free_memory
from jaxstyle.engine.memory import (
    LINE_SIDE,
    MAX_COMPILED,
    USABLE,
    MemoryLine,
    carry_bound,
    gigabytes,
    line_sizes,
    needed_bytes,
    resolved_for_size,
    upper_bound,
)
from jaxstyle.engine.problem import shard_rows
from jaxstyle.errors import JaxstyleError
from jaxstyle.losses.resolve import resolve_recipe
from jaxstyle.nn.network import Network

# Bytes of an L-BFGS pair per pixel: a position difference and a gradient difference.
_PAIR = 2 * 3 * 4


class Plan(NamedTuple):
    """The memory that a run needs and that the device has."""

    width: int
    """Width of the image in pixels."""
    height: int
    """Height of the image in pixels."""
    batch: int
    """Number of images in the program."""
    needed: int
    """Bytes of the compiled program, its arguments and results, and the input images."""
    free: int | None
    """Free bytes of the device; None if it does not report them."""
    largest: int | None
    """Longest side in pixels, at the same aspect ratio, whose run fits into `USABLE` of the free
    bytes; None if none does."""
    history_size: int | None = None
    """Number of L-BFGS pairs of the run; None for other optimizers."""

    @property
    def fits(self) -> bool:
        """Whether the run fits; True if the device does not report its memory."""
        return self.free is None or self.needed <= USABLE * self.free


def plan(
    height: int,
    width: int,
    *,
    recipe: Recipe,
    network: Network,
    batch: int = 1,
    styles: Sequence[tuple[int, int]] = (),
    free: int | None = None,
    accelerator: Accelerator | None = None,
) -> Plan:
    """Compute the memory of a run on images of a size, by compiling its programs without data.

    Args:
      height: height of the image in pixels.
      width: width of the image in pixels.
      recipe: settings. A history size of None is replaced by the largest one that fits; `largest`
        is then for the least history size.
      network: weights; only their shapes are used.
      batch: number of initial images in the program.
      styles: height and width of the style images in the run; those of the image, times
        `recipe.style_scale`, if not given.
      free: free bytes of the device; those of the first local device if not given.
      accelerator: accelerator to plan for, which may be absent; the local device if not given.

    Returns:
      `Plan`.

    Raises:
      JaxstyleError: the image is too small for a layer, or a number is below 1.
    """
    for name, value in (("height", height), ("width", width), ("batch", batch)):
        if value < 1:
            raise JaxstyleError(f"{name}: {value} is out of range; give a whole number from 1")
    is_chosen = _chooses_history_size(recipe)
    recipe = resolved_for_size(recipe, network, height, width)
    free = free_memory.free_bytes() if free is None else free
    usual = pairs = recipe.lbfgs_pairs

    def needed_at(size: tuple[int, int]) -> int:
        ratio = math.sqrt(size[0] * size[1] / (height * width))
        return needed_bytes(
            *size, recipe=recipe, network=network, batch=batch, accelerator=accelerator,
            styles=[(max(1, round(h * ratio)), max(1, round(w * ratio))) for h, w in styles],
        )  # fmt: skip

    pixels = min(max(height * width, LINE_SIDE**2), MAX_COMPILED)
    ends = line_sizes(pixels, height / width) if free is not None else []
    # The larger end is often the size itself, which is compiled once.
    sizes = list(dict.fromkeys([(height, width), *ends]))
    # The compiler works outside of Python's lock.
    with ThreadPoolExecutor(len(sizes)) as pool:
        needed_by_size = dict(zip(sizes, pool.map(needed_at, sizes), strict=True))
    needed, largest = needed_by_size[height, width], None
    if free is not None:
        line = MemoryLine.through([h * w for h, w in ends], [needed_by_size[s] for s in ends])
        if is_chosen:
            pairs = _pairs(usual, needed, free, height * width * batch)
            saved = usual - pairs, usual - MIN_HISTORY_SIZE
            needed -= saved[0] * _PAIR * height * width * batch
            line = line._replace(slope=line.slope - saved[1] * _PAIR * batch)
        room = max(0.0, USABLE * free - line.constant) / line.slope
        # A multiple of 16, as the estimate is not more exact.
        largest = int(math.sqrt(room * max(height / width, width / height))) // 16 * 16
    return Plan(width, height, batch, needed, free, largest or None, pairs or None)


def _chooses_history_size(recipe: Recipe) -> bool:
    """Return whether the history size depends on the free memory."""
    return recipe.history_size is None and recipe.optimizer in LBFGS_OPTIMIZERS


def _pairs(usual: int, needed: int, free: int, pixels: int) -> int:
    """Return the largest history size that fits.

    Args:
      usual: default history size.
      needed: bytes of the run with the default history size.
      free: free bytes.
      pixels: pixels of all images of the batch.
    """
    excess = math.ceil(max(0, needed - USABLE * free) / (_PAIR * pixels))
    return max(MIN_HISTORY_SIZE, usual - excess)


def fit_into_memory(
    height: int,
    width: int,
    *,
    recipe: Recipe,
    network: Network,
    batch: int = 1,
    devices: int = 1,
    styles: Sequence[tuple[int, int]] = (),
    checkpoint: bool = False,
) -> Recipe:
    """Return a recipe that fits into memory, with a smaller history size if it was None.

    Compiles nothing if `upper_bound` fits, and one program if the run fits. Other arguments than
    these are those of `plan`.

    Args:
      devices: number of devices that share the batch, or the rows of one image.
      checkpoint: whether checkpoints are written, for which the state is copied.

    Returns:
      The recipe, with a history size if the default one does not fit.

    Raises:
      JaxstyleError: the run does not fit; the message names the largest size that does.
    """
    free = free_memory.free_bytes()
    if devices > 1:
        resolved = resolve_recipe(recipe, network)
        on_device = _share_of_device(height, batch, resolved, devices)
        height, batch, styles, checkpoint = *on_device, (), False
        if free is not None and jax.devices()[0].platform == "cpu":
            free //= devices  # They share the memory of one machine.
    else:
        resolved = resolved_for_size(recipe, network, height, width)
    pixels = height * width * batch
    copies = carry_bound(resolved, pixels) if checkpoint else 0
    bound = upper_bound(height, width, recipe=resolved, network=network, batch=batch, styles=styles)
    if free is None or bound + copies < USABLE * free:
        return recipe
    needed = copies + needed_bytes(
        height, width, recipe=resolved, network=network, batch=batch, styles=styles
    )
    usual = resolved.lbfgs_pairs
    pairs = _pairs(usual, needed, free, pixels) if _chooses_history_size(recipe) else usual
    needed -= (usual - pairs) * _PAIR * pixels
    if needed > USABLE * free and devices > 1:
        ways = ["a smaller --size", "more --devices", *([] if recipe.tile else ["--tile 512"])]
        raise JaxstyleError(
            f"size: each of {devices} devices needs {gigabytes(needed)} of memory and "
            f"{_usable(free)}; use {', '.join(ways)} or several of them"
        )
    if needed > USABLE * free:
        # Only the message needs the largest size, for which further programs are compiled.
        result = plan(height, width, recipe=recipe, network=network, batch=batch, styles=styles)
        raise JaxstyleError(f"size: {advice(result._replace(needed=needed), recipe)}")
    if not _chooses_history_size(recipe) or pairs == default_history_size(network):
        return recipe
    return dataclasses.replace(recipe, history_size=pairs)


def _share_of_device(height: int, batch: int, recipe: Recipe, devices: int) -> tuple[int, int]:
    """Return the rows and the batch size that each device has."""
    if batch > 1:
        return height, -(-batch // devices)
    # A device needs the memory of an image of its rows, but for a few rows of its neighbors.
    return shard_rows(jax.devices()[:devices], height, recipe).padded // devices, batch


def advice(plan: Plan, recipe: Recipe) -> str:
    """Return a line that says why a plan does not fit and what to change."""
    assert plan.free is not None
    many = f"{plan.batch} images" if plan.batch > 1 else "an image"
    ways = []
    if plan.largest:
        ways.append(f"--size {plan.largest}")
    if not recipe.tile:
        ways.append("--tile 512")
    if plan.history_size is not None and plan.history_size > MIN_HISTORY_SIZE:
        ways.append(f"--history-size {MIN_HISTORY_SIZE}")
    if not recipe.remat and not recipe.tile:
        ways.append("--remat")
    if plan.batch > 1:
        ways.append("a smaller --batch")
    return (
        f"{many} of {plan.width}x{plan.height} needs {gigabytes(plan.needed)} of memory and "
        f"{_usable(plan.free)}; use {', '.join(ways) or 'a machine with more'}"
        + (" or several of them" if len(ways) > 1 else "")
    )


def _usable(free: int) -> str:
    return f"{gigabytes(USABLE * free)} of {gigabytes(free)} that are free can be used"
