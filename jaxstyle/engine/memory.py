"""The memory that a run needs, from its compiled programs, and whether it fits."""

import dataclasses
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxstyle.config.accelerators import Accelerator
from jaxstyle.config.choices import LBFGS_OPTIMIZERS
from jaxstyle.config.defaults import MIN_HISTORY_SIZE, default_history_size
from jaxstyle.config.layers import LayerWeights, smallest_side, split_layer
from jaxstyle.config.recipe import Recipe
from jaxstyle.engine.chunk import carry_shapes, common_arguments, lower
from jaxstyle.engine.free_memory import free_bytes
from jaxstyle.engine.problem import Problem, shard_rows
from jaxstyle.engine.roofline import map_bytes
from jaxstyle.engine.sizes import default_margin, default_scales, pyramid_levels
from jaxstyle.engine.targets import compute_targets, lower_style_statistics
from jaxstyle.errors import JaxstyleError
from jaxstyle.losses.columns import CELL, MOST_POSITIONS
from jaxstyle.losses.nearest import BLOCK
from jaxstyle.losses.resolve import resolve_recipe
from jaxstyle.losses.self_similarity import MOST_POSITIONS as COMPARED_POSITIONS
from jaxstyle.losses.self_similarity import MOST_REGIONS
from jaxstyle.losses.style_losses import STYLE_LOSSES
from jaxstyle.nn.geometry import receptive_margin
from jaxstyle.nn.network import Network

# Share of the free memory; the rest is for the system, the compiler and image files.
USABLE = 0.9
# Above this many pixels memory is extrapolated, as indices of the program would exceed 32 bits.
_COMPILED = 2**24
# Bytes of an L-BFGS pair for each pixel: a step and a gradient difference.
_PAIR = 2 * 3 * 4
# Least side of the larger image of two between which memory is taken to be affine: smaller ones
# have other numbers of resolutions than those that fill a memory.
_LINE_SIDE = 512


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
      height: pixels of the image.
      width: likewise.
      recipe: the settings. A history size of None is chosen as large as memory allows; `largest`
        is then for the least history size.
      network: weights; only their shapes are used.
      batch: initial images in the program.
      styles: height and width of the style images in the run; the image's, times
        `recipe.style_scale`, if not given.
      free: bytes of the device; those of the first one here if not given.
      accelerator: that the run is for, which need not be here; the device here if not given.

    Returns:
      `Plan`.

    Raises:
      JaxstyleError: an image too small for a layer, or a number below 1.
    """
    for name, value in (("height", height), ("width", width), ("batch", batch)):
        if value < 1:
            raise JaxstyleError(f"{name}: {value} is out of range; give a whole number from 1")
    is_chosen = _chooses_history_size(recipe)
    recipe = resolved_for_size(recipe, network, height, width)
    free = free_bytes() if free is None else free
    assert recipe.history_size is not None, "resolved"
    pairs = recipe.history_size if recipe.optimizer in LBFGS_OPTIMIZERS else None

    def needed_at(size: tuple[int, int]) -> int:
        ratio = math.sqrt(size[0] * size[1] / (height * width))
        return needed_bytes(
            *size, recipe=recipe, network=network, batch=batch, accelerator=accelerator,
            styles=[(max(1, round(h * ratio)), max(1, round(w * ratio))) for h, w in styles],
        )  # fmt: skip

    pixels = min(max(height * width, _LINE_SIDE**2), _COMPILED)
    sizes = [(height, width), *_line_sizes(pixels, height / width)]
    # The compiler works outside of Python's lock.
    with ThreadPoolExecutor(len(sizes)) as pool:
        needed, *ends = pool.map(needed_at, sizes if free is not None else sizes[:1])
    largest = None
    if free is not None:
        line = _Line.through([h * w for h, w in sizes[1:]], ends)
        if is_chosen:
            pairs = _pairs(recipe.history_size, needed, free, height * width * batch)
            saved = recipe.history_size - pairs, recipe.history_size - MIN_HISTORY_SIZE
            needed -= saved[0] * _PAIR * height * width * batch
            line = line._replace(slope=line.slope - saved[1] * _PAIR * batch)
        room = max(0.0, USABLE * free - line.constant) / line.slope
        # Whole sixteens, as one number is not more exact than that.
        largest = int(math.sqrt(room * max(height / width, width / height))) // 16 * 16
    return Plan(width, height, batch, needed, free, largest or None, pairs)


def resolved_for_size(recipe: Recipe, network: Network, height: int, width: int) -> Recipe:
    """Return the recipe resolved for an image size.

    One number of resolutions for all sizes, or the bytes would not lie on a line.
    """
    longest = max(height, width, _LINE_SIDE if recipe.pyramid is None else 0)
    margin = default_margin(recipe) if recipe.margin is None else recipe.margin
    scales = recipe.scales
    if scales is None:
        scales = default_scales(dataclasses.replace(recipe, size=0), (height, width))
    side = min(height, width) * longest // max(height, width)
    pyramid = pyramid_levels(recipe, [(longest, max(1, side))])
    return dataclasses.replace(
        resolve_recipe(recipe, network), pyramid=pyramid, margin=margin, scales=scales
    )


def _chooses_history_size(recipe: Recipe) -> bool:
    """Return whether the history size depends on the free memory."""
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
    styles: Sequence[tuple[int, int]] = (),
    checkpoint: bool = False,
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
      styles: height and width of the style images in the run; as large as the image if not given.
      checkpoint: whether checkpoints are written, for which the state is copied.

    Returns:
      The recipe, with a history size if the default one does not fit.

    Raises:
      JaxstyleError: the run does not fit; the message names the largest size that does.
    """
    free = free_bytes()
    if devices > 1:
        return _fit_on_devices(height, width, recipe, network, batch, devices, free)
    resolved = resolved_for_size(recipe, network, height, width)
    bound = upper_bound(height, width, recipe=resolved, network=network, batch=batch, styles=styles)
    copies = (1 if checkpoint else 0) * _carry_bound(resolved, height * width * batch)
    if free is None or bound + copies < USABLE * free:
        return recipe
    needed = copies + needed_bytes(
        height, width, recipe=resolved, network=network, batch=batch, styles=styles
    )
    pairs = resolved.history_size
    if _chooses_history_size(recipe):
        assert pairs is not None, "resolved above"
        usual, pixels = pairs, height * width * batch
        pairs = _pairs(usual, needed, free, pixels)
        needed -= (usual - pairs) * _PAIR * pixels
    if needed > USABLE * free:
        # Only the message needs the largest size, for which further programs are compiled.
        result = plan(
            height, width, recipe=recipe, network=network, batch=batch, styles=styles
        )._replace(needed=needed)
        raise JaxstyleError(f"size: {advice(result, recipe)}")
    return _with_pairs(recipe, network, pairs)


