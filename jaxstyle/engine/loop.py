"""The optimization loop, in compiled chunks of steps.

`iterates` is a generator that runs the optimizer on the device, one scale after another, and yields
the image and its losses between chunks. Progress bars, snapshots, early stopping and files are left
to the caller's loop.
"""

import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxstyle.engine import heap
from jaxstyle.engine.chunk import clipped_image, next_scale_start, transfer_state
from jaxstyle.engine.divergence import diverged, divergence_bound
from jaxstyle.engine.iterate import History, Iterate, RunState
from jaxstyle.engine.problem import Problem
from jaxstyle.engine.program import Carry
from jaxstyle.engine.scales import Scale, Scales, reference_step, scale_at
from jaxstyle.errors import JaxstyleError
from jaxstyle.losses.objective import Terms
from jaxstyle.nn.sharding import SpatialSharding, gather


def iterates(
    problem: Problem,
    *,
    chunk_size: int | None = None,
    first: int | None = None,
    state: RunState | None = None,
    until: int | None = None,
) -> Iterator[Iterate]:
    """Run the optimizer and yield the initial image, then one iterate per chunk of steps.

    The caller may stop at any iterate, as each has the best image so far. Images stay on the
    device; only losses are copied to the host. The last scale ends early when every batch element
    has diverged.

    Several scales run one after another, smallest first, and `step` counts the steps of all scales.
    Each loss is that of the objective of its own scale, whose images have another size.

    Args:
      problem: from `prepare`.
      chunk_size: steps per chunk; the last chunk may have fewer. Chosen by the image's size if not
        given.
      first: steps of the first chunk, for an early first image; does not recompile.
      state: state of an earlier run of this problem (`run_state`) to resume exactly; the first
        iterate is then that of `state`, with its whole history.
      until: step to stop after; the last step of all scales if not given. Schedules of the
        learning rate still refer to the recipe's steps.

    Yields:
      `Iterate` at step 0 (or `state.step`), after `first` steps, at the multiples of `chunk_size`,
      and at the end of each scale.

    Raises:
      JaxstyleError: `chunk_size` or `first` is below 1.
    """
    for name, value in (("chunk_size", chunk_size), ("first", first)):
        if value is not None and value < 1:
            raise JaxstyleError(f"{name}: {value} is out of range; give a whole number from 1")
    until = problem.recipe.total_steps if until is None else until
    lowest = scale_at(problem, state.step) if state else 0
    last = max(lowest, scale_at(problem, until))
    latest = None
    with Scales(problem, chunk_size) as scales:
        for level in range(lowest, last + 1):
            for iterate in _run_scale(
                scales.get(level), problem, level, latest, state=state, first=first, until=until
            ):
                if level < last:
                    scales.compile(level + 1)
                yield iterate
            latest, state = iterate, None


def _run_scale(
    scale: Scale,
    problem: Problem,
    level: int,
    latest: Iterate | None,
    *,
    state: RunState | None,
    first: int | None,
    until: int,
) -> Iterator[Iterate]:
    """Run one scale and yield its iterates.

    Args:
      scale: the scale, with the arguments of its programs.
      problem: the problem with all its scales.
      level: index of the scale.
      latest: last iterate of the smaller scale; None for the first scale of this call.
      state: state of an earlier run at this scale, if any.
      first: as in `iterates`.
      until: as in `iterates`.
    """
    clock = _Clock()
    if latest is None:
        latest = _start(scale, clock) if state is None else _resume(scale, state, clock)
        yield latest
        # Leave out the caller's time.
        clock.lap()
    else:
        latest = _enlarge(scale, problem.scales[level - 1], latest)
    end = min((level + 1) * problem.recipe.steps, until)
    is_last = level == len(problem.coarse_levels)
    bound = divergence_bound(scale.problem.recipe.optimizer)
    losses = latest.history.loss[..., latest.history.step >= reference_step(problem, level)]
    has_diverged = np.zeros(scale.problem.start.shape[:-3], bool)
    initial = None
    while True:
        if losses.shape[-1]:
            initial = losses[..., 0] if initial is None else initial
            has_diverged = has_diverged | diverged(initial, losses, bound=bound)
        if latest.step >= end or (is_last and has_diverged.all()):
            return
        before, latest = latest, _advance(scale, latest, end, first, clock)
        if has_diverged.any():
            latest = _freeze_diverged(has_diverged, before, latest)
        losses = latest.history.loss
        yield latest
        clock.lap()


def _start(scale: Scale, clock: "_Clock") -> Iterate:
    """Return the iterate of the initial image."""
    carry, loss, terms = scale.start(scale.problem.start)
    return _iterate(scale.problem, carry, 0, (1, loss, terms), clock)


