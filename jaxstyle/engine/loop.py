"""The optimization loop, in compiled chunks of steps.

`iterates` is a generator that runs the optimizer on the device, one scale after another, and yields
the image and its losses between chunks. Progress bars, snapshots, early stopping and files are left
to the caller's loop.
"""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxstyle.engine import heap
from jaxstyle.engine.chunk import (
    Arguments,
    Carry,
    Program,
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


class History(NamedTuple):
    """The objective after each step, arrays `[steps + 1]` or, in a batch, `[k, steps + 1]`."""

    step: np.ndarray
    """Number of steps, `[steps + 1]`; 0 is the initial image."""
    loss: np.ndarray
    """The sum of the terms."""
    content: np.ndarray
    """The weighted content term, as in `Terms`."""
    style: np.ndarray
    """The weighted style term."""
    tv: np.ndarray
    """The weighted total variation."""


class Iterate(NamedTuple):
    """State of a run between chunks. In a batch every array has the batch axis first."""

    step: int
    """Number of steps so far, over all scales."""
    image: jax.Array | np.ndarray
    """The best image so far, RGB `[h, w, 3]`, clipped to [0, 1]; the average so far if
    `Recipe.average` is set. On the host if several devices share one image."""
    loss: np.ndarray
    """Loss of the best image so far, before clipping."""
    terms: Terms
    """Terms of that loss."""
    evaluations: np.ndarray
    """Evaluations of the objective and its gradient so far."""
    history: History
    """History of the steps since the last iterate."""
    compile_seconds: float
    """Seconds of tracing and compiling since the last iterate."""
    run_seconds: float
    """Seconds of running since the last iterate."""
    carry: Any = None
    """State on the device; valid until the generator is resumed (`run_state` copies it)."""


class RunState(NamedTuple):
    """State of a run between two chunks, on the host, from which it can be resumed."""

    step: int
    """Number of steps so far, over all scales."""
    carry: Any
    """State of the optimizer and best point, with the shapes and types of `carry_shapes`."""
    history: History
    """History from step 0."""
    compile_seconds: float
    """Seconds of tracing and compiling so far."""
    run_seconds: float
    """Seconds of running so far."""


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
    with _Scales(problem, chunk_size) as scales:
        for level in range(lowest, last + 1):
            for iterate in _run_scale(
                scales.get(level), problem, level, latest, state=state, first=first, until=until
            ):
                if level < last:
                    scales.compile(level + 1)
                yield iterate
            latest, state = iterate, None


class _Scale(NamedTuple):
    """One scale of a run, with the arguments of its programs."""

    problem: Problem
    arguments: Arguments
    program: Program
    chunk_size: int
    """Steps per chunk."""
    max_steps: int
    """Largest number of steps of the compiled program, at least the default, so that all smaller
    chunk sizes share one program."""

    @classmethod
    def of(cls, problem: Problem, chunk_size: int | None) -> "_Scale":
        """Build the arguments of a scale, with the default chunk size if it is None."""
        default = default_chunk_size(problem.start)
        chunk_size = chunk_size or default
        return cls(problem, *common_arguments(problem), chunk_size, max(chunk_size, default))

    def start(self, image: jax.Array) -> tuple[Carry, jax.Array, Terms]:
        """Return the state of a run at an image, and its loss and terms."""
        return start_run(
            self.arguments, image,
            shape=self.problem.start.shape[-3:], program=self.program, max_steps=self.max_steps,
        )  # fmt: skip

    def run(self, carry: Carry, num_steps: int) -> tuple[Carry, jax.Array, Terms]:
        """Return the state after a chunk of steps, and the loss and terms of each step."""
        chunk: tuple[Carry, jax.Array, Terms] = run_chunk(
            *self.arguments, carry, num_steps, program=self.program, max_steps=self.max_steps
        )
        return chunk


class _Scales:
    """The scales of a run, each compiled in a thread while the smaller one runs.

    Args:
      problem: the problem with all its scales.
      chunk_size: steps per chunk, as in `iterates`.
    """

    def __init__(self, problem: Problem, chunk_size: int | None):
        self._problem = problem
        self._chunk_size = chunk_size
        self._thread = ThreadPoolExecutor(1, "compile")
        self._compiled: dict[int, Future[_Scale]] = {}

    def __enter__(self) -> "_Scales":
        return self

    def __exit__(self, *_: object) -> None:
        # After an early stop, do not wait for programs that will not run.
        self._thread.shutdown(wait=False, cancel_futures=True)

    def compile(self, level: int) -> None:
        """Compile a scale in the thread, unless that has been started."""
        if level not in self._compiled and self._problem.layout is None:
            self._compiled[level] = self._thread.submit(self._compile, level)

    def _compile(self, level: int) -> _Scale:
        scale = _Scale.of(self._problem.scales[level], self._chunk_size)
        compile_scale(
            scale.arguments, scale.program, self._problem.scales[level - 1], scale.problem,
            max_steps=scale.max_steps,
        )  # fmt: skip
        return scale

    def get(self, level: int) -> _Scale:
        """Return a scale; wait for its compilation if that has been started."""
        if level in self._compiled:
            return self._compiled[level].result()
        return _Scale.of(self._problem.scales[level], self._chunk_size)


def scale_at(problem: Problem, step: int) -> int:
    """Return the index in `Problem.scales` of the scale of a step."""
    return min(max(0, -(-step // problem.recipe.steps) - 1), len(problem.coarse_levels))


def reference_step(problem: Problem, level: int) -> int:
    """Return the step whose loss is the reference for divergence at a scale.

    The loss of a larger scale's initial image is not recorded, so its first step is the reference.
    """
    return level * problem.recipe.steps + min(level, 1)


def _run_scale(
    scale: _Scale,
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


# A call returns when its program is compiled and queued; waiting for its results is running time.


def _start(scale: _Scale, clock: "_Clock") -> Iterate:
    """Return the iterate of the initial image."""
    carry, loss, terms = scale.start(scale.problem.start)
    return _iterate(scale.problem, carry, 0, (1, loss, terms), clock)


def _resume(scale: _Scale, state: RunState, clock: "_Clock") -> Iterate:
    """Return the iterate of an earlier run's state, with its whole history and times."""
    carry = _on_device(state, scale.problem)
    iterate = _iterate(scale.problem, carry, state.step, state.history, clock)
    return iterate._replace(compile_seconds=state.compile_seconds, run_seconds=state.run_seconds)


def _enlarge(scale: _Scale, smaller: Problem, latest: Iterate) -> Iterate:
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
    scale: _Scale, latest: Iterate, end: int, first: int | None, clock: "_Clock"
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


def run_state(collected: Sequence[Iterate]) -> RunState:
    """Return a run's state on the host, from which it can be resumed.

    Args:
      collected: the iterates so far, in order; the last one with its `carry`.
    """
    joined = [
        np.concatenate(parts, -1) for parts in zip(*(i.history for i in collected), strict=True)
    ]
    return RunState(
        step=collected[-1].step,
        carry=jax.device_get(collected[-1].carry),
        history=History(*joined),
        compile_seconds=sum(i.compile_seconds for i in collected),
        run_seconds=sum(i.run_seconds for i in collected),
    )


def default_chunk_size(start: ArrayLike, *, platform: str | None = None) -> int:
    """Return the steps per chunk: fewer for large images, whose steps take longer.

    At most five on a CPU. On other devices at most fifty, for about a third of a second: 2^24
    pixels are 26 TFLOP of VGG-19, and a fast device is assumed to reach 80 TFLOP/s.

    Args:
      start: the initial image `[h, w, 3]`, or a batch `[k, h, w, 3]`; only its shape is used.
      platform: platform of the device; the default backend if not given.
    """
    pixels = int(np.prod(np.shape(start)[:-1]))
    on_cpu = (platform or jax.default_backend()) == "cpu"
    most, budget = (5, 2**20) if on_cpu else (50, 2**24)
    return max(1, min(most, budget // pixels))
