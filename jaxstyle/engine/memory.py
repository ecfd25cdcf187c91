"""The memory that a run needs, from its compiled programs or an upper bound."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxstyle.config.accelerators import Accelerator
from jaxstyle.config.layers import LayerWeights, smallest_side, stride
from jaxstyle.config.recipe import Recipe
from jaxstyle.engine.compilation import carry_shapes, lower
from jaxstyle.engine.compute_targets import compute_targets, lower_style_statistics
from jaxstyle.engine.problem import Problem
from jaxstyle.engine.program import common_arguments
from jaxstyle.engine.roofline import map_bytes
from jaxstyle.engine.sizes import margin_of, number_of_scales, pyramid_levels
from jaxstyle.losses.columns import CELL, MOST_POSITIONS
from jaxstyle.losses.nearest import BLOCK
from jaxstyle.losses.resolve import resolve_recipe
from jaxstyle.losses.self_similarity import MOST_POSITIONS as COMPARED_POSITIONS
from jaxstyle.losses.self_similarity import MOST_REGIONS
from jaxstyle.losses.style_losses import STYLE_LOSSES
from jaxstyle.nn.geometry import receptive_margin
from jaxstyle.nn.network import Network

USABLE = 0.9
"""Usable share of the free memory; the rest is for the system, the compiler and image files."""


MAX_COMPILED = 2**24
"""Pixels above which memory is extrapolated, as indices of the program would exceed 32 bits."""


LINE_SIDE = 512
"""Least side of the larger image of two between which memory is taken to be affine: smaller images
have fewer resolutions than those that fill a memory."""


def resolved_for_size(recipe: Recipe, network: Network, height: int, width: int) -> Recipe:
    """Return the recipe resolved for an image size.

    Small images get the pyramid of an image of `LINE_SIDE`, as memory is affine in the number of
    pixels for a constant number of resolutions only.
    """
    longest = max(height, width, LINE_SIDE if recipe.pyramid is None else 0)
    scales = number_of_scales(dataclasses.replace(recipe, size=0), (height, width))
    side = min(height, width) * longest // max(height, width)
    pyramid = pyramid_levels(recipe, [(longest, max(1, side))])
    return dataclasses.replace(
        resolve_recipe(recipe, network), pyramid=pyramid, margin=margin_of(recipe), scales=scales
    )


def carry_bound(recipe: Recipe, pixels: int) -> int:
    """Return an upper bound of the bytes of a run's state, for `pixels` pixels of all images."""
    return 12 * pixels * (2 * recipe.lbfgs_pairs + 6)


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
    """Return the bytes of a run, by compiling its programs without data.

    The larger of two numbers: the bytes while the statistics of the style images are computed, and
    the bytes when the last scale begins, with the state of the smaller scale still in memory.

    The arguments are those of `plan`, with a resolved recipe.
    """
    if height * width > MAX_COMPILED:
        sizes = line_sizes(MAX_COMPILED, height / width)
        ends = [
            needed_bytes(
                *size, recipe=recipe, network=network, batch=batch, accelerator=accelerator
            )
            for size in sizes
        ]
        line = MemoryLine.through([h * w for h, w in sizes], ends)
        return int(line.constant + line.slope * height * width)
    scale = recipe.style_scale
    styles = styles or [(round(height * scale), round(width * scale))]
    problem = problem_of_shapes(height, width, recipe=recipe, network=network, batch=batch)
    recipe, shapes = problem.recipe, problem.network
    program = program_bytes(problem, accelerator=accelerator)
    # `finish` transforms the kernels again.
    transformed = {} if accelerator else common_arguments(problem)[0][0].transformed
    kernels = _bytes_of_arrays(transformed)
    smaller = 0.0
    if (recipe.scales or 1) > 1:
        smaller = _bytes_of_arrays(carry_shapes(problem)) / recipe.scale_ratio**2
    # In addition: content and style images, initial images, and the best images being copied.
    read = 12 * (height * width + sum(h * w for h, w in styles))
    run = program + kernels + smaller + 2 * batch * 12 * height * width
    # Smaller style images need less than the run, which computes gradients.
    large = {size for size in styles if math.prod(size) > height * width}
    of_styles = [_style_bytes(*size, recipe=recipe, network=shapes) for size in large]
    return int(max([run, *of_styles]) + read)


