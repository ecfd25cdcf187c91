"""The finished cells of a grid's folder, for notebooks and scripts."""

import csv
import dataclasses
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from jaxstyle import images
from jaxstyle.config.recipe import Recipe
from jaxstyle.errors import JaxstyleError
from jaxstyle.files import StrPath, reason, shown
from jaxstyle.sweep.store import Report, load_cell_image, loss_of


@dataclasses.dataclass(frozen=True, eq=False)
class FinishedCell:
    """A finished cell of a grid: its report and its image."""

    report: Report
    """Report of the cell, as JSON values."""
    image_path: Path
    """File of the image."""
    settings: dict[str, Any]
    """The settings that vary over the grid."""

    @cached_property
    def recipe(self) -> Recipe:
        """All settings, resolved."""
        return Recipe.from_dict(self.report["recipe"])

    @cached_property
    def image(self) -> images.Array:
        """The image `[h, w, 3]`, RGB in [0, 1]."""
        return load_cell_image(self.image_path, self.report)

    @property
    def loss(self) -> float:
        """Loss of the image under the cell's recipe; infinite if it is not finite.

        Losses of different objectives are not comparable.
        """
        return loss_of(self.report)

    @property
    def lowest(self) -> float:
        """The lowest loss of the run; infinite if none is finite.

        Without bounds it may be much lower than `loss`, whose image is clipped to [0, 1].
        """
        losses = self.history("loss")
        return float(np.min(losses[np.isfinite(losses)], initial=np.inf))

    @property
    def seconds(self) -> float:
        """The running time of its batch, divided by the number of cells."""
        return float(self.report["cell"]["seconds"])

    def history(self, name: str) -> np.ndarray:
        """Return `step`, `loss`, `content`, `style` or `tv` by step; NaN if it is not finite."""
        values = self.report["history"][name]
        return np.array([np.nan if value is None else value for value in values], float)


def read_results(folder: StrPath) -> list[FinishedCell]:
    """Return the finished cells of a grid's folder, in the grid's order.

    Raises:
      JaxstyleError: there is no `results.csv`, or a report cannot be read.
    """
    folder = Path(folder)
    try:
        with open(folder / "results.csv", encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
        reports = [json.loads((folder / row["report"]).read_bytes()) for row in rows]
    except (OSError, ValueError, KeyError) as error:
        raise JaxstyleError(
            f"folder {shown(folder)} has no results of `jaxstyle grid`: {reason(error)}"
        ) from None
    varied = _varied([report["cell"]["settings"] for report in reports])
    return [
        FinishedCell(
            report,
            folder / row["image"],
            {name: report["cell"]["settings"][name] for name in varied},
        )
        for row, report in zip(rows, reports, strict=True)
    ]


def _varied(settings: Sequence[dict[str, Any]]) -> list[str]:
    """Return the names of the settings that differ between cells, in the file's order."""
    names = settings[0] if settings else ()
    return [name for name in names if any(other[name] != settings[0][name] for other in settings)]
