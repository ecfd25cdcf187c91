"""The look of all plots: no clutter, axes with units, readable on light and on dark pages.

Pages differ in their background, an image in a README cannot. So the background is left
out and everything is drawn in tones that stand out from white as well as from near black.
"""

import re
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

INK = "#7a7f87"
"""Contrast 4.0 to white and 4.7 to #0d1117."""
COLORS = ("#2f81d6", "#d9622b", "#2f9e62", "#b065d8", "#b8860b", "#d6457c", "#1f9aa8", "#8a7a5c")
STYLE = {
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": matplotlib.cycler(color=COLORS),
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "font.size": 9,
    "legend.frameon": False,
    "legend.labelcolor": INK,
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


def figure(columns: int = 1, *, rows: int = 1) -> tuple[Figure, list[Axes]]:
    """Make a figure of panels, 3.6 by 2.7 inches each, row by row."""
    with pyplot.rc_context(STYLE):
        made, axes = pyplot.subplots(
            rows, columns, figsize=(3.6 * columns, 2.7 * rows), squeeze=False, layout="constrained"
        )
    return made, list(axes.flat)


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
    """Write an SVG without a date in it."""
    with pyplot.rc_context(STYLE):
        made.savefig(path, format="svg", metadata={"Date": None})
    pyplot.close(made)
    # A hundredth of a point is more than can be seen, and halves a plot of many curves.
    text = path.read_text(encoding="utf-8")
    path.write_text(
        re.sub(r"(?m)^(L \S+?\.\d\d)\d* (\S+?\.\d\d)\d*", r"\1 \2", text), encoding="utf-8"
    )
