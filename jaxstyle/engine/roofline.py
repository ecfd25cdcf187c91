"""A lower bound of the time of a step on an accelerator, from its published peaks (a roofline)."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxstyle.config.accelerators import Accelerator
from jaxstyle.config.layers import convolution_of
from jaxstyle.config.numbers import Numbers
from jaxstyle.config.recipe import Recipe
from jaxstyle.engine.problem import Problem
from jaxstyle.losses.objective import make_objective
from jaxstyle.losses.statistics import network_layers
from jaxstyle.losses.targets import Targets
from jaxstyle.nn.geometry import map_size
from jaxstyle.nn.network import Network

MAP_PASSES = 5
"""Times that each feature map is read from or written to memory in an evaluation: written and read
by the forward pass, its gradient written and read, and the map read for the gradient of ReLU and
pooling."""


class StepCost(NamedTuple):
    """The cost of one step: one evaluation of the objective and its gradient."""

    flops: float
    """Floating-point operations of all images of the batch."""
    bytes: float
    """Estimated bytes read from and written to memory."""
    seconds: float
    """Lower bound of the time: the larger of the times of both at the accelerator's peaks."""


def step_cost(problem: Problem, accelerator: Accelerator) -> StepCost:
    """Compute the cost of a step on an accelerator.

    XLA counts the operations of the program before it is compiled; the bytes are those of the
    feature maps (`MAP_PASSES`) and of the L-BFGS history, which a step reads twice.

    Args:
      problem: the problem of the last scale; arrays or `jax.ShapeDtypeStruct`s.
      accelerator: one of `ACCELERATORS`.
    """
    recipe = problem.recipe
    image = jax.ShapeDtypeStruct(problem.start.shape[-3:], jnp.float32)
    flops = problem.batch_size * _flops(problem, image)
    pixels = math.prod(image.shape[:2])
    moved = MAP_PASSES * map_bytes(problem.network, recipe, *image.shape[:2])
    moved += 2 * 2 * recipe.lbfgs_pairs * 12 * pixels
    moved *= problem.batch_size
    peak = getattr(accelerator, recipe.precision)
    return StepCost(flops, moved, max(flops / peak, moved / accelerator.bandwidth))


def _flops(problem: Problem, image: jax.ShapeDtypeStruct) -> float:
    """Return the floating-point operations of an evaluation, as XLA counts them."""
    recipe = problem.recipe

    def evaluate(network: Network, targets: Targets, image: jax.Array) -> Any:
        objective = make_objective(network, targets, recipe, numbers=Numbers.of(recipe))
        return jax.value_and_grad(objective, has_aux=True)(image)

    network = recipe.configure_network(problem.network)
    cost: Any = jax.jit(evaluate).lower(network, problem.targets, image).cost_analysis()
    return float(cost["flops"])


def map_bytes(
    network: Network, recipe: Recipe, height: int, width: int, *, channel_multiple: int = 1
) -> float:
    """Return the bytes of one image's feature maps up to the deepest layer of a recipe.

    Args:
      network: weights; only their shapes are used.
      recipe: resolved settings.
      height: height of the image in pixels.
      width: width of the image in pixels.
      channel_multiple: channels are padded to a multiple of this.
    """
    layers = network_layers(recipe)
    deepest = max(network.layers.index(convolution_of(layer)) for layer in layers)
    each = 2 if recipe.precision == "bfloat16" else 4
    of_pyramid = sum(4.0**-level for level in range(recipe.pyramid or 1))
    return of_pyramid * sum(
        each
        * math.prod(map_size(layer, height, width, pooling=recipe.pooling))
        * -(-network.channels(layer) // channel_multiple)
        * channel_multiple
        for layer in network.layers[: deepest + 1]
    )
