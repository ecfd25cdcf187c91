"""The optimization loop: from an initial image to a stylized one, in compiled chunks of steps.

`iterates` is a generator that runs the optimizer on the device and yields an image and its
numbers between chunks, one scale after another. Progress bars, snapshots, early stopping and files
are left to the loop of the caller.
"""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxstyle.engine import heap
from jaxstyle.engine.chunk import (
    Arguments,
    Axes,
    Carry,
    clipped_image,
    common_arguments,
    compile_scale,
    next_scale_start,
    run_chunk,
    start_run,
    transfer_state,
)
from jaxstyle.engine.divergence import diverged, divergence_bound
from jaxstyle.engine.problem import Problem
from jaxstyle.errors import JaxstyleError
from jaxstyle.losses.objective import Terms
from jaxstyle.nn.sharding import SpatialSharding, gather

_CommonArguments = tuple[Arguments, Axes | None]
"""What `common_arguments` returns."""


class History(NamedTuple):
    """The objective after each step, arrays `[steps + 1]` (batch element first in a batch)."""

    step: np.ndarray
    """Steps made; 0 is the initial image."""
    loss: np.ndarray
    content: np.ndarray
    """The terms of the loss, weighted (`Terms`)."""
    style: np.ndarray
    tv: np.ndarray


class Iterate(NamedTuple):
    """State of a run between chunks. In a batch every array has the batch axis first."""

    step: int
    """Steps made, of all scales."""
    image: jax.Array | np.ndarray
    """The best image so far, RGB `[h, w, 3]`, clipped to [0, 1]; the average so far if
    `Recipe.average` is set. On the host where several devices share one image."""
    loss: np.ndarray
    """Loss of the best image so far, before clipping."""
    terms: Terms
    """Terms of that loss."""
    evaluations: np.ndarray
    """Evaluations of the objective and its gradient so far."""
    history: History
    """History of the steps since the last iterate."""
    compile_seconds: float
    """Time of tracing and compiling since the last iterate."""
    run_seconds: float
    """Time of running since the last iterate."""
    carry: Any = None
    """State on the device; valid until the generator goes on (`run_state` copies it)."""


class RunState(NamedTuple):
    """State of a run between two chunks, on the host, from which it can be resumed."""

    step: int
    """Steps made, of all scales."""
    carry: Any
    """State of the optimizer and best point; shapes and types are those of `carry_shapes`."""
    history: History
    """History from step 0."""
    compile_seconds: float
    run_seconds: float


def iterates(
    problem: Problem,
    *,
    chunk_size: int | None = None,
    first: int | None = None,
    state: RunState | None = None,
    until: int | None = None,
) -> Iterator[Iterate]:
    """Run the optimizer, yielding the initial image and then one iterate a chunk.

    The caller may stop at any iterate; each holds the best image so far. Only numbers leave the
    device. The last scale ends early when every batch element has diverged.

    Several scales run one after another, smallest first, and `step` counts through all of them:
    images grow, and each loss is of the objective of its own scale.

    Args:
      problem: from `prepare`.
      chunk_size: steps a chunk; fewer in the last if it does not divide the recipe's steps. Chosen
        from the image's size if not given.
      first: steps of the first chunk, for an early first image; compiles no further program.
      state: state of an earlier run of this problem (`run_state`), which is resumed exactly; the
        first iterate is then that of `state`, with its whole history.
      until: step to stop after; the last step of all scales if not given. Schedules of the
        learning rate still refer to the recipe's steps.

    Yields:
      `Iterate` at step 0 (or `state.step`), after `first` steps, at the multiples of `chunk_size`,
      and at the end of each scale.

    Raises:
      JaxstyleError: `chunk_size` or `first` below 1.
    """
    for name, value in (("every", chunk_size), ("first", first)):
        if value is not None and value < 1:
            raise JaxstyleError(f"{name}: {value} is out of range; give a whole number from 1")
    latest = arguments = None
    until = problem.recipe.total_steps if until is None else until
    lowest = scale_at(problem, state.step) if state else 0
    last = max(lowest, scale_at(problem, until))
    with _Ahead(problem, chunk_size) as ahead:
        for level in range(lowest, last + 1):
            for iterate in _descend(
                problem, level, latest, arguments,
                chunk_size=chunk_size, first=first, state=state, until=until,
            ):  # fmt: skip
                if level < last:
                    ahead.begin(level + 1)
                yield iterate
            arguments = ahead.arguments(level + 1) if level < last else None
            latest, state = iterate, None


class _Ahead:
    """Compiles a scale in a thread while the one before it runs.

    Args:
      problem: of all scales.
      chunk_size: steps a chunk; see `iterates`.
    """

    def __init__(self, problem: Problem, chunk_size: int | None):
        self._problem = problem
        self._chunk_size = chunk_size
        self._thread = ThreadPoolExecutor(1, "compile")
        self._scales: dict[int, Future[_CommonArguments]] = {}

    def __enter__(self) -> "_Ahead":
        return self

    def __exit__(self, *_: object) -> None:
        # Who stops early does not wait for what will not run.
        self._thread.shutdown(wait=False, cancel_futures=True)

    def begin(self, level: int) -> None:
        """Compile a scale, unless that has begun."""
        if level not in self._scales and self._problem.layout is None:
            self._scales[level] = self._thread.submit(self._compile, level)

    def _compile(self, level: int) -> _CommonArguments:
        before, scale = self._problem.scales[level - 1 : level + 1]
        made = common_arguments(scale)
        compile_scale(*made, before, scale, max_steps=_max_steps(scale, self._chunk_size))
        return made

    def arguments(self, level: int) -> _CommonArguments | None:
        """Return the arguments of a scale once it is compiled, or None if it is not done here."""
        return self._scales[level].result() if level in self._scales else None


