"""The page of a grid: a table of its cells, filling in."""

import json
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import jax
import numpy as np

from jaxstyle import images
from jaxstyle.errors import JaxstyleError
from jaxstyle.monitor.serve.view import Answer, View, finite
from jaxstyle.sweep import Cell, Progress, Report
from jaxstyle.sweep.summary import image_of, load_reduced

THUMBNAIL = 320
"""Pixels of the longer side of a cell's image on the page."""


class _Running(NamedTuple):
    """A cell under way."""

    image: jax.Array | np.ndarray
    """Of all batch elements of its batch, on the device until a page asks for them."""
    element: int
    step: int
    steps: int
    loss: float


class GridView(View):
    """The cells of a grid.

    Args:
      folder: the grid's.
      cells: in the grid's order.
      reports: of those that are finished.
    """

    FILES: ClassVar = {"": "grid.html", "grid.js": "grid.js"}

    def __init__(self, folder: Path, cells: Sequence[Cell], reports: Mapping[str, Report]):
        super().__init__()
        self._folder, self._cells = folder, cells
        self._index = {cell.key: index for index, cell in enumerate(cells)}
        self._lock = threading.Lock()
        self._finished: dict[int, Report] = {}  # In the order in which they came.
        self._running: dict[int, _Running] = {}
        self._seconds_left: float | None = None
        self.keep(reports)

    def tick(self, progress: Progress) -> None:
        """Record a chunk of steps of a batch."""
        iterate = progress.iterate
        with self._lock:
            self._seconds_left = progress.seconds_left
            if iterate is None:
                return
            for element, cell in enumerate(progress.places):
                if cell is not None:
                    self._running[self._index[cell.key]] = _Running(
                        iterate.image,
                        element,
                        iterate.step,
                        progress.steps,
                        float(iterate.loss[element]),
                    )

    def keep(self, reports: Mapping[str, Report]) -> None:
        """Record the finished cells."""
        with self._lock:
            for key, report in reports.items():
                if (index := self._index.get(key)) is not None:
                    self._finished.setdefault(index, report)
                    self._running.pop(index, None)

    def numbers(self, since: int) -> dict[str, Any]:
        """Return the cells that run, and those that were finished after the first `since`."""
        with self._lock:
            finished, running = list(self._finished.items()), dict(self._running)
            seconds_left = self._seconds_left
        return {
            "done": len(finished),
            "total": len(self._cells),
            "finished": [
                {"cell": cell, "loss": report["loss"]} for cell, report in finished[since:]
            ],
            "running": [
                {"cell": cell, "step": r.step, "steps": r.steps, "loss": finite(r.loss)}
                for cell, r in running.items()
            ],
            "seconds_left": seconds_left,
        }

    def answer(self, name: str, number: int | None) -> Answer:
        """Return `cells` (what varies, JSON), `picture/CELL` (reduced) or `whole/CELL` (PNG)."""
        match name, number:
            case "cells", None:
                description = {
                    "title": self._folder.resolve().name,
                    "axes": list(self._cells[0].axes),
                    "labels": [list(cell.labels().values()) for cell in self._cells],
                    "objectives": [cell.objective for cell in self._cells],
                }
                return Answer(json.dumps(description), "application/json")
            case "picture", int(cell):
                return Answer(images.encode_image(self._image(cell), "JPEG"), "image/jpeg")
            case "whole", int(cell):
                return Answer(self._file(cell).read_bytes(), "image/png")
        raise LookupError(name)

    def _image(self, cell: int) -> np.ndarray:
        with self._lock:
            running = self._running.get(cell)
        if running is not None:
            # On the host first: indexing on the device would compile a program for it.
            image = np.asarray(running.image)[running.element]
            return images.fit(image, THUMBNAIL, min_side=1)
        with self._lock:
            report = self._finished[cell]
        try:
            return load_reduced(self._folder, report, THUMBNAIL)
        except JaxstyleError as error:  # Somebody took it away.
            raise LookupError(str(error)) from None

    def _file(self, cell: int) -> Path:
        with self._lock:
            report = self._finished[cell]
        path = self._folder / image_of(report)
        if not path.is_file():
            raise LookupError(str(path))
        return path
