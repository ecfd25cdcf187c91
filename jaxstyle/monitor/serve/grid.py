"""The page of a grid: a table of its cells."""

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
"""Longest side of a cell's image on the page, in pixels."""


class _Running(NamedTuple):
    """A running cell."""

    image: jax.Array | np.ndarray
    """Images of the whole batch, `[k, h, w, 3]`, on the device until a page requests one."""
    element: int
    """Index of the cell in the batch."""
    step: int
    steps: int
    loss: float


class GridView(View):
    """The cells of a grid.

    Args:
      folder: folder of the grid.
      cells: all cells of the grid, in order.
      reports: reports of the finished cells by key.
    """

    FILES: ClassVar = {"": "grid.html", "grid.js": "grid.js"}

    def __init__(self, folder: Path, cells: Sequence[Cell], reports: Mapping[str, Report]):
        super().__init__()
        self._folder, self._cells = folder, cells
        self._index = {cell.key: index for index, cell in enumerate(cells)}
        self._lock = threading.Lock()
        self._finished: dict[int, Report] = {}  # In the order in which they finished.
        self._running: dict[int, _Running] = {}
        self._seconds_left: float | None = None
        self.keep(reports)

    def tick(self, progress: Progress) -> None:
        """Record the running cells after a chunk of steps."""
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
        """Record the reports of finished cells."""
        with self._lock:
            for key, report in reports.items():
                if (index := self._index.get(key)) is not None:
                    self._finished.setdefault(index, report)
                    self._running.pop(index, None)

    def numbers(self, since: int) -> dict[str, Any]:
        """Return the running cells, and the finished cells without the first `since`."""
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
        """Return `cells` (settings, JSON), `picture/CELL` (small JPEG) or `whole/CELL` (PNG)."""
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
            # Copied to the host first, as indexing on the device compiles a program.
            image = np.asarray(running.image)[running.element]
            return images.fit(image, THUMBNAIL, min_side=1)
        with self._lock:
            report = self._finished[cell]
        try:
            return load_reduced(self._folder, report, THUMBNAIL)
        except JaxstyleError as error:  # The file was removed.
            raise LookupError(str(error)) from None

    def _file(self, cell: int) -> Path:
        with self._lock:
            report = self._finished[cell]
        path = self._folder / image_of(report)
        if not path.is_file():
            raise LookupError(str(path))
        return path