def _carry_bound(recipe: Recipe, pixels: int) -> int:
    """Return the bytes of a run's state: images of the optimizer, of `pixels` pixels in all."""
    assert recipe.history_size is not None, "resolved"
    images = 2 * recipe.history_size if recipe.optimizer in LBFGS_OPTIMIZERS else 0
    return 12 * pixels * (images + 6)


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
            f"{_usable(free)}; use {', '.join(ways)} or several of them"
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
        f"{_usable(plan.free)}; use {', '.join(ways) or 'a machine with more'}"
        + (" or several of them" if len(ways) > 1 else "")
    )


def _usable(free: int) -> str:
    return f"{gigabytes(USABLE * free)} of {gigabytes(free)} that are free can be used"


def needed_bytes(
    height: int,
    width: int,
    *,
    recipe: Recipe,
    network: Network,
    batch: int = 1,
    styles: Sequence[tuple[int, int]] = (),
    accelerator: Accelerator | None = None,
) -> int:
    """Return the bytes of a run, by compiling its programs for shapes alone.

    The most of two moments: when the statistics of the style images are computed, and when the
    last scale begins, while the state of the one before is still there.

    Args:
      height: of the image.
      width: likewise.
      recipe: resolved.
      network: weights; only their shapes are used.
      batch: initial images in the program.
      styles: as in `plan`.
      accelerator: likewise.
    """
    if height * width > _COMPILED:
        sizes = _line_sizes(_COMPILED, height / width)
        ends = [
            needed_bytes(
                *size, recipe=recipe, network=network, batch=batch, accelerator=accelerator
            )
            for size in sizes
        ]
        line = _Line.through([h * w for h, w in sizes], ends)
        return int(line.constant + line.slope * height * width)
    scale = recipe.style_scale
    styles = styles or [(round(height * scale), round(width * scale))]
    problem = problem_of_shapes(height, width, recipe=recipe, network=network, batch=batch)
    recipe, shapes = problem.recipe, problem.network
    program = program_bytes(problem, accelerator=accelerator)
    # What computes an image's loss at the end makes its own.
    transformed = {} if accelerator else common_arguments(problem)[0][0].transformed
    kernels = sum(math.prod(leaf.shape) * 4 for leaf in jax.tree.leaves(transformed))
    smaller = 0.0
    if (recipe.scales or 1) > 1:
        state = jax.tree.leaves(carry_shapes(problem))
        smaller = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in state)
        smaller /= recipe.scale_ratio**2
    # Besides: content and initial images, and the best images on their way to the host.
    read = 12 * (height * width + sum(h * w for h, w in styles))
    run = program + kernels + smaller + 2 * batch * 12 * height * width
    # Smaller ones need less than the run, which computes gradients.
    large = {size for size in styles if math.prod(size) > height * width}
    of_styles = [_style_bytes(*size, recipe=recipe, network=shapes) for size in large]
    return int(max([run, *of_styles]) + read)


