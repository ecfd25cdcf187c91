"""The look of all plots: no clutter, axes with units, SVG in light and dark.

An SVG is drawn for a light page and has a style sheet that turns its colors where the reader
prefers dark ones; programs that know no style sheets show the light one. The background
is drawn too, so that it is legible on any page.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

PAGE, INK = "#fefefe", "#3d444d"
COLORS = ("#0969da", "#c2410c", "#1a7f37", "#8250df", "#9a6700", "#bf3989", "#0e7490", "#6e5b45")
ON_DARK = ("#58a6ff", "#f78166", "#56d364", "#bc8cff", "#e3b341", "#f778ba", "#39c5cf", "#c9a97c")
DARK = {PAGE: "#0d1117", INK: "#b1bac4", **dict(zip(COLORS, ON_DARK, strict=True))}
"""What each color of the light plot becomes on a dark page."""
STYLE = {
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": matplotlib.cycler(color=COLORS),
    "figure.facecolor": PAGE,
    "savefig.facecolor": PAGE,
    "axes.facecolor": "none",
    "font.size": 9,
    "lines.linewidth": 1.6,
    "lines.markersize": 5,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    # The same plot gives the same bytes.
    "svg.hashsalt": "jaxstyle",
}


def figure(columns: int = 1, *, rows: int = 1) -> tuple[Figure, list[list[Axes]]]:
    """Return a figure of panels, 3.8 by 2.8 inches each, and the panels by row."""
    with pyplot.rc_context(STYLE):
        made, axes = pyplot.subplots(
            rows, columns, figsize=(3.8 * columns, 2.8 * rows), squeeze=False, layout="constrained"
        )
    return made, [list(row) for row in axes]


def name_row(row: Sequence[Axes], name: str) -> None:
    """Begin the titles of a row's panels with a name."""
    for axis in row:
        title = axis.get_title(loc="left")
        axis.set_title(": ".join(filter(None, [name, title])), fontsize=10, color=INK, loc="left")


def label(axis: Axes, *, x: str, y: str, title: str = "", log: str = "") -> None:
    """Name both axes with their units; `log` names those with a logarithmic scale."""
    axis.set_xlabel(x)
    axis.set_ylabel(y)
    axis.set_title(title, fontsize=10, color=INK, loc="left")
    if "x" in log:
        axis.set_xscale("log")
    if "y" in log:
        axis.set_yscale("log")


def names(axis: Axes, **options: object) -> None:
    """Name the curves."""
    legend = axis.legend(frameon=False, labelcolor=INK, fontsize=8, **options)
    legend.get_title().set(color=INK, fontsize=8)


def save(made: Figure, path: Path) -> None:
    """Write an SVG, light and dark, without a date in it."""
    with pyplot.rc_context(STYLE):
        made.savefig(path, format="svg", metadata={"Date": None})
    pyplot.close(made)
    # A hundredth of a point is more than can be seen, and halves a plot of many curves.
    text = re.sub(
        r"(?m)^(L \S+?\.\d\d)\d* (\S+?\.\d\d)\d*", r"\1 \2", path.read_text(encoding="utf-8")
    )
    rules = "".join(
        f'[style*="{kind}: {light}"]{{{kind}:{dark}!important}}'
        for light, dark in DARK.items()
        for kind in ("fill", "stroke")
    )
    sheet = f"<style>@media (prefers-color-scheme: dark){{{rules}}}</style>"
    path.write_text(text.replace(" <defs>", f" {sheet}\n <defs>", 1), encoding="utf-8")
