"""The summary of a grid: a table, a contact sheet and a page."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxstyle import images
from jaxstyle.config.layers import format_layers
from jaxstyle.files import write_atomically
from jaxstyle.images.sheets import contact_sheet
from jaxstyle.sweep.cell import Cell
from jaxstyle.sweep.page import page
from jaxstyle.sweep.store import Report, load_cell_image

# Largest width of a contact sheet, and of an image in it, in pixels.
WIDEST, THUMBNAIL = 6000, 256
MAX_IN_A_ROW = 8


def write_table(folder: Path, cells: Sequence[Cell], reports: Mapping[str, Report]) -> None:
    """Write `results.csv`, with a row per finished cell in the grid's order."""
    rows = [row(cell, reports[cell.key]) for cell in cells if cell.key in reports]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]) if rows else ["image"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(folder / "results.csv", text.getvalue().encode(), argument="-o")


def row(cell: Cell, report: Report) -> dict[str, Any]:
    """Return a cell's settings and numbers as a row; missing values are empty.

    `loss_content`, `loss_style` and `loss_tv` are the weighted terms. Losses are comparable between
    rows with equal `objective` only. `lanes` is the size of the cell's batch, and `seconds` the
    running time of the batch divided by its number of cells.
    """
    recipe = {
        name: format_layers(tuple(value.items())) if isinstance(value, dict) else value
        for name, value in report["recipe"].items()
    }
    styles = [style["path"] for style in report["images"]["styles"]]
    return {
        "content": report["images"]["content"]["path"],
        "style": "+".join(styles),
        "weights": report["weights"]["name"],
        "preset": cell.settings.get("preset", "default"),
        **recipe,
        "objective": f"o-{cell.objective[:8]}",
        "loss": report["loss"],
        **{f"loss_{term}": value for term, value in report["terms"].items()},
        "initial_loss": report["initial"]["loss"],
        "evaluations": report["evaluations"],
        "diverged": report["cell"].get("diverged", False),
        "seconds": report["cell"]["seconds"],
        "lanes": report["cell"]["lanes"],
        "image": image_of(report),
        "report": str(Path(image_of(report)).with_suffix(".json")),
    }


def image_of(report: Report) -> str:
    """Return the path of a cell's image, relative to the grid's folder."""
    return f"cells/{report['cell']['name']}.png"


def write_overview(folder: Path, cells: Sequence[Cell], reports: Mapping[str, Report]) -> None:
    """Write `contact_sheet.png` and `index.html` of the cells that are finished."""
    finished = [cell for cell in cells if cell.key in reports]
    if not finished:
        return
    # The fastest axis runs along the rows; a single long axis is wrapped.
    along, down = cells[0].axes[-1:], cells[0].axes[:-1]
    columns = list(dict.fromkeys(_named(cell, along) for cell in cells))
    rows = list(dict.fromkeys(_named(cell, down) for cell in cells))
    side = max(48, min(THUMBNAIL, WIDEST // max(len(columns), len(rows)) - 8))
    thumbnails = {cell.key: load_reduced(folder, reports[cell.key], side) for cell in finished}
    placed = {(_named(cell, down), _named(cell, along)): thumbnails[cell.key] for cell in finished}
    places = [(row, column) for row in rows for column in columns]
    missing = np.full((side // 2, side // 2, 3), 0.85, np.float32)
    sheet = contact_sheet(
        [placed.get(place, missing) for place in places],
        columns=len(columns) if len(rows) > 1 else min(len(columns), MAX_IN_A_ROW),
        labels=["\n".join(filter(None, place)) for place in places],
    )
    images.save_image(folder / "contact_sheet.png", sheet, argument="-o")
    text = page(folder.resolve().name, finished, reports, thumbnails)
    write_atomically(folder / "index.html", text.encode(), argument="-o")


def _named(cell: Cell, axes: Sequence[str]) -> str:
    labels = cell.labels()
    return "\n".join(f"{axis} = {labels[axis]}" for axis in axes)


def load_reduced(folder: Path, report: Report, side: int) -> np.ndarray:
    """Read a finished cell's image, reduced to a longest side of at most `side` pixels."""
    return images.fit(load_cell_image(folder / image_of(report), report), side, min_side=1)
