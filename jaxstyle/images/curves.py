"""Loss curves as inline SVG, for pages and notebooks."""

import html
import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

# Okabe and Ito's colors, which color-blind people can distinguish.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
MAX_POINTS = 300
MAX_DECADES = 5
"""Decades below the largest value that the axis covers; smaller values are drawn at its lower end.
A content loss that starts at 1e-8 would flatten all curves otherwise."""
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 12, 12, 24
_CHARACTER, _LINE = 6.2, 16
"""Width of a character and height of a line of the legend, in pixels."""


def svg_curves(
    curves: Mapping[str, tuple[ArrayLike, ArrayLike]], *, width: int = 480, height: int = 240
) -> str:
    """Return a plot of curves on a logarithmic axis, with a legend above.

    Args:
      curves: steps `[n]` and values `[n]` by label; values that are not finite and positive are
        left out.
      width: width of the plot in pixels.
      height: height of the plot in pixels.

    Returns:
      An `<svg>` element without external scripts, style sheets or fonts.
    """
    good = {label: _thinned(*map(np.asarray, curve)) for label, curve in curves.items()}
    steps = np.concatenate([s for s, _ in good.values()] or [np.zeros(0)])
    logs = np.concatenate([v for _, v in good.values()] or [np.zeros(0)])
    last = float(steps.max()) if steps.size else 1.0
    first = float(steps.min()) if steps.size else 0.0
    high = math.ceil(logs.max()) if logs.size else 1
    low = max(math.floor(logs.min()), high - MAX_DECADES) if logs.size else 0
    low = min(low, high - 1)
    places, top = _legend(list(curves), width)
    inner_width, inner_height = width - _LEFT - _RIGHT, height - top - _BOTTOM

    def x(step: float) -> float:
        return _LEFT + inner_width * (step - first) / max(last - first, 1)

    def y(log: float) -> float:
        return top + inner_height * (high - max(log, low)) / (high - low)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" role="img" aria-label="loss curves" '
        'font-family="sans-serif" font-size="11">'
    ]
    every = max(1, math.ceil((high - low) / 6))
    for power in range(low, high + 1, every):
        parts.append(
            f'<line x1="{_LEFT}" x2="{width - _RIGHT}" y1="{y(power):.1f}" y2="{y(power):.1f}" '
            'stroke="#8888" stroke-width="0.5"/>'
            f'<text x="{_LEFT - 6}" y="{y(power) + 4:.1f}" text-anchor="end" fill="#888">'
            f"1e{power}</text>"
        )
    for step, anchor in ((first, "start"), (last, "end"))[: 1 if first == last else 2]:
        parts.append(
            f'<text x="{x(step):.1f}" y="{height - 8}" text-anchor="{anchor}" fill="#888">'
            f"step {step:g}</text>"
        )
    for number, (label, (at, values)) in enumerate(good.items()):
        color = COLORS[number % len(COLORS)]
        left, baseline = places[number]
        points = " ".join(f"{x(s):.1f},{y(v):.1f}" for s, v in zip(at, values, strict=True))
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="1.5"/>'
            f'<text x="{left:.1f}" y="{baseline}" fill="{color}">{html.escape(label)}</text>'
        )
    return "".join([*parts, "</svg>"])


def _legend(labels: list[str], width: int) -> tuple[list[tuple[float, int]], int]:
    """Return the left end and baseline of each label, in lines, and the height that they take."""
    places, left, baseline = [], float(_LEFT), _TOP
    for label in labels:
        length = _CHARACTER * (len(label) + 2)
        if left > _LEFT and left + length > width:
            left, baseline = float(_LEFT), baseline + _LINE
        places.append((left, baseline))
        left += length
    return places, baseline + _TOP


def _thinned(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the steps and logarithms of finite positive values, at most `MAX_POINTS`."""
    good = np.isfinite(values) & (values > 0)
    steps, values = steps[good], values[good]
    if len(steps) > MAX_POINTS:
        kept = np.unique(np.linspace(0, len(steps) - 1, MAX_POINTS).round().astype(int))
        steps, values = steps[kept], values[kept]
    return steps, np.log10(values)
