"""The HTML page of a grid, which sorts cells by loss and filters them by setting.

The page is self-contained: reduced images are embedded, with links to the full ones, loss
curves are inline SVG, and the script is inline.
"""

import base64
import html
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from string import Template

import numpy as np

from jaxstyle import images
from jaxstyle.images.curves import svg_curves
from jaxstyle.sweep.cell import Cell
from jaxstyle.sweep.store import Report

WIDTH, HEIGHT = 260, 140


def page(
    title: str,
    cells: Sequence[Cell],
    reports: Mapping[str, Report],
    thumbnails: Mapping[str, np.ndarray],
) -> str:
    """Return the page of the finished cells.

    Args:
      title: title of the page.
      cells: finished cells in the grid's order.
      reports: reports by key.
      thumbnails: reduced images `[h, w, 3]` by key.
    """
    axes = {
        axis: list(dict.fromkeys(cell.labels()[axis] for cell in cells)) for axis in cells[0].axes
    }
    filters = "".join(
        f"<label>{html.escape(axis)} <select data-axis={_quoted(axis)}>"
        + "<option value=''>all</option>"
        + "".join(f"<option>{html.escape(value)}</option>" for value in values)
        + "</select></label>"
        for axis, values in axes.items()
    )
    objectives = list(dict.fromkeys(cell.objective for cell in cells))
    template = resources.files(__package__).joinpath("page.html").read_text(encoding="utf-8")
    return Template(template).substitute(
        title=html.escape(title),
        count=len(cells),
        filters=filters,
        cards="\n".join(
            _card(
                number,
                cell,
                reports[cell.key],
                thumbnails[cell.key],
                objective=objectives.index(cell.objective),
            )
            for number, cell in enumerate(cells)
        ),
        note=""
        if len(objectives) < 2
        else "<p>Losses of different objectives (settings of the loss, images, weights) do not "
        "compare: sorted by loss, cells stay with those of their own objective.</p>",
    )


def _card(number: int, cell: Cell, report: Report, thumbnail: np.ndarray, *, objective: int) -> str:
    labels = cell.labels()
    loss = "Infinity" if report["loss"] is None else report["loss"]  # As JavaScript reads it.
    address = html.escape(f"cells/{report['cell']['name']}", quote=True)
    data = base64.b64encode(images.encode_image(thumbnail, "JPEG")).decode()
    named = ", ".join(f"{axis} = {value}" for axis, value in labels.items()) or "the only cell"
    terms = "".join(
        f"<dt>{term}</dt><dd>{_number(value)}</dd>" for term, value in report["terms"].items()
    )
    return (
        f'<article data-number="{number}" data-loss="{loss}" data-objective="{objective}" '
        f"data-settings={_quoted(json.dumps(labels))}>"
        f'<a href="{address}.png"><img src="data:image/jpeg;base64,{data}" '
        f"alt={_quoted(named)}></a>"
        f"<div><h2>{html.escape(named)}</h2>{_curve(report['history'])}"
        f"<dl><dt>loss</dt><dd>{_number(report['loss'])}</dd>{terms}"
        f"<dt>evaluations</dt><dd>{report['evaluations']}</dd>"
        f"<dt>seconds</dt><dd>{report['cell']['seconds']:.3g}</dd></dl>"
        f'<p><a href="{address}.json">report</a></p></div></article>'
    )


def _curve(history: Mapping[str, Sequence[float | None]]) -> str:
    # Null becomes NaN, which is left out of the curve.
    steps, losses = (np.asarray(history[name], float) for name in ("step", "loss"))
    return svg_curves({"loss": (steps, losses)}, width=WIDTH, height=HEIGHT)


def _number(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.4g}"


def _quoted(text: str) -> str:
    return f'"{html.escape(text, quote=True)}"'
