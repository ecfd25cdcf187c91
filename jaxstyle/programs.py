"""The compiled programs of a run: its start, a chunk of steps, values of pictures.

Weights, targets and the recipe's numbers are arguments: closed over, they would be folded as
constants for minutes. Lanes are mapped here, and devices share them or the rows of a picture.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxstyle.bounds import BOUNDS
from jaxstyle.colours import with_chroma
from jaxstyle.objective import Objective, Targets, Terms, make_objective
from jaxstyle.optimisers import blank, carried, is_flat, make_optimiser
from jaxstyle.prepare import Job
from jaxstyle.recipe import Recipe
from jaxstyle.sharding import Lanes, Layout, Rows
from jaxstyle.tiles import part
from jaxstyle.vgg import Network, accelerated


class Best(NamedTuple):
    """The best point so far."""

    position: jax.Array
    loss: jax.Array
    terms: Terms


class Mean(NamedTuple):
    """The mean of the pictures so far, each step's share falling by a factor with every later."""

    total: jax.Array
    weight: jax.Array

    def add(self, image: jax.Array, decay: Any) -> "Mean":
        """Count one more picture."""
        return Mean(decay * self.total + (1 - decay) * image, decay * self.weight + (1 - decay))


class Carry(NamedTuple):
    """What a chunk takes from the one before."""

    state: Any
    best: Best
    """What the run gives: the best point, or, where it averages, the mean."""
    spent: jax.Array
    """Evaluations at smaller scales."""
    mean: Mean | None = None


Numbers = tuple[jax.Array, Terms]
"""Loss and terms after each step."""


class Axes(NamedTuple):
    """What of a batch has a lane axis besides the pictures: 0, or None where lanes share it."""

    targets: int | None
    recipe: int | None


Arguments = tuple[Network, Targets, Recipe]


def common_arguments(job: Job) -> tuple[Arguments, Axes | None]:
    """Give the programs' common arguments and, for a batch, their lane axes."""
    network = job.recipe.seen_by(job.network)
    # Devices that share rows exchange single rows; windows would want more of them.
    if not isinstance(job.layout, Rows):
        layers = tuple({**job.targets.content, **job.targets.style})
        parts = part(network, layers, *job.size, tile=job.recipe.tile)
        network = accelerated(network, layers, *parts)
    if len(job.start.shape) == 3:
        return (network, job.targets, job.recipe.for_program()), None
    recipe = job.recipe.for_program()
    if job.lanes:
        # On the host: a number a lane is no work for the device.
        recipe = jax.tree.map(
            lambda *numbers: np.stack([_number(n) for n in numbers]),
            *(lane.for_program() for lane in job.lanes),
        )
    axes = Axes(0 if job.own_targets else None, 0 if job.lanes else None)
    return (network, job.targets, recipe), axes


def _number(value: Any) -> np.ndarray:
    return np.asarray(value, np.int32 if isinstance(value, int) else np.float32)


def _lanes(function: Any, axes: Axes | None, layout: Layout | None) -> Any:
    """Map `function(shared, targets, recipe, x)` over lanes."""
    if axes is None:
        return function
    mapped = jax.vmap(function, in_axes=(None, *axes, 0))
    return layout.mapped(mapped, (None, *axes, 0)) if isinstance(layout, Lanes) else mapped


def _objective(network: Network, targets: Targets, recipe: Recipe, rows: Rows | None) -> Objective:
    """Give the objective of what the optimiser moves (`bounds`)."""
    of_picture = make_objective(network, targets, recipe, rows=rows)
    return lambda position: of_picture(BOUNDS[recipe.bounds].picture(position))


@partial(jax.jit, static_argnames=("axes", "layout"))
def values(
    network: Network,
    targets: Targets,
    recipe: Recipe,
    image: jax.Array,
    *,
    axes: Axes | None,
    layout: Layout | None,
) -> tuple[jax.Array, Terms]:
    """Evaluate the objective of a picture, or of a batch of them."""
    rows = layout if isinstance(layout, Rows) else None

    def value(
        network: Network, targets: Targets, recipe: Recipe, image: jax.Array
    ) -> tuple[jax.Array, Terms]:
        return make_objective(network, targets, recipe, rows=rows)(image)

    return _lanes(value, axes, layout)(network, targets, recipe, image)


