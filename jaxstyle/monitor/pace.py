"""The speed of a run and the time left."""

from typing import NamedTuple

import numpy as np

from jaxstyle.engine.iterate import Iterate
from jaxstyle.engine.problem import Problem


class Course(NamedTuple):
    """The number of steps of a run, and the size of the image at each scale."""

    steps: int
    """Steps of the whole run."""
    scale_steps: int
    """Steps of each scale."""
    sizes: tuple[tuple[int, int], ...]
    """Height and width at each scale, smallest first, including the margin."""

    @classmethod
    def of(cls, problem: Problem, until: int | None = None) -> "Course":
        """Return the course of a run that ends at step `until`, or at its last step if None."""
        recipe = problem.recipe
        margin = 2 * (recipe.margin or 0)
        sizes = tuple((s.size[0] + margin, s.size[1] + margin) for s in problem.scales)
        return cls(until or recipe.total_steps, recipe.steps, sizes)

    def scale(self, step: int) -> int:
        """Return the index of the scale of a step."""
        return min(max(0, -(-step // self.scale_steps) - 1), len(self.sizes) - 1)

    def name(self, step: int) -> str:
        """Return the scale of a step as text, such as `scale 1/3`; empty if there is one scale."""
        if len(self.sizes) == 1:
            return ""
        return f"scale {self.scale(step) + 1}/{len(self.sizes)}"

    def work(self, step: int) -> float:
        """Return the pixels summed over the steps up to `step`; run time is proportional to it."""
        return sum(
            height * width * min(max(0, step - scale * self.scale_steps), self.scale_steps)
            for scale, (height, width) in enumerate(self.sizes)
        )


class Pace:
    """The speed of a run, measured from its iterates, without compilation.

    Args:
      course: course of the run, or its number of steps if it has one scale.
    """

    def __init__(self, course: Course | int):
        self.course = Course(course, course, ((1, 1),)) if isinstance(course, int) else course
        self.step = 0
        self._first: tuple[int, int] | None = None
        self._evaluations = 0
        self._seconds = 0.0
        # Step and time from which the speed of the current scale is measured, and the time at which
        # the next scale will have been compiled; steps are slower meanwhile.
        self._since: tuple[int, float] = 0, 0.0
        self._compiled_at: float | None = None
        # Seconds per pixel and step of the latest scale; small images take longer.
        self._rate: float | None = None
        self._compile_seconds = 0.0

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return self.course.steps

    def tick(self, iterate: Iterate) -> None:
        """Record the next iterate."""
        before, self.step = self.step, iterate.step
        # The sum over a batch, as all batch elements take time on the device.
        self._evaluations = int(np.sum(iterate.evaluations))
        self._compile_seconds = max(self._compile_seconds, iterate.compile_seconds)
        if self._first is None:
            # The time of the first iterate is not spent on steps.
            self._first = iterate.step, self._evaluations
            self._begin_scale(iterate.step)
            return
        self._seconds += iterate.run_seconds
        if self.course.scale(before) != self.course.scale(self.step):
            # The first chunk of a scale also resizes the image and the state.
            self._begin_scale(self.step)
            return
        if work := self.course.work(self.step) - self.course.work(self._since[0]):
            self._rate = (self._seconds - self._since[1]) / work
        if self._compiled_at is not None and self._seconds >= self._compiled_at:
            self._since, self._compiled_at = (self.step, self._seconds), None

    def _begin_scale(self, step: int) -> None:
        """Measure the speed from a step on."""
        self._since = step, self._seconds
        is_last = self.course.scale(step + 1) == len(self.course.sizes) - 1
        self._compiled_at = None if is_last else self._seconds + self._compile_seconds

    @property
    def evaluations_per_second(self) -> float | None:
        """Evaluations of the objective and its gradient per second; None before the first steps."""
        if self._first is None or self._seconds <= 0:
            return None
        return (self._evaluations - self._first[1]) / self._seconds

    @property
    def seconds_left(self) -> float | None:
        """Seconds to the last step, at the speed of the latest scale; None before the first steps.

        Each larger scale is assumed to take the longest compile time so far, and to be compiled
        while the scale before it runs.
        """
        if self._first is None or self._rate is None:
            return None
        course, rate = self.course, self._rate
        left = rate * (course.work(self.steps) - course.work(self.step))
        for scale in range(course.scale(self.step), course.scale(self.steps)):
            end = course.work((scale + 1) * course.scale_steps)
            runs = rate * (end - course.work(max(self._first[0], scale * course.scale_steps)))
            left += max(0.0, self._compile_seconds - runs)
        return left


def clock(seconds: float) -> str:
    """Return a duration as text: `7 s`, `2:05`, `1:02:03`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
