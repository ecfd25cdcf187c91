"""The run: from pictures and a recipe to a stylized picture, in compiled chunks of steps.

`iterates` is a generator that runs the optimiser on the device and yields a picture and
its numbers between chunks. Bars, snapshots, early stopping and files live in the loop
of the caller. `stylize` is that loop with nothing in it.
"""

import dataclasses
import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxstyle import images
from jaxstyle.bounds import BOUNDS
from jaxstyle.colours import with_chroma
from jaxstyle.divergence import diverged
from jaxstyle.masks import Masks
from jaxstyle.objective import Objective, Targets, Terms, compute_targets, make_objective
from jaxstyle.optimisers import make_optimiser
from jaxstyle.prepare import Job, picture, prepare, style_pictures
from jaxstyle.recipe import Recipe
from jaxstyle.vgg import Network


class History(NamedTuple):
    """The objective after each step, arrays `[steps + 1]` (lane first in a batch)."""

    step: np.ndarray
    """0 is the initial picture."""
    loss: np.ndarray
    content: np.ndarray
    style: np.ndarray
    tv: np.ndarray


class Iterate(NamedTuple):
    """What `iterates` yields between chunks. In a batch every array has the lane axis first."""

    step: int
    image: jax.Array
    """The best picture so far, RGB `[h, w, 3]` in [0, 1]: clipped, as it would be saved. The mean
    so far where the recipe averages."""
    loss: np.ndarray
    """Of the best picture so far, before the clipping that `bounds` of "none" need."""
    terms: Terms
    evaluations: np.ndarray
    """Evaluations of the objective and its gradient so far."""
    history: History
    """Of the steps since the last iterate."""
    compile_seconds: float
    """Spent on tracing and compiling since the last iterate."""
    run_seconds: float
    """Spent on running since the last iterate."""
    carry: Any = None
    """Everything on the device; valid until the generator goes on (`run_state` keeps it)."""


class RunState(NamedTuple):
    """Where a run stands between two chunks, on the host: all that it takes to go on."""

    step: int
    carry: Any
    """State of the optimiser and best point, in a pytree of the form `carry_form` gives."""
    history: History
    """From step 0 on."""
    compile_seconds: float
    run_seconds: float


class Result(NamedTuple):
    """A finished picture and how it came about."""

    image: np.ndarray
    """RGB `[h, w, 3]`, float32, in [0, 1]."""
    loss: float
    """Of `image` itself. The optimiser may leave [0, 1]; the history is of its own points."""
    terms: Terms
    initial_loss: float
    initial_terms: Terms
    history: History
    steps: int
    evaluations: int
    compile_seconds: float
    run_seconds: float
    recipe: Recipe
    """Every setting, resolved."""
    diverged: bool = False
    """Whether the run was stopped as its loss exploded; `image` is still the best one seen."""


class _Best(NamedTuple):
    position: jax.Array
    loss: jax.Array
    terms: Terms


class _Mean(NamedTuple):
    """The mean of the pictures so far, each step's share falling by a factor with every later."""

    total: jax.Array
    weight: jax.Array

    def add(self, image: jax.Array, decay: Any) -> "_Mean":
        return _Mean(decay * self.total + (1 - decay) * image, decay * self.weight + (1 - decay))


class _Carry(NamedTuple):
    state: Any
    best: _Best
    """What the run gives: the best point, or, where it averages, the mean."""
    spent: jax.Array
    """Evaluations at smaller scales."""
    mean: _Mean | None = None


_Numbers = tuple[jax.Array, Terms]
"""Loss and terms after each step."""


