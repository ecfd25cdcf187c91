"""The memory that a run needs, from its compiled program, and the memory that is free."""

import dataclasses
import math
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import psutil

from jaxstyle.config.choices import LBFGS_OPTIMIZERS
from jaxstyle.config.defaults import MIN_HISTORY_SIZE, default_history_size
from jaxstyle.config.layers import smallest_side, split_layer
from jaxstyle.config.recipe import Recipe
from jaxstyle.engine.chunk import lower
from jaxstyle.engine.problem import Problem, shard_rows
from jaxstyle.engine.sizes import pyramid_levels
from jaxstyle.engine.targets import compute_targets
from jaxstyle.errors import JaxstyleError
from jaxstyle.losses.resolve import resolve_recipe
from jaxstyle.nn.geometry import receptive_margin
from jaxstyle.nn.network import Network

# Share of the free memory; the rest is for the system, the compiler and image files.
USABLE = 0.9
# Above this many pixels memory is extrapolated, as indices of the program would exceed 32 bits.
_COMPILED = 2**24
# Bytes of an L-BFGS pair for each pixel: a step and a gradient difference.
_PAIR = 2 * 3 * 4
_CGROUP = Path("/sys/fs/cgroup")


class Plan(NamedTuple):
    """The memory that a run needs and that the device has."""

    width: int
    """Pixels of the image."""
    height: int
    batch: int
    """Images in the program."""
    needed: int
    """Bytes of the compiled program, its arguments and results, and the images beside it."""
    free: int | None
    """Free bytes of the device; None if it does not report them."""
    largest: int | None
    """Longest side, at the same aspect ratio, whose run fits into `USABLE` of the free bytes."""
    history_size: int | None = None
    """L-BFGS pairs of the run; None for other optimizers."""

    @property
    def fits(self) -> bool:
        """Whether the run fits; True if the device does not report its memory."""
        return self.free is None or self.needed <= USABLE * self.free


def plan(height: int, width: int, *, recipe: Recipe, network: Network, batch: int = 1) -> Plan:
    """Compute the memory of a run on images of a size, by compiling its program without data.

    Args:
      height: pixels of the image.
      width: likewise. The style image is taken to be as large.
      recipe: the settings; `tile`, `remat`, `precision`, `history_size`, `optimizer` and the
        layers are used. A history size of None is chosen as large as memory allows; `largest` is
        then for the least history size.
      network: weights; only their shapes are used.
      batch: initial images in the program.

    Returns:
      `Plan`.

    Raises:
      JaxstyleError: an image too small for a layer, or a number below 1.
    """
    for name, value in (("height", height), ("width", width), ("batch", batch)):
        if value < 1:
            raise JaxstyleError(f"{name}: {value} is out of range; give a whole number from 1")
    is_chosen = _chooses_history_size(recipe)
    # One number of resolutions for all sizes, or the bytes would not lie on a line.
    pyramid = pyramid_levels(recipe, [(height, width)])
    recipe = dataclasses.replace(resolve_recipe(recipe, network), pyramid=pyramid)
    needed = needed_bytes(height, width, recipe=recipe, network=network, batch=batch)
    free = free_bytes()
    largest = None
    assert recipe.history_size is not None, "resolved above"
    pairs = recipe.history_size if recipe.optimizer in LBFGS_OPTIMIZERS else None
    if free is not None:
        pixels = min(height * width, _COMPILED)
        line = _Line.through(pixels, height / width, recipe, network, batch)
        if is_chosen:
            pairs = _pairs(recipe.history_size, needed, free, height * width * batch)
            saved = recipe.history_size - pairs, recipe.history_size - MIN_HISTORY_SIZE
            needed -= saved[0] * _PAIR * height * width * batch
            line = line._replace(slope=line.slope - saved[1] * _PAIR * batch)
        room = max(0.0, USABLE * free - line.constant) / line.slope
        # Whole sixteens, as one number is not more exact than that.
        largest = int(math.sqrt(room * max(height / width, width / height))) // 16 * 16
    return Plan(width, height, batch, needed, free, largest or None, pairs)


def _chooses_history_size(recipe: Recipe) -> bool:
    """Return whether the history size is to be chosen by memory."""
    return recipe.history_size is None and recipe.optimizer in LBFGS_OPTIMIZERS


