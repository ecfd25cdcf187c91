"""The type of an optimization problem; problems as batches and on several devices."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxstyle.config.layers import smallest_side
from jaxstyle.config.numbers import Numbers, program_key
from jaxstyle.config.recipe import Recipe
from jaxstyle.errors import JaxstyleError
from jaxstyle.losses.targets import Targets
from jaxstyle.nn.network import Network
from jaxstyle.nn.sharding import BatchSharding, Layout, SpatialSharding, put_on_devices


class Problem(NamedTuple):
    """One optimization problem: network, targets, settings and initial images."""

    network: Network
    """Weights of the network."""
    targets: Targets
    """Targets of the objective."""
    recipe: Recipe
    """Settings, resolved for the network and the images."""
    start: jax.Array
    """Initial image `[h, w, 3]`, or a batch of initial images `[k, h, w, 3]`."""
    elements: tuple[Recipe, ...] | None = None
    """The recipe of each batch element, if they differ in numbers (`stack`); `recipe` is the
    first."""
    own_targets: bool = False
    """Whether `targets` have a batch axis; if not, batch elements share them."""
    chroma: jax.Array | None = None
    """Image whose chroma the result takes, `[h, w, 3]`; `[k, h, w, 3]` with `own_targets`."""
    coarse_levels: tuple["Problem", ...] = ()
    """The problems of the smaller scales, smallest first; the run starts from the `start` of the
    first."""
    detailed: tuple[bool, ...] = ()
    """For each initial image, whether larger scales add its high frequencies (`scale_detail`)."""
    layout: Layout | None = None
    """Sharding of the batch, or of the image's rows, over several devices."""

    @property
    def scales(self) -> tuple["Problem", ...]:
        """The problems of all scales, smallest first."""
        return (*self.coarse_levels, self._replace(coarse_levels=()))

    @property
    def batched(self) -> bool:
        """Whether the problem has a batch axis."""
        return len(self.start.shape) == 4

    @property
    def batch_size(self) -> int:
        """Number of initial images."""
        return self.start.shape[0] if self.batched else 1

    @property
    def numbers(self) -> Numbers:
        """The numbers that programs take as arguments, scalars or, if batch elements differ,
        `[k]`."""
        return Numbers.stack(self.elements) if self.elements else Numbers.of(self.recipe)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images, without the padding of a sharding."""
        height, width = self.start.shape[-3:-1]
        return (self.layout.height if isinstance(self.layout, SpatialSharding) else height), width


def shard_batch(problem: Problem, devices: Sequence[jax.Device]) -> Problem:
    """Return a batched problem with its batch elements distributed over devices.

    Raises:
      JaxstyleError: the number of devices does not divide the batch size.
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
    """Return the sharding of an image's rows over devices.

    Args:
      devices: two or more.
      height: height of the image in pixels.
      recipe: resolved settings.

    Raises:
      JaxstyleError: the objective is not separable (`Recipe.is_separable`).
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
    """Return several problems as one batched problem, to be run as one vmapped program.

    Args:
      problems: problems without a batch axis, with the same network, image size and number of
        steps, and recipes that differ in numbers only.
      own_targets: whether batch elements have their own targets; if not, all share those of the
        first problem.

    Raises:
      JaxstyleError: the problems cannot share a program.
    """
    first = problems[0]

    def key(problem: Problem) -> tuple[Any, ...]:
        shapes = jax.tree.map(jnp.shape, problem.targets)
        return problem.network.key, problem.start.shape, program_key(problem.recipe), shapes

    if first.batched or any(key(problem) != key(first) for problem in problems):
        raise JaxstyleError(
            "problems: their network, image size, steps, layers or optimizers differ; batch "
            "elements of one program may differ in numbers and images only"
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
