"""The run: from pictures and a recipe to a stylized picture, in compiled chunks of steps.

`iterates` is a generator that runs the optimiser on the device and yields a picture and
its numbers between chunks. Bars, snapshots, early stopping and files live in the loop
of the caller. `stylize` is that loop with nothing in it.
"""

import dataclasses
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxstyle import images
from jaxstyle.divergence import diverged
from jaxstyle.objective import Terms, compute_targets
from jaxstyle.prepare import Job, picture, prepare, style_pictures
from jaxstyle.programs import advance, as_saved, begin, common_arguments, values
from jaxstyle.recipe import Recipe
from jaxstyle.sharding import Devices, Rows, readable
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
    image: jax.Array | np.ndarray
    """The best picture so far, RGB `[h, w, 3]` in [0, 1]: clipped, as it would be saved. On the
    host where several devices share one picture."""
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


def iterates(
    job: Job, *, every: int | None = None, state: RunState | None = None
) -> Iterator[Iterate]:
    """Run the optimiser, yielding the initial picture and then one iterate a chunk.

    The loop may stop at any time; the last iterate holds the best picture. Everything stays
    on the device but the numbers. It ends early when every lane has diverged.

    Args:
      job: from `prepare`.
      every: steps a chunk; fewer in the last if it does not divide the recipe's steps. Chosen
        from the picture's size if not given.
      state: where an earlier run of this job stood (`run_state`): it goes on from there as if it
        had never stopped; the first iterate is then that of `state`, with all its history.

    Yields:
      `Iterate` at step 0 (or `state.step`) and at the multiples of `every` after it, and at
      recipe.steps.
    """
    recipe = job.recipe
    usual = default_every(job.start)
    every = every or usual
    # One program for all chunks that are no longer than usual.
    most = max(every, usual)
    arguments, axes = common_arguments(job)
    layout = job.layout
    clock = time.perf_counter()

    def lap() -> float:
        nonlocal clock
        elapsed, clock = time.perf_counter() - clock, time.perf_counter()
        return elapsed

    def iterate(step: int, past: History | int, losses: Any = (), terms: Any = ()) -> Iterate:
        # `past`: how many of the numbers given are of the steps since the last iterate.
        compile_seconds = lap()
        # Read what donation will invalidate before the next chunk is queued.
        image: Any = as_saved(carry.best.position, bounds=recipe.bounds)
        image = layout.fetch(image) if isinstance(layout, Rows) else readable(image)
        best, losses, terms, evaluations = jax.device_get(
            readable((carry.best._replace(position=0), losses, terms, carry.state.evaluations))
        )
        if isinstance(past, int):
            numbers = (of_steps[..., :past] for of_steps in (losses, *terms))
            past = History(np.arange(step + 1 - past, step + 1), *numbers)
        return Iterate(
            step, image, best.loss, best.terms, evaluations, past, compile_seconds, lap(), carry
        )

    # A call returns when its program is traced, compiled and queued; waiting is running.
    if state is None:
        carry = begin(*arguments, job.start, axes=axes, layout=layout)
        best = carry.best
        first = iterate(0, 1, best.loss[..., None], [term[..., None] for term in best.terms])
    else:
        # Copies, as the carry is donated and the caller keeps the state.
        if layout is None:
            carry = jax.tree.map(lambda x: jnp.array(x, copy=True), state.carry)
        else:
            carry = layout.place_state(jax.tree.map(np.array, state.carry), job.size[1])
        first = iterate(state.step, state.history)
        first = first._replace(compile_seconds=state.compile_seconds, run_seconds=state.run_seconds)
    yield first
    initial = first.history.loss[..., 0]
    gone, done, latest = diverged(initial, first.history.loss), first.step, first
    while done < recipe.steps and not gone.all():
        # On multiples of `every`, also from a state that is not on one.
        num_steps = min(every - done % every, recipe.steps - done)
        lap()
        carry, losses, terms = advance(
            *arguments, carry, num_steps, axes=axes, layout=layout, most=most
        )
        done += num_steps
        before, latest = latest, iterate(done, num_steps, losses, terms)
        if gone.any():
            latest = _without(gone, before, latest)
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
    arguments, axes = common_arguments(job)
    image = job.layout.place(last.image) if job.layout else last.image
    losses, terms = jax.device_get(
        readable(values(*arguments, image, axes=axes, layout=job.layout))
    )
    pictures = np.asarray(last.image)

    def lane(tree: Any, k: int) -> Any:
        return jax.tree.map(lambda x: x[k], tree) if batched else tree

    results = []
    for k in range(len(start) if batched else 1):
        parts = [History(i.history.step, *(lane(h, k) for h in i.history[1:])) for i in seen]
        # A lane ends with the chunk in which it diverges, however long the others go on.
        ends = (diverged(parts[0].loss[0], part.loss) for part in parts)
        count = next((n for n, gone in enumerate(ends, start=1) if gone), len(parts))
        past = History(*map(np.concatenate, zip(*parts[:count], strict=True)))
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
                diverged=bool(diverged(past.loss[0], past.loss)),
            )
        )
    return results


