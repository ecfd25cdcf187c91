"""The state of a run for pages and notebooks: images, curves, speed and time left."""

import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxstyle import images
from jaxstyle.engine.iterate import Iterate
from jaxstyle.images.curves import svg_curves
from jaxstyle.monitor.pace import Course, Pace

FIRST_STEPS = 10
"""Steps that curves leave out."""


class View(NamedTuple):
    """A run at one moment."""

    step: int
    steps: int
    labels: tuple[str, ...]
    """Of the images: one, or one a batch element."""
    losses: tuple[float, ...]
    terms: tuple[dict[str, float], ...]
    evaluations_per_second: float | None
    seconds_left: float | None


class Live:
    """The iterates of a run so far; may be read from another thread.

    Images stay on the device until one is asked for.

    Args:
      course: of the run; or its number of steps, where the image has one size.
      labels: of a batch's batch elements; numbers if not given.
    """

    def __init__(self, course: Course | int, *, labels: Sequence[str] | None = None):
        self._labels = None if labels is None else tuple(labels)
        self._pace = Pace(course)
        self._histories: list[Any] = []
        self._last: Iterate | None = None
        self._lock = threading.Lock()

    def tick(self, iterate: Iterate) -> None:
        """Store the next iterate."""
        with self._lock:
            self._pace.tick(iterate)
            self._histories.append(iterate.history)
            # Not the optimizer's state: its memory is the run's to free.
            self._last = iterate._replace(carry=None)

    def view(self) -> View | None:
        """Return the numbers of the last iterate; None before the first."""
        with self._lock:
            if self._last is None:
                return None
            last, pace = self._last, self._pace
            losses = np.ravel(last.loss)
            terms = {name: np.ravel(term) for name, term in last.terms._asdict().items()}
            return View(
                step=last.step,
                steps=pace.steps,
                labels=self._names(len(losses)),
                losses=tuple(map(float, losses)),
                terms=tuple(
                    {name: float(term[element]) for name, term in terms.items()}
                    for element in range(len(losses))
                ),
                evaluations_per_second=pace.evaluations_per_second,
                seconds_left=pace.seconds_left,
            )

    def image(self, element: int, *, longest_side: int = 0, format: str = "JPEG") -> bytes:
        """Encode the best image so far of a batch element (0 where there is one), shrunk if asked
        to.

        Raises:
          LookupError: no such batch element, or no iterate yet.
        """
        with self._lock:
            if self._last is None:
                raise LookupError("no image yet")
            # On the host first: indexing on the device would compile a program for it.
            image = self._last.image
        batch = np.asarray(image)
        if batch.ndim == 3:
            batch = batch[None]
        if not 0 <= element < len(batch):
            raise LookupError(f"no batch element {element}")
        img = batch[element]
        if longest_side:
            img = images.fit(img, longest_side, min_side=1)
        return images.encode_image(img, format)

    def curves(self, *, width: int = 480, height: int = 240) -> str:
        """Draw how the loss went: with its terms for one image, a curve a batch element for
        several.

        The first steps are left out as soon as there are others: the loss falls by so much in them
        that what follows would look flat.
        """
        with self._lock:
            histories = list(self._histories)
        if not histories:
            return svg_curves({}, width=width, height=height)
        steps = np.concatenate([history.step for history in histories])
        past = {
            name: np.concatenate([getattr(history, name) for history in histories], -1)
            for name in histories[0]._fields
            if name != "step"
        }
        later = steps >= min(FIRST_STEPS, steps[-1] // 3)
        steps, past = steps[later], {name: values[..., later] for name, values in past.items()}
        if past["loss"].ndim == 1:
            drawn = {name: (steps, values) for name, values in past.items()}
        else:
            names = self._names(len(past["loss"]))
            drawn = {n: (steps, v) for n, v in zip(names, past["loss"], strict=True)}
        return svg_curves(drawn, width=width, height=height)

    def _names(self, elements: int) -> tuple[str, ...]:
        if self._labels is not None and len(self._labels) == elements:
            return self._labels
        return ("loss",) if elements == 1 else tuple(map(str, range(elements)))