def _kept(carry: Carry, layout: Layout | None) -> Carry:
    """Keep the state where its picture is: nothing else says so of what starts as zeros."""
    return layout.keep(carry, carry.best.position.shape[1]) if isinstance(layout, Rows) else carry


@partial(jax.jit, static_argnames=("shape", "axes", "layout"))
def begin(
    network: Network,
    targets: Targets,
    recipe: Recipe,
    start: jax.Array,
    *,
    shape: tuple[int, ...],
    axes: Axes | None,
    layout: Layout | None,
) -> Carry:
    """Begin the optimiser at the initial picture of `shape`, or at a batch of them.

    A start of another size is resized. Where the optimiser is flat nothing is evaluated: the first
    of `advance`'s steps does.
    """
    rows = layout if isinstance(layout, Rows) else None

    def init(network: Network, targets: Targets, recipe: Recipe, start: jax.Array) -> Carry:
        if start.shape != shape:
            start = jax.image.resize(start, shape, "lanczos3")
        # A copy, as the carry is donated and the caller keeps the start.
        position = jnp.copy(BOUNDS[recipe.bounds].position(start))
        optimiser = make_optimiser(recipe, rows=rows)
        if is_flat(recipe):
            state = blank(optimiser, position, Terms(*[jnp.zeros(())] * len(Terms._fields)))
        else:
            state = optimiser.init(_objective(network, targets, recipe, rows), position)
        # Typed as steps will leave it, or the second chunk would be compiled anew (optax's search).
        state = jax.tree.map(lambda x: jnp.asarray(x, x.dtype), state)
        point, mean = state.point, None
        if recipe.average is not None:
            mean = Mean(jnp.zeros_like(position), jnp.zeros(()))
            if not is_flat(recipe):
                mean = mean.add(BOUNDS[recipe.bounds].picture(position), recipe.average)
        best = Best(point.position, point.value, point.aux)
        return Carry(state, best, jnp.zeros((), jnp.int32), mean)

    return _kept(_lanes(init, axes, layout)(network, targets, recipe, start), layout)


@partial(jax.jit, static_argnames=("detailed", "shape"))
def enlarged(
    image: jax.Array,
    before: jax.Array,
    start: jax.Array,
    *,
    detailed: tuple[bool, ...],
    shape: tuple[int, ...],
) -> jax.Array:
    """Return where a larger scale starts: the result of the smaller one, resized.

    Where an image is `detailed` the difference between its initial image at this scale and the
    resized one of the smaller scale is added: the detail that the smaller scale could not hold,
    which would otherwise have to be found again from the content's deep features.

    Args:
      image: result of the smaller scale, `[h, w, 3]`, or a batch of them.
      before: initial images of the smaller scale.
      start: initial images of this one.
      detailed: a flag for each image.
      shape: of the result.
    """

    def resized(x: jax.Array) -> jax.Array:
        return jax.image.resize(x, shape, "lanczos3")

    flags = jnp.asarray(detailed).reshape(-1, 1, 1, 1)[(...,) if len(shape) == 4 else 0]
    return resized(image) + jnp.where(flags, start - resized(before), 0)


@partial(jax.jit, static_argnames=("axes", "layout"))
def hand_over(
    recipe: Recipe,
    before: Carry,
    begun: Carry,
    spent: jax.Array,
    *,
    axes: Axes | None,
    layout: Lanes | None,
) -> Carry:
    """Give a scale that has begun what the optimiser of the one before knows.

    Args:
      recipe: of both.
      before: where the smaller scale ended.
      begun: the larger one's start, evaluated.
      spent: evaluations up to the end of the smaller one.
      axes: of the batch.
      layout: of its lanes.
    """

    def given(_: None, __: None, recipe: Recipe, of: tuple[Carry, Carry, jax.Array]) -> Carry:
        before, begun, spent = of
        state = carried(before.state, begun.state, recipe)
        return begun._replace(state=state, spent=spent)

    return _lanes(given, axes, layout)(None, None, recipe, (before, begun, spent))