def problem_of_shapes(
    height: int, width: int, *, recipe: Recipe, network: Network, batch: int = 1
) -> Problem:
    """Return the problem of a run whose arrays are `jax.ShapeDtypeStruct`s.

    With one style image of the image's size and without masks, which add little.

    Args:
      height: of the image.
      width: likewise.
      recipe: the settings.
      network: weights; only their shapes are used.
      batch: initial images in the program.
    """
    recipe = dataclasses.replace(
        resolve_recipe(recipe, network), content_mask=None, mask=(), style_blend=None
    )
    image = jax.ShapeDtypeStruct((height, width, 3), jnp.float32)
    shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), network)
    targets = jax.eval_shape(
        lambda network, content, style: compute_targets(network, content, [style], recipe),
        shapes, image, image,
    )  # fmt: skip
    several = (batch,) if batch > 1 else ()
    start = jax.ShapeDtypeStruct((*several, *image.shape), jnp.float32)
    return Problem(shapes, targets, recipe, start)  # type: ignore[arg-type]


def _style_bytes(height: int, width: int, *, recipe: Recipe, network: Network) -> float:
    """Return the bytes of the program that computes a style image's statistics."""
    shrunk = min(1.0, math.sqrt(_COMPILED / (height * width)))
    size = max(1, int(height * shrunk)), max(1, int(width * shrunk))
    needed = _bytes_of(lower_style_statistics(network, size, recipe))
    return needed * height * width / math.prod(size)


def program_bytes(
    problem: Problem, *, chunk_size: int = 1, accelerator: Accelerator | None = None
) -> int:
    """Return the bytes of a problem's compiled program: arguments, results and temporaries.

    Args:
      problem: of one scale.
      chunk_size: largest number of steps of a chunk.
      accelerator: as in `plan`.
    """
    needed = _bytes_of(lower(problem, chunk_size=chunk_size, direct=accelerator is not None))
    if accelerator is None or accelerator.channel_multiple == 1:
        return needed
    return needed + padding(problem, needed, accelerator.channel_multiple)