def stylize(
    content: ArrayLike,
    style: ArrayLike | Sequence[ArrayLike],
    *,
    recipe: Recipe,
    network: Network,
    start: ArrayLike | str | None = None,
    style_blend: Sequence[float] | None = None,
    devices: Devices = None,
) -> Result:
    """Paint the content picture in the style of another.

    Args:
      content: RGB `[h, w, 3]` in [0, 1].
      style: one such picture or several, of any size.
      recipe: the settings, e.g. `jaxstyle.presets["default"]`.
      network: weights, from `jaxstyle.load_network`.
      start: initial picture instead of the recipe's `init`.
      style_blend: one weight a style picture; equal if not given.
      devices: how many of `jax.devices()` share the rows of the picture, `"all"`, or a list.

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
    job = prepare(
        content, style, recipe=recipe, network=network, start=start, style_blend=style_blend,
        devices=devices,
    )  # fmt: skip
    return finish(job, _seen(iterates(job)))[0]


def stylize_batch(
    content: ArrayLike,
    style: ArrayLike | Sequence[ArrayLike],
    *,
    recipe: Recipe,
    network: Network,
    starts: Sequence[ArrayLike | str] | int,
    style_blend: Sequence[float] | None = None,
    devices: Devices = None,
) -> list[Result]:
    """Stylize from several initial pictures at once: one vmapped program, a lane each.

    Args:
      content: as in `stylize`.
      style: as in `stylize`.
      recipe: the settings of all lanes; lane i has seed `recipe.seed + i`.
      network: weights.
      starts: the number of lanes that start after `recipe.init`; or one start a lane,
        each a picture or one of `"content"`, `"noise"`, `"style"`, mixed as you like.
      style_blend: as in `stylize`.
      devices: how many of `jax.devices()` share the lanes, `"all"`, or a list; as many as divide
        them.

    Returns:
      One `Result` a lane, in order.

    Raises:
      JaxstyleError: what does not fit, by name.
    """
    lanes = [recipe.init] * starts if isinstance(starts, int) else starts
    job = prepare(
        content, style, recipe=recipe, network=network, lanes=lanes, style_blend=style_blend,
        devices=devices,
    )  # fmt: skip
    return finish(job, _seen(iterates(job)))


def evaluate(
    image: ArrayLike,
    content: ArrayLike,
    styles: ArrayLike | Sequence[ArrayLike],
    *,
    recipe: Recipe,
    network: Network,
) -> tuple[float, Terms]:
    """Score any picture under a recipe: its loss and the weighted terms.

    The content picture is resized to the image's size; the style pictures keep theirs,
    bounded by `recipe.size`.
    """
    recipe = recipe.resolved(network)
    image = picture(image, "image")
    content = images.resize(picture(content, "content"), *image.shape[:2])
    shrunk = style_pictures(styles, recipe)
    targets = compute_targets(network, jnp.asarray(content), shrunk, recipe)
    loss, terms = jax.device_get(
        values(network, targets, recipe.for_program(), jnp.asarray(image), axes=None, layout=None)
    )
    return float(loss), Terms(*map(float, terms))


def _seen(run: Iterator[Iterate]) -> list[Iterate]:
    """Exhaust a run, keeping of each iterate but the last only the numbers."""
    seen: list[Iterate] = []
    for iterate in run:
        if seen:
            seen[-1] = seen[-1]._replace(image=None)  # type: ignore[arg-type]
        seen.append(iterate._replace(carry=None))
    return seen