def _pairs(usual: int, needed: int, free: int, pixels: int) -> int:
    """Return the largest history size that fits, from the bytes that the usual one needs."""
    excess = math.ceil(max(0, needed - USABLE * free) / (_PAIR * pixels))
    return max(MIN_HISTORY_SIZE, usual - excess)


def fit(
    height: int,
    width: int,
    *,
    recipe: Recipe,
    network: Network,
    batch: int = 1,
    devices: int = 1,
) -> Recipe:
    """Return a recipe that fits into memory, with its history size chosen if it was None.

    Compiles nothing if `upper_bound` fits, and one program if the run fits.

    Args:
      height: of the image.
      width: likewise.
      recipe: the settings.
      network: weights.
      batch: initial images.
      devices: how many share the batch, or the rows of one image.

    Returns:
      The recipe, with a history size if the default one does not fit.

    Raises:
      JaxstyleError: the run does not fit; the message names the largest size that does.
    """
    free = free_bytes()
    if devices > 1:
        return _fit_on_devices(height, width, recipe, network, batch, devices, free)
    resolved = resolve_recipe(recipe, network)
    bound = upper_bound(height, width, recipe=resolved, network=network, batch=batch)
    if free is None or bound < USABLE * free:
        return recipe
    needed = needed_bytes(height, width, recipe=resolved, network=network, batch=batch)
    pairs = resolved.history_size
    if _chooses_history_size(recipe):
        assert pairs is not None, "resolved above"
        usual, pixels = pairs, height * width * batch
        pairs = _pairs(usual, needed, free, pixels)
        needed -= (usual - pairs) * _PAIR * pixels
    if needed > USABLE * free:
        # Only the message needs the largest size, for which further programs are compiled.
        found = plan(height, width, recipe=recipe, network=network, batch=batch)
        raise JaxstyleError(f"size: {advice(found, recipe)}")
    return _with_pairs(recipe, network, pairs)


def _with_pairs(recipe: Recipe, network: Network, pairs: int | None) -> Recipe:
    """Return the recipe with a chosen history size that is not the default."""
    if not _chooses_history_size(recipe) or pairs == default_history_size(network):
        return recipe
    return dataclasses.replace(recipe, history_size=pairs)


def _fit_on_devices(
    height: int,
    width: int,
    recipe: Recipe,
    network: Network,
    batch: int,
    devices: int,
    free: int | None,
) -> Recipe:
    if free is None:
        return recipe
    asked, recipe = recipe, resolve_recipe(recipe, network)
    if jax.devices()[0].platform == "cpu":
        free //= devices  # They share the memory of one machine.
    if batch > 1:
        batch = -(-batch // devices)
    else:
        # A device needs the memory of an image of its rows, but for a few rows of its neighbors.
        height = shard_rows(jax.devices()[:devices], height, recipe).padded // devices
    bound = upper_bound(height, width, recipe=recipe, network=network, batch=batch)
    if bound < USABLE * free:
        return asked
    needed = needed_bytes(height, width, recipe=recipe, network=network, batch=batch)
    assert recipe.history_size is not None, "resolved above"
    pairs = recipe.history_size
    if _chooses_history_size(asked):
        pairs = _pairs(recipe.history_size, needed, free, height * width * batch)
        needed -= (recipe.history_size - pairs) * _PAIR * height * width * batch
    if needed > USABLE * free:
        ways = ["a smaller --size", "more --devices", *([] if recipe.tile else ["--tile 512"])]
        raise JaxstyleError(
            f"size: each of {devices} devices needs {gigabytes(needed)} of memory and "
            f"{gigabytes(free)} are free; use {', '.join(ways)} or several of them"
        )
    return _with_pairs(asked, network, pairs)


def advice(plan: Plan, recipe: Recipe) -> str:
    """Return one line that says why a plan does not fit, and what to change."""
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
        f"{gigabytes(plan.free)} are free; use {', '.join(ways) or 'a machine with more'}"
        + (" or several of them" if len(ways) > 1 else "")
    )


