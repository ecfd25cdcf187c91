"""The compiled programs of a run: the initial state, a chunk of steps, values of the objective.

Weights, targets and the numbers of the recipe are arguments of these programs: as constants, the
compiler would spend minutes folding them. This module also maps programs over batch elements and
shards them over devices.
"""

import operator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import layout as memory_layout
from jax.sharding import SingleDeviceSharding
from jax.typing import ArrayLike

from jaxstyle.config.numbers import Numbers, static_part
from jaxstyle.config.recipe import Recipe
from jaxstyle.engine.problem import Problem
from jaxstyle.images.color_transfer import with_chroma
from jaxstyle.images.pixel_range import BOUNDS
from jaxstyle.losses.objective import (
    LayerLosses,
    Objective,
    Targets,
    Terms,
    make_objective,
    network_layers,
)
from jaxstyle.losses.style_losses import STYLE_LOSSES
from jaxstyle.nn.network import Network
from jaxstyle.nn.sharding import BatchSharding, Layout, SpatialSharding
from jaxstyle.nn.tiling import window_size
from jaxstyle.nn.vgg import add_winograd_kernels
from jaxstyle.optim.base import blank
from jaxstyle.optim.registry import carry_over, is_flat, make_optimizer


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
        batched=len(problem.start.shape) == 4,
        own_targets=problem.own_targets,
        own_numbers=bool(problem.elements),
        layout=problem.layout,
        platform=platform,
    )
    return (network, problem.targets, problem.numbers), program


def _objective(network: Network, targets: Targets, numbers: Numbers, program: Program) -> Objective:
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


def _constrained(carry: Carry, rows: SpatialSharding | None) -> Carry:
    """Return the carry constrained to the sharding of the image's rows."""
    return rows.constrain(carry, carry.best.position.shape[1]) if rows else carry


def _compact(carry: Carry) -> Carry:
    """Return the carry with its images' rows and columns innermost in the memory of a TPU.

    Otherwise the compiler puts the three channels innermost in the loop and pads them to 128.
    """

    def with_layout(leaf: jax.Array) -> jax.Array:
        if leaf.shape[-3:] != carry.best.position.shape:
            return leaf
        *others, rows, columns, channels = range(leaf.ndim)
        order = memory_layout.Layout((*others, channels, rows, columns))
        return memory_layout.with_layout_constraint(leaf, order)

    def on_tpu(carry: Carry) -> Carry:
        return jax.tree.map(with_layout, carry)

    return lax.platform_dependent(carry, tpu=on_tpu, default=lambda carry: carry)


@partial(jax.jit, static_argnames=("shape", "program"))
def init_carry(
    network: Network,
    targets: Targets,
    numbers: Numbers,
    start: jax.Array,
    *,
    shape: tuple[int, ...],
    program: Program,
) -> Carry:
    """Build the state of a run at an initial image of `shape`, or at a batch of images.

    An initial image of another size is resized. If `is_flat(recipe)`, the objective is evaluated in
    the first step of `run_chunk` instead of here.
    """
    recipe = program.recipe

    def init(network: Network, targets: Targets, numbers: Numbers, start: jax.Array) -> Carry:
        if start.shape != shape:
            start = jax.image.resize(start, shape, "lanczos3")
        # A copy, as the carry is donated and the caller keeps `start`.
        position = jnp.copy(BOUNDS[recipe.bounds].position(start))
        optimizer = make_optimizer(
            recipe, numbers=numbers, rows=program.rows, platform=program.platform
        )
        if is_flat(recipe):
            state = blank(
                optimizer, position, Terms(*[jnp.zeros((), jnp.float32)] * len(Terms._fields))
            )
        else:
            state = optimizer.init(_objective(network, targets, numbers, program), position)
        # Strong types, as after a step; otherwise optax's line search would be compiled twice.
        state = jax.tree.map(lambda x: jnp.asarray(x, x.dtype), state)
        point, mean = state.point, None
        if numbers.average is not None:
            mean = Mean(jnp.zeros_like(position), jnp.zeros((), position.dtype))
            if not is_flat(recipe):
                mean = mean.add(BOUNDS[recipe.bounds].image(position), numbers.average)
        best = Best(point.position, point.value, point.aux)
        return Carry(state, best, jnp.zeros((), jnp.int32), mean)

    return _constrained(program.map_elements(init)(network, targets, numbers, start), program.rows)