def _resume(scale: Scale, state: RunState, clock: "_Clock") -> Iterate:
    """Return the iterate of an earlier run's state, with its whole history and times."""
    carry = _on_device(state, scale.problem)
    iterate = _iterate(scale.problem, carry, state.step, state.history, clock)
    return iterate._replace(compile_seconds=state.compile_seconds, run_seconds=state.run_seconds)


def _enlarge(scale: Scale, smaller: Problem, latest: Iterate) -> Iterate:
    """Return the last iterate of the smaller scale with the initial state of this scale."""
    layout = scale.problem.layout
    assert not isinstance(layout, SpatialSharding), "refused by prepare"
    start = scale.problem.start
    image = next_scale_start(
        latest.image, smaller.start, start, detailed=scale.problem.detailed, shape=start.shape
    )
    placed: Any = image, np.asarray(latest.evaluations, np.int32)
    image, spent = layout.place_state(placed, scale.problem.size[1]) if layout else placed
    carry, *_ = scale.start(image)
    return latest._replace(carry=transfer_state(latest.carry, carry, spent, program=scale.program))


def _advance(
    scale: Scale, latest: Iterate, end: int, first: int | None, clock: "_Clock"
) -> Iterate:
    """Return the iterate after the next chunk, which ends at step `end` at the latest."""
    step, chunk_size = latest.step, scale.chunk_size
    # Chunks end on multiples of `chunk_size`, also when resumed in between.
    num_steps = min(chunk_size - step % chunk_size, end - step)
    if step == 0 and first:
        num_steps = min(num_steps, first)
    carry, losses, terms = scale.run(latest.carry, num_steps)
    return _iterate(scale.problem, carry, step + num_steps, (num_steps, losses, terms), clock)


class _Clock:
    """A stopwatch."""

    def __init__(self) -> None:
        self._since = time.perf_counter()

    def lap(self) -> float:
        """Return the seconds since the last call."""
        elapsed, self._since = time.perf_counter() - self._since, time.perf_counter()
        return elapsed


def _on_device(state: RunState, scale: Problem) -> Carry:
    """Return a copy of a state's carry on the devices; donating it leaves the state valid."""
    if scale.layout is None:
        return jax.tree.map(lambda x: jnp.array(x, copy=True), state.carry)
    return scale.layout.place_state(jax.tree.map(np.array, state.carry), scale.size[1])


def _iterate(
    scale: Problem,
    carry: Carry,
    step: int,
    past: History | tuple[int, jax.Array, Terms],
    clock: _Clock,
) -> Iterate:
    """Build an iterate from a carry, which the next chunk invalidates by donation.

    Args:
      scale: problem of the scale.
      carry: state on the device.
      step: number of steps so far.
      past: history since the last iterate, or its number of steps, losses and terms.
      clock: measures the times of compiling and running.
    """
    compile_seconds = clock.lap()
    if compile_seconds > 0.1:
        heap.trim()
    image: Any = clipped_image(carry.best.position, scale.chroma, bounds=scale.recipe.bounds)
    image = (
        scale.layout.fetch(image) if isinstance(scale.layout, SpatialSharding) else gather(image)
    )
    best = carry.best
    numbers: Any = () if isinstance(past, History) else past[1:]
    loss, best_terms, evaluations, spent, numbers = jax.device_get(
        gather((best.loss, best.terms, carry.state.evaluations, carry.spent, numbers))
    )
    if not isinstance(past, History):
        count, (losses, terms) = past[0], numbers
        of_steps = (values[..., :count] for values in (losses, *terms))
        past = History(np.arange(step + 1 - count, step + 1), *of_steps)
    return Iterate(
        step, image, loss, best_terms, evaluations + spent, past, compile_seconds,
        clock.lap(), carry,
    )  # fmt: skip


def _freeze_diverged(has_diverged: np.ndarray, before: Iterate, latest: Iterate) -> Iterate:
    """Return an iterate whose diverged batch elements have the image and losses of `before`."""

    def select(old: Any, new: Any) -> Any:
        axes = (1,) * (np.ndim(new) - np.ndim(has_diverged))
        elements = np.reshape(has_diverged, np.shape(has_diverged) + axes)
        return (jnp if isinstance(new, jax.Array) else np).where(elements, old, new)

    return latest._replace(
        image=select(before.image, latest.image),
        loss=select(before.loss, latest.loss),
        terms=Terms(*map(select, before.terms, latest.terms)),
        evaluations=select(before.evaluations, latest.evaluations),
    )
