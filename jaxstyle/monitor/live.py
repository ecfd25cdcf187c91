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
"""Number of first steps that curves omit."""


class View(NamedTuple):
    """The numbers of a run at one iterate; sequences are over the batch elements."""

    step: int
    steps: int
    labels: tuple[str, ...]
    """Name of each batch element."""
    losses: tuple[float, ...]
    terms: tuple[dict[str, float], ...]
    evaluations_per_second: float | None
    seconds_left: float | None


class Live:
    """The iterates of a run so far; may be read from another thread.

    Images stay on the device until one is requested.

    Args:
      course: course of the run, or its number of steps if it has one scale.
      labels: name of each batch element; its index if not given.
    """

    def __init__(self, course: Course | int, *, labels: Sequence[str] | None = None):
        self._labels = None if labels is None else tuple(labels)
        self._pace = Pace(course)
        self._histories: list[Any] = []
        self._last: Iterate | None = None
        self._lock = threading.Lock()

    def tick(self, iterate: Iterate) -> None:
        """Record the next iterate."""
        with self._lock:
            self._pace.tick(iterate)
            self._histories.append(iterate.history)
            # Without the optimizer's state, so that its memory can be freed.
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
        """Encode the best image so far of a batch element.

        Args:
          element: index of the batch element; 0 if the run is not a batch.
          longest_side: pixels to which larger images are reduced; 0 for no reduction.
          format: format as in `images.encode_image`.

        Raises:
          LookupError: there is no such batch element, or no iterate yet.
        """
        with self._lock:
            if self._last is None:
                raise LookupError("no image yet")
            # Copied to the host first, as indexing on the device compiles a program.
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
        """Draw the loss by step as SVG: with its terms for one image, or by batch element.

        The first steps are omitted once there are more, as the loss falls so much in them that the
        rest would look flat.

        Args:
          width: width in pixels.
          height: height in pixels.
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
