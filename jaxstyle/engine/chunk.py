"""The compiled programs of a run: the initial state, a chunk of steps, the next scale."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import layout as memory_layout
from jax.typing import ArrayLike

from jaxstyle.config.numbers import Numbers
from jaxstyle.engine.program import (
    Arguments,
    Best,
    Carry,
    Losses,
    Mean,
    Program,
    make_position_objective,
)
from jaxstyle.images.color_transfer import with_chroma
from jaxstyle.images.pixel_range import BOUNDS
from jaxstyle.losses.objective import Terms
from jaxstyle.losses.targets import Targets
from jaxstyle.nn.network import Network
from jaxstyle.nn.sharding import SpatialSharding
from jaxstyle.optim.base import unevaluated_state, where
from jaxstyle.optim.registry import carry_over, evaluates_once_per_step, make_optimizer


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

    return lax.platform_dependent(
        carry, tpu=partial(jax.tree.map, with_layout), default=lambda carry: carry
    )


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

    An initial image of another size is resized. If `evaluates_once_per_step(recipe)`, the objective
    is evaluated in the first step of `run_chunk` instead of here.
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
        if evaluates_once_per_step(recipe):
            state = unevaluated_state(
                optimizer, position, Terms(*[jnp.zeros((), jnp.float32)] * len(Terms._fields))
            )
        else:
            state = optimizer.init(
                make_position_objective(network, targets, numbers, program), position
            )
        # Strong types, as after a step; otherwise optax's line search would be compiled twice.
        state = jax.tree.map(lambda x: jnp.asarray(x, x.dtype), state)
        point, mean = state.point, None
        if numbers.average is not None:
            mean = Mean(jnp.zeros_like(position), jnp.zeros((), position.dtype))
            if not evaluates_once_per_step(recipe):
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
        objective = make_position_objective(network, targets, numbers, program)
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
            best = where(better, Best(point.position, point.value, point.aux), best)
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
        best = where(jnp.isfinite(loss), Best(position, loss, terms), carry.best)
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
    if evaluates_once_per_step(program.recipe):
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
