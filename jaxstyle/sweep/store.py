"""The folder of a grid: an image and a report for each finished cell."""

import collections
import contextlib
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from jaxstyle import images
from jaxstyle.engine.results import Result
from jaxstyle.errors import JaxstyleError
from jaxstyle.files import reason, sha256_of, shown, write_atomically
from jaxstyle.provenance.record import as_text
from jaxstyle.provenance.report import record, run_report, to_json
from jaxstyle.sweep.cell import Cell

Report = dict[str, Any]


class Store:
    """Finished cells in `folder/cells`, identified by their settings and inputs.

    A report is written after the image and contains the digests of both. A cell with a valid
    report is therefore finished: its settings, images and weights are those of the grid, and
    neither file has changed since.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.cells = folder / "cells"

    def open(self) -> contextlib.AbstractContextManager[FileLock]:
        """Create the folder and lock it against other processes until the context ends.

        Raises:
          JaxstyleError: the folder cannot be created or written, or another process locks it.
        """
        try:
            self.cells.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.folder / ".lock", timeout=0)
            context = lock.acquire()
        except Timeout:
            raise JaxstyleError(
                f"-o {shown(self.folder)}: another jaxstyle grid is running there; wait for it "
                "or choose another folder"
            ) from None
        except OSError as error:
            raise JaxstyleError(
                f"-o {shown(self.folder)} cannot be written: {reason(error)}; choose another folder"
            ) from None
        for left in self.cells.glob(".jaxstyle-*.tmp"):
            left.unlink()  # From a process that was killed while writing.
        return context

    def find(self, cells: Iterable[Cell]) -> dict[str, Report]:
        """Return the reports of the finished cells by key; the folder is listed once.

        Only the part of the key in a file's name is compared, as the readable part depends on the
        other settings that vary in the grid.
        """
        paths = collections.defaultdict(list)
        for path in sorted(self.cells.glob("*.json")):
            paths[path.stem[-_KEY_DIGITS:]].append(path)
        reports = {}
        for cell in cells:
            for path in paths[cell.key[:_KEY_DIGITS]]:
                if (report := _finished(path, cell)) is not None:
                    reports[cell.key] = report
                    break
        return reports

    def save(
        self, cell: Cell, result: Result, *, elements: int, place: int, of: int, filled: int
    ) -> Report:
        """Write a cell's image, then its report, and return the report.

        Args:
          cell: the cell.
          result: its result.
          elements: size of its batch.
          place: position of the cell in its batch.
          of: number of cells in its group.
          filled: number of cells in its batch.
        """
        path = self.cells / f"{cell.name}.png"
        weights = cell.settings.get("weights", "auto")
        inputs = cell.inputs.report()
        text = as_text(record(result, network=cell.network, weights=weights, inputs=inputs))
        images.save_image(path, result.image, argument="-o", text=text)
        report = run_report(
            result, network=cell.network, weights=weights, inputs=inputs, output=path
        )
        report["cell"] = {
            "key": cell.key,
            "name": cell.name,
            "settings": cell.settings,
            "lanes": elements,
            "place": place,
            "of": of,
            "diverged": result.diverged,
            # The batch's seconds, divided among its cells.
            "seconds": result.run_seconds / filled,
        }
        report["digest"] = _digest(report)
        write_atomically(path.with_suffix(".json"), to_json(report).encode(), argument="-o")
        return report


def loss_of(report: Report) -> float:
    """Return the loss of a finished cell; infinite if it is not finite, which is null in JSON."""
    return float("inf") if report["loss"] is None else float(report["loss"])


def load_cell_image(path: Path, report: Report) -> images.Array:
    """Read the image of a finished cell."""
    # The limit on pixels is for images of others; a report has the size of the image.
    width, height = report["images"]["output"]["size"]
    return images.load_image(path, max_pixels=width * height)


_KEY_DIGITS = 12
"""Digits of a cell's key at the end of its files' names (`Cell.name`)."""


def _finished(path: Path, cell: Cell) -> Report | None:
    """Return a cell's report; None if it is of another cell, or it or its image is damaged."""
    report = _read(path)
    if report is None or report["cell"]["key"] != cell.key:
        return None
    try:
        whole = sha256_of(path.with_suffix(".png")) == report["images"]["output"]["sha256"]
    except JaxstyleError:
        return None
    return report if whole else None


def _read(path: Path) -> Report | None:
    try:
        report = json.loads(path.read_bytes())
        whole = report.pop("digest") == _digest(report)
    except (OSError, ValueError, TypeError, AttributeError, KeyError, RecursionError):
        return None
    return report if whole else None


def _digest(report: Report) -> str:
    """Compute the digest of a report as JSON, with null for numbers that are not finite."""
    plain = json.dumps(json.loads(to_json(report)), sort_keys=True)
    return hashlib.sha256(plain.encode()).hexdigest()