@partial(jax.jit, static_argnames=("detailed", "shape"))
def next_scale_start(
    image: jax.Array,
    before: jax.Array,
    start: jax.Array,
    *,
    detailed: tuple[bool, ...],
    shape: tuple[int, ...],
) -> jax.Array:
    """Compute the initial image of a larger scale: the resized result of the smaller one.

    If an image is `detailed`, the high frequencies of its initial image are added: the difference
    between the initial images of the two scales, which the smaller one could not represent and the
    optimizer would have to recover from deep features.

    Args:
      image: result of the smaller scale, `[h, w, 3]`, or a batch of results.
      before: initial images of the smaller scale.
      start: initial images of the larger scale.
      detailed: a flag for each image.
      shape: shape of the result.
    """

    def resized(x: jax.Array) -> jax.Array:
        return jax.image.resize(x, shape, "lanczos3")

    flags = jnp.asarray(detailed).reshape(-1, 1, 1, 1)[(...,) if len(shape) == 4 else 0]
    return resized(image) + jnp.where(flags, start - resized(before), 0)


@partial(jax.jit, static_argnames=("program",), donate_argnums=(1,))
def transfer_state(before: Carry, fresh: Carry, spent: jax.Array, *, program: Program) -> Carry:
    """Return the state of a larger scale with the optimizer's history of the smaller one.

    Args:
      before: state at the end of the smaller scale.
      fresh: state at the start of the larger scale; donated.
      spent: evaluations up to the end of the smaller scale.
      program: static arguments of the larger scale.
    """

    def transfer(_: None, __: None, ___: None, states: tuple[Carry, Carry, jax.Array]) -> Carry:
        before, fresh, spent = states
        state = carry_over(before.state, fresh.state, program.recipe)
        return fresh._replace(state=state, spent=spent)

    return program.map_elements(transfer)(None, None, None, (before, fresh, spent))


@partial(jax.jit, static_argnames=("program", "max_steps"), donate_argnums=(3,))
def run_chunk(
    network: Network,
    targets: Targets,
    numbers: Numbers,
    carry: Carry,
    num_steps: ArrayLike,
    *,
    program: Program,
    max_steps: int,
) -> tuple[Carry, jax.Array, Terms]:
    """Run a chunk of `num_steps` steps, at most `max_steps`.

    The number of steps is traced, so that a shorter last chunk does not recompile.

    Returns:
      The state after the chunk, and the loss and terms of each step in the first `num_steps` of
      `max_steps` entries.
    """
    rows, bounds = program.rows, BOUNDS[program.recipe.bounds]

    def steps(
        shared: tuple[Network, ArrayLike], targets: Targets, numbers: Numbers, carry: Carry
    ) -> tuple[Carry, Losses]:
        network, num_steps = shared
        objective = _objective(network, targets, numbers, program)
        optimizer = make_optimizer(
            program.recipe, numbers=numbers, rows=rows, platform=program.platform
        )

        def step(index: jax.Array, loop: tuple[Carry, Losses]) -> tuple[Carry, Losses]:
            carry, losses = loop
            carry = _compact(carry)
            state, info = optimizer.step(objective, carry.state)
            point, best = state.point, carry.best
            # NaN compares false, so a diverged run keeps its best point.
            better = (point.value < best.loss) | (carry.state.evaluations == 0)
            candidate = Best(point.position, point.value, point.aux)
            best = jax.tree.map(lambda new, old: jnp.where(better, new, old), candidate, best)
            image = bounds.image(point.position)
            mean = carry.mean and carry.mean.add(image, numbers.average)
            evaluated = info.value, info.aux
            losses = jax.tree.map(lambda past, new: past.at[index].set(new), losses, evaluated)
            return _compact(_constrained(Carry(state, best, carry.spent, mean), rows)), losses

        initial = carry.best.loss, carry.best.terms
        empty = jax.tree.map(lambda number: jnp.zeros(max_steps, number.dtype), initial)
        after, losses = lax.fori_loop(0, num_steps, step, (carry, empty))
        if after.mean is None:
            return after, losses
        position = bounds.position(after.mean.total / after.mean.weight)
        loss, terms = objective(position)
        # A diverged run keeps its last finite average.
        finite, mean = jnp.isfinite(loss), Best(position, loss, terms)
        best = jax.tree.map(lambda new, old: jnp.where(finite, new, old), mean, carry.best)
        return after._replace(best=best), losses

    carry, (losses, terms) = program.map_elements(steps)(
        (network, num_steps), targets, numbers, carry
    )
    return carry, losses, terms


