"""One HTML page of a grid: a card a cell, to be sorted by loss and filtered by setting.

The page needs nothing beside it: pictures are embedded (reduced, with a link to the whole
one), loss curves are inline SVG, and the script is a few lines of its own.
"""

import base64
import html
import json
import math
from collections.abc import Mapping, Sequence
from importlib import resources
from string import Template

import numpy as np

from jaxstyle import images
from jaxstyle.grid.cells import Cell
from jaxstyle.grid.store import Report

WIDTH, HEIGHT = 220, 120
MOST_POINTS = 200


def page(
    title: str,
    cells: Sequence[Cell],
    reports: Mapping[str, Report],
    thumbnails: Mapping[str, np.ndarray],
) -> str:
    """Put the finished cells on a page; everything by the cell's key."""
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
    template = resources.files(__package__).joinpath("page.html").read_text(encoding="utf-8")
    return Template(template).substitute(
        title=html.escape(title),
        count=len(cells),
        filters=filters,
        cards="\n".join(
            _card(number, cell, reports[cell.key], thumbnails[cell.key])
            for number, cell in enumerate(cells)
        ),
    )


def _card(number: int, cell: Cell, report: Report, thumbnail: np.ndarray) -> str:
    labels = cell.labels()
    loss = "Infinity" if report["loss"] is None else report["loss"]  # As JavaScript reads it.
    address = html.escape(f"cells/{report['cell']['name']}", quote=True)
    data = base64.b64encode(images.encode_image(thumbnail, "JPEG")).decode()
    named = ", ".join(f"{axis} = {value}" for axis, value in labels.items()) or "the only cell"
    terms = "".join(
        f"<dt>{term}</dt><dd>{_number(value)}</dd>" for term, value in report["terms"].items()
    )
    return (
        f'<article data-number="{number}" data-loss="{loss}" '
        f"data-settings={_quoted(json.dumps(labels))}>"
        f'<a href="{address}.png"><img src="data:image/jpeg;base64,{data}" '
        f"alt={_quoted(named)}></a>"
        f"<div><h2>{html.escape(named)}</h2>{curve(report['history'])}"
        f"<dl><dt>loss</dt><dd>{_number(report['loss'])}</dd>{terms}"
        f"<dt>evaluations</dt><dd>{report['evaluations']}</dd>"
        f"<dt>seconds</dt><dd>{report['cell']['seconds']:.3g}</dd></dl>"
        f'<p><a href="{address}.json">report</a></p></div></article>'
    )


def curve(history: Mapping[str, Sequence[float | None]]) -> str:
    """Draw a loss over its steps as SVG, on a logarithmic scale; a diverged end is left out."""
    points = [
        (step, math.log10(loss))
        for step, loss in zip(history["step"], history["loss"], strict=True)
        if step is not None and loss is not None and loss > 0
    ]
    if len(points) < 2:
        return ""
    every = -(-len(points) // MOST_POINTS)
    points = [*points[:-1:every], points[-1]]
    last = points[-1][0]
    low, high = min(y for _, y in points), max(y for _, y in points)
    span = (high - low) or 1.0
    left, top, right, bottom = 48, 8, WIDTH - 6, HEIGHT - 20
    path = " ".join(
        f"{left + (right - left) * x / last:.1f},{bottom - (bottom - top) * (y - low) / span:.1f}"
        for x, y in points
    )
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="loss over steps">'
        f'<path d="M{left},{top} V{bottom} H{right}"/>'
        f'<polyline points="{path}"/>'
        f'<text x="{left - 4}" y="{top + 8}" text-anchor="end">{10**high:.2g}</text>'
        f'<text x="{left - 4}" y="{bottom}" text-anchor="end">{10**low:.2g}</text>'
        f'<text x="{left}" y="{HEIGHT - 6}">loss (log)</text>'
        f'<text x="{right}" y="{HEIGHT - 6}" text-anchor="end">step {last}</text></svg>'
    )


def _number(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.4g}"


def _quoted(text: str) -> str:
    return f'"{html.escape(text, quote=True)}"'