def problem_of_shapes(
    height: int, width: int, *, recipe: Recipe, network: Network, batch: int = 1
) -> Problem:
    """Return the problem of a run with `jax.ShapeDtypeStruct`s in place of arrays.

    It has one style image of the image's size and no masks, which need little memory. The arguments
    are those of `plan`.
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
    shrunk = min(1.0, math.sqrt(MAX_COMPILED / (height * width)))
    size = max(1, int(height * shrunk)), max(1, int(width * shrunk))
    needed = _bytes_of(lower_style_statistics(network, size, recipe))
    return needed * height * width / math.prod(size)


def program_bytes(
    problem: Problem, *, chunk_size: int = 1, accelerator: Accelerator | None = None
) -> int:
    """Return the bytes of a problem's compiled program: arguments, results and temporaries.

    Args:
      problem: the problem of one scale.
      chunk_size: largest number of steps of a chunk.
      accelerator: as in `plan`.
    """
    needed = _bytes_of(lower(problem, chunk_size=chunk_size, direct=accelerator is not None))
    if accelerator is None or accelerator.channel_multiple == 1:
        return needed
    return needed + padding(problem, needed, accelerator.channel_multiple)


def padding(problem: Problem, needed: int, multiple: int) -> int:
    """Return the bytes that padding the channels of feature maps to a multiple adds to a program.

    All feature maps are stored for the gradient. The rest of the program's memory, without the
    optimizer's state and the weights, is taken to be maps of the first block, the largest ones.

    Args:
      problem: the problem of one scale.
      needed: bytes of the program without padding.
      multiple: channels are padded to a multiple of this.
    """
    size = problem.start.shape[-3:-1]
    network, recipe = problem.network, problem.recipe
    fixed = _bytes_of_arrays((carry_shapes(problem), network.params))
    plain, padded = (
        problem.batch_size * map_bytes(network, recipe, *size, channel_multiple=m)
        for m in (1, multiple)
    )
    first = network.channels(network.layers[0])
    growth = -(-first // multiple) * multiple / first - 1
    others = max(0.0, needed - fixed - plain)
    return int(min(padded - plain, needed * growth) + others * growth)


def _bytes_of_arrays(tree: Any) -> int:
    """Return the bytes of the arrays, or of the `jax.ShapeDtypeStruct`s, of a pytree."""
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _bytes_of(lowered: jax.stages.Lowered) -> int:
    """Return the bytes of a program: arguments, results and temporaries."""
    # The machine code is not run, and its buffers do not depend on its optimization.
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
    """Compute an upper bound of the bytes of a run without compiling.

    It counts every activation and its derivative at every resolution of the image with its margin,
    and the activations of the style images. The arguments are those of `plan`, with a resolved
    recipe.
    """
    pixels = height * width
    border = 2 * (recipe.margin or 0)
    names = (*recipe.content_names, *recipe.style_names)
    cell = smallest_side(names)
    margin = receptive_margin(network.topology, names)
    side = recipe.tile + 2 * (margin + cell) if recipe.tile else max(height, width) + border
    a_pixel = sum(4 * network.channels(layer) / stride(layer) ** 2 for layer in network.layers)
    # All smaller resolutions together have a third of the pixels.
    resolutions = 1 if recipe.pyramid == 1 else 4 / 3

    def positions(height: int, width: int) -> int:
        # Sides are padded to whole cells of the deepest layer.
        whole = (height + border + cell) * (width + border + cell)
        return min(whole, (side + cell) ** 2) if recipe.tile else whole

    floats = a_pixel * resolutions * positions(height, width)
    floats = batch * (floats + 3 * (2 * recipe.lbfgs_pairs + 24) * pixels)
    for layer in recipe.content_names:
        floats += 2 * network.channels(layer) * pixels / stride(layer) ** 2
    floats += batch * _joint_floats(resolutions * positions(height, width), recipe, network)
    # The forward pass only, one style image after another.
    of_styles = max(
        (a_pixel * positions(*size) + 9 * math.prod(size) for size in styles), default=0
    )
    weights = _bytes_of_arrays(network.params)
    # Kernels transformed for Winograd are four times as large, and there may be two sets.
    return int(4 * max(floats, of_styles) + 11 * weights)


def _joint_floats(pixels: float, recipe: Recipe, network: Network) -> float:
    """Compute an upper bound of the number of values in losses that take layers together."""

    def width(layers: LayerWeights) -> int:
        return sum(network.channels(layer) for layer, _ in layers)

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


class MemoryLine(NamedTuple):
    """Bytes as an affine function of the number of pixels."""

    constant: float
    slope: float

    @classmethod
    def through(cls, pixels: Sequence[int], needed: Sequence[int]) -> "MemoryLine":
        """Build the function from the bytes at two numbers of pixels."""
        (x0, x1), (y0, y1) = pixels, needed
        slope = (y1 - y0) / (x1 - x0)
        return cls(y0 - slope * x0, slope)


def line_sizes(pixels: int, aspect: float) -> list[tuple[int, int]]:
    """Return the heights and widths of two images, the larger of about `pixels` pixels."""
    sizes = []
    for area in (pixels // 2, pixels):
        width = max(1, round(math.sqrt(area / aspect)))
        sizes.append((max(1, area // width), width))
    return sizes
