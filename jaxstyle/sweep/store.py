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

    The report is written after the image and holds the image's digest and its own, so a cell
    with a good report is done: its settings, images and weights are those asked for, and
    neither file has changed since.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.cells = folder / "cells"

    def open(self) -> contextlib.AbstractContextManager[FileLock]:
        """Create the folder and lock it against other processes until the context ends.

        Raises:
          JaxstyleError: it cannot be made or written, or another process has it.
        """
        try:
            self.cells.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.folder / ".lock", timeout=0)
            held = lock.acquire()
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
            left.unlink()  # Of a process that was killed while writing.
        return held

    def find(self, cells: Iterable[Cell]) -> dict[str, Report]:
        """Return the reports of the cells that are done, by key; the folder is listed once.

        The readable part of a file's name depends on what else varies in the grid, so only the
        beginning of the key in it is compared.
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
        """Write a cell's image and then its report.

        Args:
          cell: what was run.
          result: what came of it.
          elements: places in its batch.
          place: its own among them.
          of: cells in its group.
          filled: places in its batch that cells ran in.
        """
        path = self.cells / f"{cell.name}.png"
        weights = cell.settings.get("weights", "auto")
        inputs = cell.inputs.report()
        made = record(result, network=cell.network, weights=weights, inputs=inputs)
        images.save_image(path, result.image, argument="-o", text=as_text(made))
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


_KEY_DIGITS = 12
"""Of a cell's key, at the end of its files' names (`Cell.name`)."""


def _finished(path: Path, cell: Cell) -> Report | None:
    """Return a cell's report; None if it is another cell's, or it or its image is not whole."""
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
    """Compute the digest of a report as JSON has it, with null for numbers that are not finite."""
    plain = json.dumps(json.loads(to_json(report)), sort_keys=True)
    return hashlib.sha256(plain.encode()).hexdigest()
