"""How fast a run goes and how long it will still take."""

import numpy as np

from jaxstyle.engine.loop import Iterate


class Pace:
    """Speed of a run, from its iterates; compiling is not counted.

    Args:
      steps: of the whole run.
    """

    def __init__(self, steps: int):
        self.steps = steps
        self.step = 0
        self._first: tuple[int, int] | None = None
        self._evaluations = 0
        self._seconds = 0.0

    def tick(self, iterate: Iterate) -> None:
        """Take note of the next iterate."""
        self.step = iterate.step
        # Of a batch all batch elements, as the device works for all of them.
        self._evaluations = int(np.sum(iterate.evaluations))
        if self._first is None:
            # The initial image's time is not that of steps.
            self._first = iterate.step, self._evaluations
        else:
            self._seconds += iterate.run_seconds

    @property
    def evaluations_per_second(self) -> float | None:
        """Evaluations of objective and gradient a second; None before the first steps."""
        if self._first is None or self._seconds <= 0:
            return None
        return (self._evaluations - self._first[1]) / self._seconds

    @property
    def seconds_left(self) -> float | None:
        """Until the last step at the speed so far; None before the first steps."""
        if self._first is None or self.step <= self._first[0]:
            return None
        return self._seconds * (self.steps - self.step) / (self.step - self._first[0])


def clock(seconds: float) -> str:
    """Write a duration as a person reads it: `7 s`, `2:05`, `1:02:03`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
