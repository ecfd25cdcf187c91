"""The arguments and the state of a run's compiled programs, and the values of its objective.

Weights, targets and the numbers of the recipe are arguments of the programs: as constants, the
compiler would spend minutes folding them. `Program` maps programs over batch elements and shards
them over devices.
"""

import operator
from functools import partial
from typing import Any, NamedTuple

import jax

from jaxstyle.config.numbers import Numbers, static_part
from jaxstyle.config.recipe import Recipe
from jaxstyle.engine.problem import Problem
from jaxstyle.images.pixel_range import BOUNDS
from jaxstyle.losses.objective import LayerLosses, Objective, Terms, make_objective
from jaxstyle.losses.statistics import network_layers
from jaxstyle.losses.style_losses import STYLE_LOSSES
from jaxstyle.losses.targets import Targets
from jaxstyle.nn.network import Network
from jaxstyle.nn.sharding import BatchSharding, Layout, SpatialSharding
from jaxstyle.nn.tiling import window_size
from jaxstyle.nn.vgg import add_winograd_kernels


class Best(NamedTuple):
    """The point with the lowest loss so far."""

    position: jax.Array
    """Variables of the optimizer (`pixel_range`), `[h, w, 3]`."""
    loss: jax.Array
    """Scalar."""
    terms: Terms
    """Terms of the loss."""


class Mean(NamedTuple):
    """The exponential moving average of the images of a run, without its bias correction."""

    total: jax.Array
    """Weighted sum of the images, `[h, w, 3]`."""
    weight: jax.Array
    """Sum of the weights, scalar; `total / weight` is the average."""

    def add(self, image: jax.Array, decay: Any) -> "Mean":
        """Return the mean with one more image."""
        return Mean(decay * self.total + (1 - decay) * image, decay * self.weight + (1 - decay))


class Carry(NamedTuple):
    """State of a run between two chunks."""

    state: Any
    """State of the optimizer."""
    best: Best
    """The result so far: the best point, or the average if `Recipe.average` is set."""
    spent: jax.Array
    """Evaluations of the objective at smaller scales, int32."""
    mean: Mean | None = None
    """The moving average, if `Recipe.average` is set."""


Losses = tuple[jax.Array, Terms]
"""Loss and terms after each step, `[max_steps]`."""


class Program(NamedTuple):
    """The static arguments of a run's programs; hashable."""

    recipe: Recipe
    """Static part of the recipe."""
    batched: bool = False
    """Whether the arguments have a batch axis, first."""
    own_targets: bool = False
    """Whether the targets have a batch axis."""
    own_numbers: bool = False
    """Whether the numbers have a batch axis."""
    layout: Layout | None = None
    """Sharding of the batch, or of the image's rows."""
    platform: str = "cpu"
    """Platform of the devices, as JAX names it."""

    @property
    def rows(self) -> SpatialSharding | None:
        """Sharding of the image's rows; None if they are not sharded."""
        return self.layout if isinstance(self.layout, SpatialSharding) else None

    def map_elements(self, function: Any) -> Any:
        """Return `function(shared, targets, numbers, x)` mapped over batch elements and devices."""
        if not self.batched:
            return function
        axes = (None, 0 if self.own_targets else None, 0 if self.own_numbers else None, 0)
        mapped = jax.vmap(function, in_axes=axes)
        if isinstance(self.layout, BatchSharding):
            return self.layout.map_elements(mapped, axes)
        return mapped


Arguments = tuple[Network, Targets, Numbers]


def common_arguments(problem: Problem, *, platform: str | None = None) -> tuple[Arguments, Program]:
    """Return the arguments that all programs of a scale share, and their static arguments.

    Args:
      problem: the problem of one scale.
      platform: platform of the devices; the default backend if not given.
    """
    platform = platform or jax.default_backend()
    network = problem.recipe.configure_network(problem.network)
    # Where rows are sharded, Winograd's windows would need more than the one row exchanged.
    if not isinstance(problem.layout, SpatialSharding):
        layers = network_layers(problem.recipe)
        parts = window_size(network, layers, *problem.size, tile=problem.recipe.tile)
        network = add_winograd_kernels(network, layers, *parts, platform=platform)
    program = Program(
        static_part(problem.recipe),
        batched=problem.batched,
        own_targets=problem.own_targets,
        own_numbers=bool(problem.elements),
        layout=problem.layout,
        platform=platform,
    )
    return (network, problem.targets, problem.numbers), program


def make_position_objective(
    network: Network, targets: Targets, numbers: Numbers, program: Program
) -> Objective:
    """Build the objective as a function of the optimizer's variables (`pixel_range`)."""
    recipe = program.recipe
    of_image = make_objective(network, targets, recipe, numbers=numbers, rows=program.rows)
    return lambda position: of_image(BOUNDS[recipe.bounds].image(position))


@partial(jax.jit, static_argnames=("program",))
def values(
    network: Network, targets: Targets, numbers: Numbers, image: jax.Array, *, program: Program
) -> tuple[jax.Array, Terms, LayerLosses]:
    """Compute loss, terms and losses by layer of an image `[h, w, 3]`, or of a batch of images."""

    def value(
        network: Network, targets: Targets, numbers: Numbers, image: jax.Array
    ) -> tuple[jax.Array, Terms, LayerLosses]:
        recipe, rows = program.recipe, program.rows

        def of_weights(weights: LayerLosses) -> tuple[jax.Array, Terms]:
            weighted = numbers._replace(content_layers=weights.content, style_layers=weights.style)
            return make_objective(network, targets, recipe, numbers=weighted, rows=rows)(image)

        # The loss is linear in the layers' weights: a layer's part is its weight times the slope.
        weights = LayerLosses(numbers.content_layers, numbers.style_layers)
        (loss, terms), slopes = jax.value_and_grad(of_weights, has_aux=True)(weights)
        layers = jax.tree.map(operator.mul, weights, slopes)
        if STYLE_LOSSES[recipe.style_loss].is_joint:
            layers = layers._replace(style={})
        return loss, terms, layers

    return program.map_elements(value)(network, targets, numbers, image)