def needed_bytes(
    height: int, width: int, *, recipe: Recipe, network: Network, batch: int = 1
) -> int:
    """Return the bytes of a run, by compiling its program for shapes alone."""
    if height * width > _COMPILED:
        line = _Line.through(_COMPILED, height / width, recipe, network, batch)
        return int(line.constant + line.slope * height * width)
    # With one style and without masks, which add little.
    recipe = dataclasses.replace(recipe, content_mask=None, mask=(), style_blend=None)
    image = jax.ShapeDtypeStruct((height, width, 3), jnp.float32)
    shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), network)
    targets = jax.eval_shape(
        lambda network, content, style: compute_targets(network, content, [style], recipe),
        shapes, image, image,
    )  # fmt: skip
    several = (batch,) if batch > 1 else ()
    start = jax.ShapeDtypeStruct((*several, *image.shape), jnp.float32)
    program = program_bytes(Problem(shapes, targets, recipe, start))  # type: ignore[arg-type]
    # Besides: content, style and initial images, and the best images on their way to the host.
    return int(program + (2 + 2 * batch) * 12 * height * width)


def program_bytes(problem: Problem, *, chunk_size: int = 1) -> int:
    """Return the bytes of a problem's compiled program: arguments, results and temporaries."""
    found: Any = lower(problem, chunk_size=chunk_size).compile().memory_analysis()
    return int(
        found.argument_size_in_bytes
        + found.output_size_in_bytes
        - found.alias_size_in_bytes
        + found.temp_size_in_bytes
    )


def upper_bound(
    height: int, width: int, *, recipe: Recipe, network: Network, batch: int = 1
) -> int:
    """Compute an upper bound of the bytes without compiling: every activation and its
    derivative."""
    pixels = height * width
    names = [layer for layer, _ in (*recipe.content_layers, *(recipe.style_layers or ()))]
    cell = smallest_side(names)
    margin = receptive_margin(network.topology, names)
    side = recipe.tile + 2 * (margin + cell) if recipe.tile else max(height, width)
    seen = min(pixels, (side + cell) ** 2)
    floats = 0.0
    for name in network.layers:
        channels = network.params[name]["bias"].shape[0]
        floats += 4 * channels * seen / 4 ** (int(name[4]) - 1)
    assert recipe.history_size is not None, "resolved"
    images = 2 * recipe.history_size + 24 if recipe.optimizer in LBFGS_OPTIMIZERS else 24
    floats = batch * (floats + 3 * images * pixels)
    for layer, _ in recipe.content_layers:
        name = split_layer(layer)[0]
        channels = network.params[name]["bias"].shape[0]
        floats += 2 * channels * pixels / 4 ** (int(name[4]) - 1)
    weights = sum(leaf.nbytes for leaf in jax.tree.leaves(network.params))
    return int(4 * floats + 3 * weights)


def free_bytes() -> int | None:
    """Return the free bytes of the first device; on CPU, of the machine or container."""
    device = jax.devices()[0]
    if device.platform != "cpu":
        stats = device.memory_stats() or {}
        if "bytes_limit" not in stats:
            return None
        return int(stats["bytes_limit"] - stats.get("bytes_in_use", 0))
    free = int(psutil.virtual_memory().available)
    try:
        limit = (_CGROUP / "memory.max").read_text().strip()
        used = int((_CGROUP / "memory.current").read_text())
    except (OSError, ValueError):
        return free
    return free if limit == "max" else min(free, max(0, int(limit) - used))


def gigabytes(count: float) -> str:
    """Return a number of bytes as text, in GB or MB.

    Example:
      >>> gigabytes(1.25e9)
      '1.2 GB'
    """
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.0f} MB"


class _Line(NamedTuple):
    """Bytes as an affine function of the number of pixels."""

    constant: float
    slope: float

    @classmethod
    def through(
        cls, pixels: int, aspect: float, recipe: Recipe, network: Network, batch: int
    ) -> "_Line":
        """Build the function from the programs of two sizes, the larger of about `pixels`."""
        points = []
        for area in (max(pixels, 128**2) // 2, max(pixels, 128**2)):
            width = round(math.sqrt(area / aspect))
            height = max(1, area // width)
            needed = needed_bytes(height, width, recipe=recipe, network=network, batch=batch)
            points.append((height * width, needed))
        (x0, y0), (x1, y1) = points
        slope = (y1 - y0) / (x1 - x0)
        return cls(y0 - slope * x0, slope)
