"""The scales of a run, compiled one after another, and their chunk sizes."""

from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import jax
import numpy as np
from jax.typing import ArrayLike

from jaxstyle.engine.chunk import run_chunk, start_run
from jaxstyle.engine.compilation import compile_scale
from jaxstyle.engine.problem import Problem
from jaxstyle.engine.program import Arguments, Carry, Program, common_arguments
from jaxstyle.losses.objective import Terms


class Scale(NamedTuple):
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
    def of(cls, problem: Problem, chunk_size: int | None) -> "Scale":
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


class Scales:
    """The scales of a run, each compiled in a thread while the smaller one runs.

    Args:
      problem: the problem with all its scales.
      chunk_size: steps per chunk, as in `iterates`.
    """

    def __init__(self, problem: Problem, chunk_size: int | None):
        self._problem = problem
        self._chunk_size = chunk_size
        self._thread = ThreadPoolExecutor(1, "compile")
        self._compiled: dict[int, Future[Scale]] = {}

    def __enter__(self) -> "Scales":
        return self

    def __exit__(self, *_: object) -> None:
        # After an early stop, do not wait for programs that will not run.
        self._thread.shutdown(wait=False, cancel_futures=True)

    def compile(self, level: int) -> None:
        """Compile a scale in the thread, unless that has been started."""
        if level not in self._compiled and self._problem.layout is None:
            self._compiled[level] = self._thread.submit(self._compile, level)

    def _compile(self, level: int) -> Scale:
        scale = Scale.of(self._problem.scales[level], self._chunk_size)
        compile_scale(
            scale.arguments, scale.program, self._problem.scales[level - 1], scale.problem,
            max_steps=scale.max_steps,
        )  # fmt: skip
        return scale

    def get(self, level: int) -> Scale:
        """Return a scale; wait for its compilation if that has been started."""
        if level in self._compiled:
            return self._compiled[level].result()
        return Scale.of(self._problem.scales[level], self._chunk_size)


def scale_at(problem: Problem, step: int) -> int:
    """Return the index in `Problem.scales` of the scale of a step."""
    return min(max(0, -(-step // problem.recipe.steps) - 1), len(problem.coarse_levels))


def reference_step(problem: Problem, level: int) -> int:
    """Return the step whose loss is the reference for divergence at a scale.

    The loss of a larger scale's initial image is not recorded, so its first step is the reference.
    """
    return level * problem.recipe.steps + min(level, 1)


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