@partial(jax.jit, static_argnames=("axes", "layout", "most"), donate_argnums=(3,))
def advance(
    network: Network,
    targets: Targets,
    recipe: Recipe,
    carry: Carry,
    num_steps: ArrayLike,
    *,
    axes: Axes | None,
    layout: Layout | None,
    most: int,
) -> tuple[Carry, jax.Array, Terms]:
    """Run `num_steps` steps, at most `most`: an argument, so that a last, shorter chunk compiles
    nothing. The numbers of each step are in the first `num_steps` of `most` places."""
    rows = layout if isinstance(layout, Rows) else None

    def steps(
        shared: tuple[Network, ArrayLike], targets: Targets, recipe: Recipe, carry: Carry
    ) -> tuple[Carry, Numbers]:
        network, num_steps = shared
        objective, bounds = _objective(network, targets, recipe, rows), BOUNDS[recipe.bounds]
        optimiser = make_optimiser(recipe, rows=rows)

        def step(index: jax.Array, so_far: tuple[Carry, Numbers]) -> tuple[Carry, Numbers]:
            carry, numbers = so_far
            state, info = optimiser.step(objective, carry.state)
            point, best = state.point, carry.best
            # A value that is not a number is never better, so a diverged run keeps its best.
            better = (point.value < best.loss) | (carry.state.evaluations == 0)
            candidate = Best(point.position, point.value, point.aux)
            best = jax.tree.map(lambda new, old: jnp.where(better, new, old), candidate, best)
            image = bounds.picture(point.position)
            mean = carry.mean and carry.mean.add(image, recipe.average)
            found = info.value, info.aux
            numbers = jax.tree.map(lambda all, one: all.at[index].set(one), numbers, found)
            return _kept(Carry(state, best, carry.spent, mean), layout), numbers

        one = carry.best.loss, carry.best.terms
        empty = jax.tree.map(lambda number: jnp.zeros(most, number.dtype), one)
        after, numbers = jax.lax.fori_loop(0, num_steps, step, (carry, empty))
        if after.mean is None:
            return after, numbers
        position = bounds.position(after.mean.total / after.mean.weight)
        loss, terms = objective(position)
        # Of a run that diverged the last mean that was a picture.
        finite, mean = jnp.isfinite(loss), Best(position, loss, terms)
        best = jax.tree.map(lambda new, old: jnp.where(finite, new, old), mean, carry.best)
        return after._replace(best=best), numbers

    carry, (losses, terms) = _lanes(steps, axes, layout)(
        (network, num_steps), targets, recipe, carry
    )
    return carry, losses, terms


def started(
    arguments: Arguments,
    start: jax.Array,
    *,
    shape: tuple[int, ...],
    axes: Axes | None,
    layout: Layout | None,
    most: int,
) -> tuple[Carry, jax.Array, Terms]:
    """Begin at a picture and evaluate it, in the program that `advance` is."""
    carry = begin(*arguments, start, shape=shape, axes=axes, layout=layout)
    if is_flat(arguments[2]):
        made: tuple[Carry, jax.Array, Terms] = advance(
            *arguments, carry, 1, axes=axes, layout=layout, most=most
        )
        return made
    best = carry.best
    return carry, best.loss[..., None], jax.tree.map(lambda term: term[..., None], best.terms)


@partial(jax.jit, static_argnames=("bounds",))
def as_saved(position: jax.Array, chroma: jax.Array | None, *, bounds: str) -> jax.Array:
    """Give the picture that a position stands for, clipped as a file needs it.

    Args:
      position: what the optimiser moves.
      chroma: the picture whose colours it takes, if any.
      bounds: key of `BOUNDS`.
    """
    image = BOUNDS[bounds].picture(position)
    return jnp.clip(image, 0, 1) if chroma is None else with_chroma(image, chroma)


def carry_form(job: Job) -> Any:
    """Give the pytree of shapes and types that a `RunState.carry` of this job's last scale has."""
    arguments, axes = common_arguments(job)
    make = partial(begin, shape=job.start.shape[-3:], axes=axes, layout=job.layout)
    return jax.eval_shape(make, *arguments, job.start)


def lowered(job: Job, *, every: int = 1) -> jax.stages.Lowered:
    """Lower the program that runs a chunk of a job's last scale, whose arrays may be mere shapes.

    Args:
      job: leaves may be `jax.ShapeDtypeStruct`s.
      every: most steps a chunk.

    Returns:
      What `compile()` turns into a program that tells its memory.
    """
    arguments, axes = common_arguments(job)
    form = carry_form(job)
    if job.layout is not None:
        form = job.layout.form(form, job.size[1])
    return advance.lower(*arguments, form, every, axes=axes, layout=job.layout, most=every)