def start_run(
    arguments: Arguments,
    start: jax.Array,
    *,
    shape: tuple[int, ...],
    program: Program,
    max_steps: int,
) -> tuple[Carry, jax.Array, Terms]:
    """Build the state of a run at an image and evaluate it, in the program of `run_chunk`."""
    carry = init_carry(*arguments, start, shape=shape, program=program)
    if is_flat(program.recipe):
        evaluated: tuple[Carry, jax.Array, Terms] = run_chunk(
            *arguments, carry, 1, program=program, max_steps=max_steps
        )
        return evaluated
    best = carry.best
    return carry, best.loss[..., None], jax.tree.map(lambda term: term[..., None], best.terms)


@partial(jax.jit, static_argnames=("bounds",))
def clipped_image(position: jax.Array, chroma: jax.Array | None, *, bounds: str) -> jax.Array:
    """Return the image of the optimizer's variables, clipped to [0, 1].

    Args:
      position: variables of the optimizer, `[h, w, 3]`, with a batch axis or without.
      chroma: image whose chroma the result takes, if any.
      bounds: key of `BOUNDS`.
    """
    image = BOUNDS[bounds].image(position)
    return jnp.clip(image, 0, 1) if chroma is None else with_chroma(image, chroma)


def carry_shapes(problem: Problem, *, platform: str | None = None) -> Any:
    """Return the shapes and types of `RunState.carry` at the last scale of a problem."""
    arguments, program = common_arguments(problem, platform=platform)
    make = partial(init_carry, shape=problem.start.shape[-3:], program=program)
    return jax.eval_shape(make, *arguments, problem.start)


def lower(
    problem: Problem,
    *,
    chunk_size: int = 1,
    device: jax.Device | None = None,
    direct: bool = False,
) -> jax.stages.Lowered:
    """Return the lowered program of a chunk of the last scale of a problem.

    Args:
      problem: arrays or `jax.ShapeDtypeStruct`s.
      chunk_size: largest number of steps of a chunk.
      device: device to compile for, which may be absent (`jax.experimental.topologies`); the
        default device, or those of the problem's layout, if not given.
      direct: whether to leave out the Winograd kernels that only CPUs have, to compute the memory
        of other devices on a CPU.
    """
    platform = _platform(device)
    arguments, program = common_arguments(problem, platform=platform)
    if direct:
        arguments, _ = common_arguments(problem, platform="gpu")
    form = carry_shapes(problem, platform=platform)
    if problem.layout is not None:
        form = problem.layout.with_shardings(form, problem.size[1])
    inputs: Any = (*arguments, form, chunk_size)
    if device is not None:
        place = SingleDeviceSharding(device)
        inputs = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(
                jnp.shape(leaf), jnp.result_type(leaf), sharding=place
            ),
            inputs,
        )
    traced = run_chunk.trace(*inputs, program=program, max_steps=chunk_size)
    return traced.lower(lowering_platforms=(platform,) if platform else None)


def _platform(device: jax.Device | None) -> str | None:
    """Return the platform that a device's programs are lowered for."""
    if device is None:
        return None
    return "cuda" if device.platform == "gpu" else device.platform


def compile_scale(
    arguments: Arguments, program: Program, before: Problem, scale: Problem, *, max_steps: int
) -> None:
    """Compile the programs of a larger scale in advance, for one device.

    JAX's cache then returns them for arguments of the same shapes. May be called in a thread while
    the smaller scale runs.

    Args:
      arguments: arguments of the larger scale (`common_arguments`).
      program: static arguments of the larger scale.
      before: problem of the smaller scale.
      scale: problem of the larger scale.
      max_steps: largest number of steps of a chunk.
    """
    small, large = (
        jax.ShapeDtypeStruct(problem.start.shape, problem.start.dtype)
        for problem in (before, scale)
    )
    next_scale_start.lower(
        small, small, large, detailed=scale.detailed, shape=large.shape
    ).compile()  # fmt: skip
    init_carry.lower(*arguments, large, shape=large.shape[-3:], program=program).compile()
    carry, carry_before = (
        jax.eval_shape(
            partial(init_carry, shape=form.shape[-3:], program=program), *arguments, form
        )
        for form in (large, small)
    )
    run_chunk.lower(*arguments, carry, 1, program=program, max_steps=max_steps).compile()
    spent = jax.ShapeDtypeStruct(large.shape[:-3], jnp.int32)
    transfer_state.lower(carry_before, carry, spent, program=program).compile()
    clipped_image.lower(carry.best.position, scale.chroma, bounds=scale.recipe.bounds).compile()