def padding(problem: Problem, needed: int, multiple: int) -> int:
    """Return the bytes that padding the channels of feature maps to a multiple adds to a program.

    All feature maps are kept for the gradient; what else the program needs, but for the
    optimizer's state and the weights, is of the first block, whose maps are largest.
    """
    batch = problem.start.shape[0] if len(problem.start.shape) == 4 else 1
    size = problem.start.shape[-3:-1]
    network, recipe = problem.network, problem.recipe
    state = jax.tree.leaves((carry_shapes(problem), network.params))
    fixed = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in state)
    plain, padded = (
        batch * map_bytes(network, recipe, *size, channel_multiple=m) for m in (1, multiple)
    )
    first = network.params[network.layers[0]]["bias"].shape[-1]
    growth = -(-first // multiple) * multiple / first - 1
    others = max(0.0, needed - fixed - plain)
    return int(min(padded - plain, needed * growth) + others * growth)


def _bytes_of(lowered: jax.stages.Lowered) -> int:
    """Return the bytes of a program: arguments, results and temporaries."""
    # Its machine code is not run, and the buffers are the same without optimizing it.
    on_cpu = jax.devices()[0].platform == "cpu"
    quickly: Any = {"xla_backend_optimization_level": 0} if on_cpu else None
    usage: Any = lowered.compile(compiler_options=quickly).memory_analysis()
    return int(
        usage.argument_size_in_bytes
        + usage.output_size_in_bytes
        - usage.alias_size_in_bytes
        + usage.temp_size_in_bytes
    )


def upper_bound(
    height: int,
    width: int,
    *,
    recipe: Recipe,
    network: Network,
    batch: int = 1,
    styles: Sequence[tuple[int, int]] = (),
) -> int:
    """Compute an upper bound of the bytes without compiling: every activation and its derivative,
    at every resolution of the image with its margin, and the activations of the style images."""
    pixels = height * width
    border = 2 * (recipe.margin or 0)
    names = (*recipe.content_names, *recipe.style_names)
    cell = smallest_side(names)
    margin = receptive_margin(network.topology, names)
    side = recipe.tile + 2 * (margin + cell) if recipe.tile else max(height, width) + border
    a_pixel = sum(
        4 * network.params[name]["bias"].shape[0] / 4 ** (int(name[4]) - 1)
        for name in network.layers
    )
    # All smaller resolutions together have a third of the pixels.
    resolutions = 1 if recipe.pyramid == 1 else 4 / 3

    def positions(height: int, width: int) -> int:
        # Sides are padded to whole cells of the deepest layer.
        whole = (height + border + cell) * (width + border + cell)
        return min(whole, (side + cell) ** 2) if recipe.tile else whole

    floats = a_pixel * resolutions * positions(height, width)
    assert recipe.history_size is not None, "resolved"
    images = 2 * recipe.history_size + 24 if recipe.optimizer in LBFGS_OPTIMIZERS else 24
    floats = batch * (floats + 3 * images * pixels)
    for layer in recipe.content_names:
        name = split_layer(layer)[0]
        channels = network.params[name]["bias"].shape[0]
        floats += 2 * channels * pixels / 4 ** (int(name[4]) - 1)
    floats += batch * _joint_floats(resolutions * positions(height, width), recipe, network)
    # Forward only, but at a time.
    of_styles = max(
        (a_pixel * positions(*size) + 9 * math.prod(size) for size in styles), default=0
    )
    weights = sum(leaf.nbytes for leaf in jax.tree.leaves(network.params))
    # Kernels transformed for Winograd are four times as large, and there may be two sets.
    return int(4 * max(floats, of_styles) + 11 * weights)


def _joint_floats(pixels: float, recipe: Recipe, network: Network) -> float:
    """Compute an upper bound of the numbers in losses that take layers together."""

    def width(layers: LayerWeights) -> int:
        names = (split_layer(layer)[0] for layer, _ in layers)
        return sum(network.params[name]["bias"].shape[0] for name in names)

    floats = 0.0
    if "self-similarity" in recipe.content_loss:
        columns = width(recipe.content_layers)
        floats += 4 * columns * pixels / CELL**2 + 8 * COMPARED_POSITIONS * MOST_REGIONS
    if STYLE_LOSSES[recipe.style_loss].is_joint:
        columns = width(recipe.style_layers or ())
        turned = 4 if recipe.turn_style else 1
        floats += columns * (4 * pixels / CELL**2 + (4 + 4 * turned) * MOST_POSITIONS)
        floats += 4 * BLOCK * MOST_POSITIONS + 6 * columns**2
    return floats


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
    def through(cls, pixels: Sequence[int], needed: Sequence[int]) -> "_Line":
        """Build the function from the bytes at two numbers of pixels."""
        (x0, x1), (y0, y1) = pixels, needed
        slope = (y1 - y0) / (x1 - x0)
        return cls(y0 - slope * x0, slope)


def _line_sizes(pixels: int, aspect: float) -> list[tuple[int, int]]:
    """Return height and width of two images, the larger of about so many pixels."""
    sizes = []
    for area in (pixels // 2, pixels):
        width = max(1, round(math.sqrt(area / aspect)))
        sizes.append((max(1, area // width), width))
    return sizes