def iterates(
    job: Job, *, every: int | None = None, state: RunState | None = None
) -> Iterator[Iterate]:
    """Run the optimiser, yielding the initial picture and then one iterate a chunk.

    The loop may stop at any time; the last iterate holds the best picture. Everything stays
    on the device but the numbers. The last scale ends early when every lane has diverged.

    Args:
      job: from `prepare`.
      every: steps a chunk; fewer in the last if it does not divide the recipe's steps. Chosen
        from the picture's size if not given.
      state: where an earlier run of this job stood (`run_state`): it goes on from there as if it
        had never stopped; the first iterate is then that of `state`, with all its history.

    With several scales it goes through all of them, smallest first, and steps are counted on: the
    pictures of iterates grow, and losses are each of their own scale's objective.

    Yields:
      `Iterate` at step 0 (or `state.step`) and at the multiples of `every` after it, and at
      the end of each scale.
    """
    latest: Iterate | None = None
    level = 0 if state is None else _level(job, state.step)
    for number, scale in list(enumerate(job.scales))[level:]:
        last = number == len(job.coarser)
        scale_run = _descend(scale, number, latest, every=every, state=state, last=last)
        for iterate in scale_run:
            latest = iterate
            yield iterate
        state = None


def _level(job: Job, step: int) -> int:
    """The scale that a step belongs to."""
    return min(max(0, -(-step // job.recipe.steps) - 1), len(job.coarser))


def _descend(
    job: Job,
    number: int,
    latest: Iterate | None,
    *,
    every: int | None,
    state: RunState | None,
    last: bool,
) -> Iterator[Iterate]:
    """Run one scale: from `state`, from its start, or from the last iterate of the one before."""
    recipe = job.recipe
    usual = default_every(job.start)
    every = every or usual
    # One program for all chunks that are no longer than usual.
    most = max(every, usual)
    arguments, axes = _program(job)
    clock = time.perf_counter()
    begun = number * recipe.steps

    def lap() -> float:
        nonlocal clock
        elapsed, clock = time.perf_counter() - clock, time.perf_counter()
        return elapsed

    def iterate(step: int, past: History | int, losses: Any = (), terms: Any = ()) -> Iterate:
        # `past`: how many of the numbers given are of the steps since the last iterate.
        compile_seconds = lap()
        # Read what donation will invalidate before the next chunk is queued.
        image = _as_saved(carry.best.position, job.chroma, bounds=recipe.bounds)
        best, losses, terms, evaluations, spent = jax.device_get(
            (carry.best._replace(position=0), losses, terms, carry.state.evaluations, carry.spent)
        )
        if isinstance(past, int):
            numbers = (of_steps[..., :past] for of_steps in (losses, *terms))
            past = History(np.arange(step + 1 - past, step + 1), *numbers)
        return Iterate(
            step, image, best.loss, best.terms, evaluations + spent, past, compile_seconds,
            lap(), carry,
        )  # fmt: skip

    # A call returns when its program is traced, compiled and queued; waiting is running.
    initial, gone, done = None, np.zeros(job.start.shape[:-3], bool), begun
    if state is not None:
        # Copies, as the carry is donated and the caller keeps the state.
        carry = jax.tree.map(lambda x: jnp.array(x, copy=True), state.carry)
        first = iterate(state.step, state.history)
        latest = first._replace(
            compile_seconds=state.compile_seconds, run_seconds=state.run_seconds
        )
    elif latest is None:
        carry = _start(*arguments, job.start, axes=axes)
        best = carry.best
        latest = iterate(0, 1, best.loss[..., None], [term[..., None] for term in best.terms])
    else:
        spent = jnp.asarray(latest.evaluations, jnp.int32)
        carry = _carried(
            *arguments, latest.carry, latest.image, spent, shape=job.start.shape[-3:], axes=axes
        )
    if number == 0 or state is not None:
        so_far = latest.history.loss[..., begun + min(number, 1) :]
        initial, done = so_far[..., 0], latest.step
        gone = diverged(initial, so_far)
        yield latest
    while done < begun + recipe.steps and not (last and gone.all()):
        # On multiples of `every`, also from a state that is not on one.
        num_steps = min(every - done % every, begun + recipe.steps - done)
        lap()
        carry, losses, terms = _advance(*arguments, carry, num_steps, axes=axes, most=most)
        done += num_steps
        before, latest = latest, iterate(done, num_steps, losses, terms)
        if gone.any():
            latest = _without(gone, before, latest)
        # The start of a larger scale is no step: the first one stands for it.
        initial = latest.history.loss[..., 0] if initial is None else initial
        gone = gone | diverged(initial, latest.history.loss)
        yield latest


def _without(gone: np.ndarray, before: Iterate, latest: Iterate) -> Iterate:
    """Leave the lanes that have diverged as they were: alone they would have ended there."""

    def kept(old: Any, new: Any) -> Any:
        lanes = gone.reshape(-1, *[1] * (np.ndim(new) - 1))
        return (jnp if isinstance(new, jax.Array) else np).where(lanes, old, new)

    return latest._replace(
        image=kept(before.image, latest.image),
        loss=kept(before.loss, latest.loss),
        terms=Terms(*map(kept, before.terms, latest.terms)),
        evaluations=kept(before.evaluations, latest.evaluations),
    )


def run_state(seen: Sequence[Iterate]) -> RunState:
    """Take a run's state to the host, to be kept and gone on from.

    Args:
      seen: the iterates so far, in order; the last one still with its `carry`.
    """
    joined = [np.concatenate(parts, -1) for parts in zip(*(i.history for i in seen), strict=True)]
    return RunState(
        step=seen[-1].step,
        carry=jax.device_get(seen[-1].carry),
        history=History(*joined),
        compile_seconds=sum(i.compile_seconds for i in seen),
        run_seconds=sum(i.run_seconds for i in seen),
    )


def carry_form(job: Job, *, step: int = 0) -> Any:
    """Give the pytree of shapes and types that a `RunState.carry` of this job has at a step."""
    scale = job.scales[_level(job, step)]
    arguments, axes = _program(scale)
    return jax.eval_shape(partial(_start, axes=axes), *arguments, scale.start)


def lowered(job: Job, *, every: int = 1) -> jax.stages.Lowered:
    """Lower the program that runs a chunk of a job's last scale, whose arrays may be mere shapes.

    Args:
      job: leaves may be `jax.ShapeDtypeStruct`s.
      every: most steps a chunk.

    Returns:
      What `compile()` turns into a program that tells its memory.
    """
    arguments, axes = _program(job)
    form = jax.eval_shape(partial(_start, axes=axes), *arguments, job.start)
    return _advance.lower(*arguments, form, every, axes=axes, most=every)


def default_every(start: ArrayLike) -> int:
    """Choose the steps a chunk: five, fewer for pictures so large that a person would wait."""
    pixels = int(np.prod(np.shape(start)[:-1]))
    return max(1, min(5, 2**20 // pixels))


def finish(job: Job, seen: Sequence[Iterate]) -> list[Result]:
    """Make results of the iterates seen so far, one a lane; also after an interruption.

    The picture is clipped to [0, 1], as a file needs it, and its loss is that of the
    clipped picture (one more evaluation).

    Args:
      job: what `iterates` was given.
      seen: the iterates that it yielded, in order, at least one; earlier pictures are not used.
    """
    recipe, start = job.recipe, job.start
    batched = start.ndim == 4
    last = seen[-1]
    level = _level(job, last.step)
    arguments, axes = _program(job.scales[level])
    pictures, losses, terms = jax.device_get(
        (last.image, *_values(*arguments, last.image, axes=axes))
    )

    def lane(tree: Any, k: int) -> Any:
        return jax.tree.map(lambda x: x[k], tree) if batched else tree

    results = []
    for k in range(len(start) if batched else 1):
        parts = [History(i.history.step, *(lane(h, k) for h in i.history[1:])) for i in seen]
        past, gone = _until_divergence(parts, level * recipe.steps + min(level, 1))
        results.append(
            Result(
                image=lane(pictures, k),
                loss=float(lane(losses, k)),
                terms=Terms(*(float(lane(term, k)) for term in terms)),
                initial_loss=float(past.loss[0]),
                initial_terms=Terms(*(float(term[0]) for term in past[2:])),
                history=past,
                steps=int(past.step[-1]),
                evaluations=int(lane(last.evaluations, k)),
                compile_seconds=sum(i.compile_seconds for i in seen),
                run_seconds=sum(i.run_seconds for i in seen),
                recipe=job.lanes[k]
                if job.lanes
                else dataclasses.replace(recipe, seed=recipe.seed + k),
                diverged=gone,
            )
        )
    return results


def _until_divergence(parts: Sequence[History], first: int) -> tuple[History, bool]:
    """Join a lane's history up to the chunk of its last scale in which it diverges.

    However long the others of its batch go on.

    Args:
      parts: a chunk each, from step 0.
      first: step whose loss is what the scale is measured by.
    """
    kept: list[History] = []
    initial, gone = None, False
    for part in parts:
        kept.append(part)
        losses = part.loss[part.step >= first]
        if losses.size:
            initial = losses[0] if initial is None else initial
            if gone := bool(diverged(initial, losses)):
                break
    return History(*map(np.concatenate, zip(*kept, strict=True))), gone


def stylize(
    content: ArrayLike,
    style: ArrayLike | Sequence[ArrayLike],
    *,
    recipe: Recipe,
    network: Network,
    start: ArrayLike | str | None = None,
    masks: Masks | None = None,
) -> Result:
    """Paint the content picture in the style of another.

    Args:
      content: RGB `[h, w, 3]` in [0, 1].
      style: one such picture or several, of any size.
      recipe: the settings, e.g. `jaxstyle.presets["default"]`.
      network: weights, from `jaxstyle.load_network`.
      start: initial picture instead of the recipe's `init`.
      masks: where the content is kept and which region takes which style; needed where the recipe
        names files of masks.

    Returns:
      `Result`; its `image` has the content's proportions and a longest side of at most
      `recipe.size`.

    Raises:
      JaxstyleError: what does not fit, by name.

    Example:
      >>> import numpy as np
      >>> import jaxstyle
      >>> network = jaxstyle.load_network("compact")
      >>> content, style = np.random.default_rng(0).random((2, 32, 32, 3), np.float32)
      >>> result = jaxstyle.stylize(
      ...     content, style, recipe=jaxstyle.Recipe(steps=2), network=network
      ... )
      >>> result.image.shape
      (32, 32, 3)
    """
    job = prepare(content, style, recipe=recipe, network=network, start=start, masks=masks)
    return finish(job, _seen(iterates(job)))[0]


def stylize_batch(
    content: ArrayLike,
    style: ArrayLike | Sequence[ArrayLike],
    *,
    recipe: Recipe,
    network: Network,
    starts: Sequence[ArrayLike | str] | int,
    masks: Masks | None = None,
) -> list[Result]:
    """Stylize from several initial pictures at once: one vmapped program, a lane each.

    Args:
      content: as in `stylize`.
      style: as in `stylize`.
      recipe: the settings of all lanes; lane i has seed `recipe.seed + i`.
      network: weights.
      starts: the number of lanes that start after `recipe.init`; or one start a lane,
        each a picture or one of `"content"`, `"noise"`, `"style"`, mixed as you like.
      masks: as in `stylize`.

    Returns:
      One `Result` a lane, in order.

    Raises:
      JaxstyleError: what does not fit, by name.
    """
    lanes = [recipe.init] * starts if isinstance(starts, int) else starts
    job = prepare(content, style, recipe=recipe, network=network, lanes=lanes, masks=masks)
    return finish(job, _seen(iterates(job)))


def evaluate(
    image: ArrayLike,
    content: ArrayLike,
    styles: ArrayLike | Sequence[ArrayLike],
    *,
    recipe: Recipe,
    network: Network,
    masks: Masks | None = None,
) -> tuple[float, Terms]:
    """Score any picture under a recipe: its loss and the weighted terms.

    The content picture is resized to the image's size; the style pictures keep theirs,
    bounded by `recipe.size`.
    """
    recipe = recipe.resolved(network)
    image = picture(image, "image")
    content = images.resize(picture(content, "content"), *image.shape[:2])
    shrunk = style_pictures(styles, recipe)
    targets = compute_targets(network, jnp.asarray(content), shrunk, recipe, masks=masks)
    loss, terms = jax.device_get(
        _values(network, targets, recipe.for_program(), jnp.asarray(image), axes=None)
    )
    return float(loss), Terms(*map(float, terms))


# The two programs of a run. Weights, targets and the recipe's numbers are arguments:
# closed over, they would be folded as constants for minutes.


class _Axes(NamedTuple):
    """What of a batch has a lane axis besides the pictures: 0, or None where lanes share it."""

    targets: int | None
    recipe: int | None


_Arguments = tuple[Network, Targets, Recipe]


def _program(job: Job) -> tuple[_Arguments, _Axes | None]:
    """Give the programs' common arguments and, for a batch, their lane axes."""
    if len(job.start.shape) == 3:
        return (job.network, job.targets, job.recipe.for_program()), None
    recipe = job.recipe.for_program()
    if job.lanes:
        # On the host: a number a lane is no work for the device.
        recipe = jax.tree.map(
            lambda *numbers: np.stack([_number(n) for n in numbers]),
            *(lane.for_program() for lane in job.lanes),
        )
    axes = _Axes(0 if job.own_targets else None, 0 if job.lanes else None)
    return (job.network, job.targets, recipe), axes


def _number(value: Any) -> np.ndarray:
    return np.asarray(value, np.int32 if isinstance(value, int) else np.float32)


def _lanes(function: Any, axes: _Axes | None) -> Any:
    """Map `function(targets, recipe, x)` over lanes."""
    return function if axes is None else jax.vmap(function, in_axes=(*axes, 0))


def _objective(network: Network, targets: Targets, recipe: Recipe) -> Objective:
    """Give the objective of what the optimiser moves (`bounds`)."""
    of_picture, bounds = make_objective(network, targets, recipe), BOUNDS[recipe.bounds]
    return lambda position: of_picture(bounds.picture(position))


@partial(jax.jit, static_argnames=("axes",))
def _values(
    network: Network, targets: Targets, recipe: Recipe, image: jax.Array, *, axes: _Axes | None
) -> tuple[jax.Array, Terms]:
    def value(targets: Targets, recipe: Recipe, image: jax.Array) -> tuple[jax.Array, Terms]:
        return make_objective(network, targets, recipe)(image)

    return _lanes(value, axes)(targets, recipe, image)


@partial(jax.jit, static_argnames=("axes",))
def _start(
    network: Network, targets: Targets, recipe: Recipe, start: jax.Array, *, axes: _Axes | None
) -> _Carry:
    def init(targets: Targets, recipe: Recipe, start: jax.Array) -> _Carry:
        # A copy, as the carry is donated and the caller keeps the start.
        position = jnp.copy(BOUNDS[recipe.bounds].position(start))
        state = make_optimiser(recipe).init(_objective(network, targets, recipe), position)
        return _begun(state, recipe, jnp.zeros((), jnp.int32))

    return _lanes(init, axes)(targets, recipe, start)


def _begun(state: Any, recipe: Recipe, spent: jax.Array) -> _Carry:
    """Give the carry of a state that has made no step."""
    point, mean = state.point, None
    if recipe.average is not None:
        nothing = _Mean(jnp.zeros_like(point.position), jnp.zeros(()))
        mean = nothing.add(BOUNDS[recipe.bounds].picture(point.position), recipe.average)
    return _Carry(state, _Best(point.position, point.value, point.aux), spent, mean)


@partial(jax.jit, static_argnames=("shape", "axes"))
def _carried(
    network: Network,
    targets: Targets,
    recipe: Recipe,
    carry: _Carry,
    image: jax.Array,
    spent: jax.Array,
    *,
    shape: tuple[int, ...],
    axes: _Axes | None,
) -> _Carry:
    """Begin the next scale: from the picture of the one before, with what its optimiser knows."""

    def init(targets: Targets, recipe: Recipe, of: tuple[_Carry, jax.Array, jax.Array]) -> _Carry:
        before, image, spent = of
        start = jax.image.resize(image, shape, "lanczos3")
        optimiser = make_optimiser(recipe)
        position = BOUNDS[recipe.bounds].position(start)
        state = optimiser.init(_objective(network, targets, recipe), position)
        return _begun(optimiser.carried(before.state, state), recipe, spent)

    return _lanes(init, axes)(targets, recipe, (carry, image, spent))


@partial(jax.jit, static_argnames=("axes", "most"), donate_argnums=(3,))
def _advance(
    network: Network,
    targets: Targets,
    recipe: Recipe,
    carry: _Carry,
    num_steps: ArrayLike,
    *,
    axes: _Axes | None,
    most: int,
) -> tuple[_Carry, jax.Array, Terms]:
    """Run `num_steps` steps, at most `most`: an argument, so that a last, shorter chunk compiles
    nothing. The numbers of each step are in the first `num_steps` of `most` places."""

    def steps(targets: Targets, recipe: Recipe, carry: _Carry) -> tuple[_Carry, _Numbers]:
        objective, bounds = _objective(network, targets, recipe), BOUNDS[recipe.bounds]
        optimiser = make_optimiser(recipe)

        def step(index: jax.Array, so_far: tuple[_Carry, _Numbers]) -> tuple[_Carry, _Numbers]:
            carry, numbers = so_far
            state, info = optimiser.step(objective, carry.state)
            point, best = state.point, carry.best
            # A value that is not a number is never better, so a diverged run keeps its best.
            better = point.value < best.loss
            candidate = _Best(point.position, point.value, point.aux)
            best = jax.tree.map(lambda new, old: jnp.where(better, new, old), candidate, best)
            image = bounds.picture(point.position)
            mean = carry.mean and carry.mean.add(image, recipe.average)
            found = info.value, info.aux
            numbers = jax.tree.map(lambda all, one: all.at[index].set(one), numbers, found)
            return _Carry(state, best, carry.spent, mean), numbers

        one = carry.best.loss, carry.best.terms
        empty = jax.tree.map(lambda number: jnp.zeros(most, number.dtype), one)
        after, numbers = jax.lax.fori_loop(0, num_steps, step, (carry, empty))
        if after.mean is None:
            return after, numbers
        position = bounds.position(after.mean.total / after.mean.weight)
        loss, terms = objective(position)
        # Of a run that diverged the last mean that was a picture.
        finite, mean = jnp.isfinite(loss), _Best(position, loss, terms)
        best = jax.tree.map(lambda new, old: jnp.where(finite, new, old), mean, carry.best)
        return after._replace(best=best), numbers

    carry, (losses, terms) = _lanes(steps, axes)(targets, recipe, carry)
    return carry, losses, terms


@partial(jax.jit, static_argnames=("bounds",))
def _as_saved(position: jax.Array, chroma: jax.Array | None, *, bounds: str) -> jax.Array:
    image = BOUNDS[bounds].picture(position)
    return jnp.clip(image, 0, 1) if chroma is None else with_chroma(image, chroma)


def _seen(run: Iterator[Iterate]) -> list[Iterate]:
    """Exhaust a run, keeping of each iterate but the last only the numbers."""
    seen: list[Iterate] = []
    for iterate in run:
        if seen:
            seen[-1] = seen[-1]._replace(image=None)  # type: ignore[arg-type]
        seen.append(iterate._replace(carry=None))
    return seen