def scale_at(problem: Problem, step: int) -> int:
    """Return the index in `Problem.scales` of the scale of a step."""
    return min(max(0, -(-step // problem.recipe.steps) - 1), len(problem.coarse_levels))


def reference_step(problem: Problem, level: int) -> int:
    """Return the step whose loss is the reference for divergence at a scale.

    The initial image of a larger scale has no step of its own, so its first step is taken.
    """
    return level * problem.recipe.steps + min(level, 1)


def _descend(
    problem: Problem,
    level: int,
    latest: Iterate | None,
    made: _CommonArguments | None,
    *,
    chunk_size: int | None,
    first: int | None,
    state: RunState | None,
    until: int,
) -> Iterator[Iterate]:
    """Run one scale: from `state`, from the start, or from the last iterate of the scale before.

    `made` are the scale's common arguments if they are there already.
    """
    scale, end = problem.scales[level], min((level + 1) * problem.recipe.steps, until)
    max_steps = _max_steps(scale, chunk_size)
    chunk_size = chunk_size or max_steps
    arguments, axes = made or common_arguments(scale)
    layout = scale.layout
    clock = _Clock()
    begun = partial(
        start_run, arguments,
        shape=scale.start.shape[-3:], axes=axes, layout=layout, max_steps=max_steps,
    )  # fmt: skip

    # A call returns when its program is compiled and queued; time spent waiting is running time.
    if state is not None:
        carry = _on_device(state, scale)
        latest = _iterate(scale, carry, state.step, state.history, clock)._replace(
            compile_seconds=state.compile_seconds, run_seconds=state.run_seconds
        )
        yield latest
        # Leaves out the time that the caller takes.
        clock.lap()
    elif latest is None:
        carry, loss, terms = begun(scale.start)
        latest = _iterate(scale, carry, 0, (1, loss, terms), clock)
        yield latest
        clock.lap()
    else:
        assert not isinstance(layout, SpatialSharding), "refused by prepare"
        larger = next_scale_start(
            latest.image, problem.scales[level - 1].start, scale.start,
            detailed=scale.detailed, shape=scale.start.shape,
        )  # fmt: skip
        small: Any = larger, np.asarray(latest.evaluations, np.int32)
        small = layout.place_state(small, scale.size[1]) if layout else small
        carry, *_ = begun(small[0])
        carry = transfer_state(
            arguments[2], latest.carry, carry, small[1], axes=axes, layout=layout
        )
    done = latest.step
    known = latest.history
    losses = known.loss[..., known.step >= reference_step(problem, level)]
    gone = np.zeros(scale.start.shape[:-3], bool)
    initial = None
    while True:
        if losses.shape[-1]:
            initial = losses[..., 0] if initial is None else initial
            gone = gone | diverged(initial, losses, bound=divergence_bound(scale.recipe.optimizer))
        if done >= end or (level == len(problem.coarse_levels) and gone.all()):
            return
        # Chunks end on multiples of `chunk_size`, also when resumed in between.
        num_steps = min(
            chunk_size - done % chunk_size, end - done, chunk_size if done else first or chunk_size
        )
        carry, *numbers = run_chunk(
            *arguments, carry, num_steps, axes=axes, layout=layout, max_steps=max_steps
        )
        done += num_steps
        before, latest = latest, _iterate(scale, carry, done, (num_steps, *numbers), clock)
        if gone.any():
            latest = _without(gone, before, latest)
        losses = latest.history.loss
        yield latest
        clock.lap()


class _Clock:
    """A stopwatch."""

    def __init__(self) -> None:
        self._since = time.perf_counter()

    def lap(self) -> float:
        """Return the seconds since the last call."""
        elapsed, self._since = time.perf_counter() - self._since, time.perf_counter()
        return elapsed


def _on_device(state: RunState, scale: Problem) -> Carry:
    """Return a copy of a state on the devices: the carry is donated, the state stays valid."""
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
    """Build an iterate from a carry, which the next chunk will invalidate by donation.

    `past` is the history since the last iterate, or the number of steps and their numbers.
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


def _without(gone: np.ndarray, before: Iterate, latest: Iterate) -> Iterate:
    """Return an iterate in which diverged batch elements stay as they were before it."""

    def kept(old: Any, new: Any) -> Any:
        elements = np.reshape(gone, np.shape(gone) + (1,) * (np.ndim(new) - np.ndim(gone)))
        return (jnp if isinstance(new, jax.Array) else np).where(elements, old, new)

    return latest._replace(
        image=kept(before.image, latest.image),
        loss=kept(before.loss, latest.loss),
        terms=Terms(*map(kept, before.terms, latest.terms)),
        evaluations=kept(before.evaluations, latest.evaluations),
    )


def run_state(seen: Sequence[Iterate]) -> RunState:
    """Return the state of a run on the host, to resume from.

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


def _max_steps(scale: Problem, chunk_size: int | None) -> int:
    """Return the longest chunk of a scale's program: one for all that are no longer than usual."""
    return max(chunk_size or 1, default_chunk_size(scale.start))


def default_chunk_size(start: ArrayLike) -> int:
    """Return the steps of a chunk: five, fewer for large images, whose steps take longer."""
    pixels = int(np.prod(np.shape(start)[:-1]))
    return max(1, min(5, 2**20 // pixels))
