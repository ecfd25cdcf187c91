"""Procedural style images: brush strokes of a swirling sky over hills.

The demo, notebooks, studio and tests use them as styles. Every stroke consists of thin,
tapered bristles drawn at twice the size. The same bristles draw a map of the paint's
thickness, which is lit from the upper left at the end. Lengths are in units of the
shorter side; y points down.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

Floats = npt.NDArray[np.floating]
Brush = tuple[float, float, float]

SUPERSAMPLE = 2
LIGHT = (-0.6, -0.8)  # towards the light, in x and y


class Palette(NamedTuple):
    """Colors of a scene in hexadecimal; a stroke has one of two neighboring colors at random."""

    sky: list[str]
    """Colors of the sky, from the outside to the center of a light."""
    glow: list[str]
    """Colors of a light, from its edge to its center."""
    hills: list[str]
    """Colors of the hills."""
    accents: list[str]
    """Colors of a few random strokes."""


PALETTES: Mapping[str, Palette] = {
    "night": Palette(
        "#0b1440 #142a6e #1c459b #2f6fc0 #5fa3d0 #a5cfd0 #e9e2ae #fff3c4".split(),
        "#3f8f9c #8fb573 #d9a92f #f0bd38 #f8d75e #fff0ac #fffbe6".split(),
        "#0d1f2b #17423f #2f6b45 #7d8f3a #c79a35 #b5612a #6b2f3c #2b2352".split(),
        "#d4622b #7a3f8c #c9b8d8 #2aa19a #0a0f2c".split(),
    ),
    "embers": Palette(
        "#1d0b14 #4a0f1d #85182a #bf2f24 #e25a22 #f08a2c #f6bd57 #fde6ae".split(),
        "#a3341f #d4581c #ee8a22 #f7b53a #fbd968 #fff0b4 #fffbe8".split(),
        "#12141f #232742 #3b2a52 #5b2a55 #7c2c48 #4a1f33 #1f1a2e #0e0d16".split(),
        "#2a6f8f #f3d9c1 #6fae9a #120a10 #c9433a".split(),
    ),
    "meadow": Palette(
        "#5d9ea8 #7fb8b5 #a3cfc0 #c3dfc6 #dcead0 #eef0d8 #f7f0dc #fdf8ea".split(),
        "#e8a3a0 #ee8f86 #f2b26a #f6cf7a #f9e3a0 #fdf3cf #fffaf0".split(),
        "#2f5d3a #4b7f3f #79a043 #a9bb4e #d9cf63 #c98f9f #8a6aa5 #46507f".split(),
        "#c0506a #f4f1e6 #7a63a8 #e9b44c #2c6e6a".split(),
    ),
}
"""Colors of a scene by name."""
# Breadth and length of a stroke, and the mean number of strokes over a point. Small strokes are
# drawn over large ones.
BRUSHES = [(0.075, 0.30, 2.2), (0.036, 0.20, 1.9), (0.019, 0.13, 1.5), (0.010, 0.08, 0.6)]


class Scene(NamedTuple):
    """Positions of the lights, the flow field and the hills."""

    lights: Floats  # [n, 4]: x, y, radius, turning sense
    waves: Floats  # [m, 4]: wave numbers in x and y, phase, strength
    ridges: Floats  # [k, 4]: height, amplitude, wave number, phase


def paint(
    height: int, width: int, *, seed: int = 0, palette: str = "night"
) -> npt.NDArray[np.float32]:
    """Return a painted image `[height, width, 3]` in [0, 1]; equal arguments give equal images.

    Args:
      height: height of the image in pixels.
      width: width of the image in pixels.
      seed: seed of the scene and its strokes.
      palette: key of `PALETTES`.

    Example:
      >>> paint(32, 48).shape
      (32, 48, 3)
    """
    rng = np.random.default_rng(seed)
    colors = PALETTES[palette]
    scene = _compose(rng, np.array([width, height]) / min(height, width))
    size = (width * SUPERSAMPLE, height * SUPERSAMPLE)
    canvas = Image.new("RGB", size, colors.sky[0] if palette != "night" else "#12204f")
    relief = Image.new("L", size, 90)
    ground = ImageDraw.Draw(canvas)
    for x, y, radius in scene.lights[:, :3] * min(size):
        # No stroke crosses the center of a vortex, so its background is painted bright.
        ground.circle((x, y), 0.5 * radius, fill=colors.glow[-2])
    for brush in BRUSHES:
        _draw_strokes(canvas, relief, scene, rng, brush, colors)
    color, thickness = (np.asarray(i.reduce(SUPERSAMPLE)) / 255.0 for i in (canvas, relief))
    slope_y, slope_x = np.gradient(thickness)
    shade = np.tanh(2.2 * (LIGHT[0] * slope_x + LIGHT[1] * slope_y))
    # Lighten one side of a ridge and darken the other, at constant saturation.
    lit = color * (1 + 0.45 * np.minimum(shade, 0)[..., None])
    lit += (1 - lit) * 0.38 * np.maximum(shade, 0)[..., None]
    return np.asarray(np.clip(lit, 0, 1), np.float32)


def _compose(rng: np.random.Generator, extent: Floats) -> Scene:
    """Return a random scene, with lights far from each other."""
    radii = rng.permutation(np.geomspace(0.034, 0.125, int(rng.integers(4, 6))))
    places: list[Floats] = []
    for _ in radii:
        candidates = rng.uniform([0.08, 0.08], [0.92, 0.6], (40, 2)) * extent
        apart = [min((np.hypot(*(c - p)) for p in places), default=1.0) for c in candidates]
        places.append(candidates[np.argmax(apart)])
    lights = np.column_stack([np.array(places), radii, rng.choice([-1.0, 1.0], len(radii))])
    waves = np.hstack([rng.normal(0, 5, (7, 2)), rng.uniform([0, 0.3], [6.3, 1], (7, 2))])
    ridges = rng.uniform([0, 0.03, 3, 0], [0.03, 0.07, 8, 6.3], (3, 4))
    ridges[:, 0] += np.array([0.71, 0.79, 0.88]) * extent[1]
    return Scene(lights, waves, ridges)


def _noise(scene: Scene, points: Floats) -> Floats:
    """Return a smooth field in about [-1, 1] at points `[..., 2]`."""
    waves = np.sin(points @ scene.waves[:, :2].T + scene.waves[:, 2])
    return np.asarray(waves @ scene.waves[:, 3] / scene.waves[:, 3].sum() * 1.6)


def _depth(scene: Scene, points: Floats) -> Floats:
    """Return the depth of points below each ridge, `[..., k]`; negative above it."""
    height, amplitude, number, phase = scene.ridges.T
    x, y = points[..., :1], points[..., 1:]
    waves = np.sin(number * x + phase) + 0.4 * np.sin(2.7 * number * x)
    return np.asarray(y - height - amplitude * waves)


def _direction(scene: Scene, points: Floats) -> Floats:
    """Return unit vectors of the flow at points `[..., 2]`: wind, vortices, and along hills."""
    angle = 0.9 * _noise(scene, points)
    flow = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    for x, y, radius, sense in scene.lights:
        away = points - (x, y)
        distance = np.hypot(*np.moveaxis(away, -1, 0))[..., None] + 1e-9
        around = np.stack([-away[..., 1], away[..., 0]], axis=-1) / distance
        # A slight inward pull bends the circles to spirals.
        spiral = sense * around - 0.15 * away / distance
        flow += 5 * np.exp(-((distance / (2.4 * radius)) ** 2)) * spiral
    depth: Floats = _depth(scene, points).max(axis=-1, keepdims=True)
    tilt = 0.5 * np.sin(9 * points[..., :1] + 14 * depth) + 0.25
    flow = np.where(depth > 0, np.concatenate([np.ones_like(tilt), tilt], axis=-1), flow)
    return np.asarray(flow / (np.linalg.norm(flow, axis=-1, keepdims=True) + 1e-9))


def _pick(rng: np.random.Generator, palette: list[str], tone: Floats) -> Floats:
    """Return colors `[n, 3]` in 0..255 at tones 0..1: one of two neighbors at random."""
    pigments = np.array([[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in palette], float)
    position = np.clip(tone, 0, 1) * (len(palette) - 1)
    index = np.floor(position + rng.uniform(0, 1, tone.shape)).astype(int)
    return np.asarray(pigments[np.minimum(index, len(palette) - 1)])


def _colors(scene: Scene, rng: np.random.Generator, points: Floats, palette: Palette) -> Floats:
    """Return the colors `[n, 3]`, in 0..255, of strokes centered at points `[n, 2]`."""
    noise = _noise(scene, points * 1.7 + 3)
    tone = 0.30 + 0.24 * noise
    heart = np.full(len(points), -1.0)
    for x, y, radius, _ in scene.lights:
        distance = np.hypot(points[:, 0] - x, points[:, 1] - y) / radius
        tone += 0.34 * np.exp(-((distance / 3.2) ** 2)) * (0.7 + np.cos(3.6 * distance))
        heart = np.maximum(heart, 1.15 - distance / 1.35)
    paint = _pick(rng, palette.sky, tone + rng.normal(0, 0.06, tone.shape))
    glowing = heart + rng.normal(0, 0.05, heart.shape) > 0
    paint = np.where(glowing[:, None], _pick(rng, palette.glow, heart), paint)
    depth = _depth(scene, points)
    for k in range(depth.shape[1]):
        bands = 0.5 + 0.5 * np.sin(26 * depth[:, k] + 5 * noise + 2.1 * k)
        earth = _pick(rng, palette.hills, bands * 0.8 + 0.1 + rng.normal(0, 0.06, noise.shape))
        crest = depth[:, k] < 0.018
        earth = np.where(
            crest[:, None], _pick(rng, palette.hills[:2], rng.uniform(size=len(points))), earth
        )
        paint = np.where(depth[:, k, None] > 0, earth, paint)
    # Accents everywhere except in lights, where they would look like holes.
    accent = (rng.uniform(size=len(points)) < 0.03) & ~(glowing & (heart > 0.25))
    return np.where(
        accent[:, None], _pick(rng, palette.accents, rng.uniform(size=len(points))), paint
    )


def _draw_strokes(
    canvas: Image.Image,
    relief: Image.Image,
    scene: Scene,
    rng: np.random.Generator,
    brush: Brush,
    palette: Palette,
) -> None:
    """Draw one brush's strokes on the canvas and on the map of thickness."""
    breadth, length, cover = brush
    unit = min(canvas.size)
    extent = np.array(canvas.size) / unit
    count = int(1.3 * cover * extent.prod() / (0.55 * breadth * length))
    steps = max(6, round(length / breadth * 2.0))
    start = rng.uniform(-0.1, 1.06, (count, 2)) * extent
    lengths = length * rng.uniform(0.45, 1.15, count)
    bend = rng.normal(0, 0.25, (count, 1))  # random deviation from the flow
    path = np.empty((count, steps, 2))
    path[:, 0] = start
    for i in range(1, steps):
        ahead = _direction(scene, path[:, i - 1])
        ahead = ahead + bend * (i / steps - 0.5) * np.stack([-ahead[:, 1], ahead[:, 0]], axis=-1)
        path[:, i] = path[:, i - 1] + ahead * (lengths / (steps - 1))[:, None]
    step = np.diff(path, axis=1, append=2 * path[:, -1:] - path[:, -2:-1])
    across = np.stack([-step[..., 1], step[..., 0]], axis=-1)
    across /= np.linalg.norm(across, axis=-1, keepdims=True) + 1e-12
    t = np.linspace(0, 1, steps)
    taper = np.minimum(1, 2.6 * np.sqrt(t * (1 - t) + 0.003)) * (1.1 - 0.5 * t)
    widths = unit * breadth * rng.uniform(0.7, 1.25, count)
    colors = _colors(scene, rng, path[:, steps // 2], palette)
    path *= unit

    bristles = int(np.clip(breadth * unit / 4.5, 3, 9))
    elements = np.linspace(-0.5, 0.5, bristles)
    draw, draw_relief = ImageDraw.Draw(canvas), ImageDraw.Draw(relief)
    for s in range(count):
        # Each bristle has its own amount of paint, lighter or darker.
        load = rng.normal(0, 1, bristles)
        ends = rng.integers(0, max(1, steps // 5), bristles)
        for b in rng.permutation(bristles):
            last = steps - int(ends[b])
            middle = path[s, :last] + across[s, :last] * (
                elements[b] * widths[s] * taper[:last, None]
            )
            half = across[s, :last] * (0.75 * widths[s] / bristles * taper[:last, None])
            polygon = np.concatenate([middle + half, (middle - half)[::-1]]).ravel().tolist()
            tint = np.clip(colors[s] * (1 + 0.12 * load[b]) + 6 * load[b], 0, 255).astype(int)
            draw.polygon(polygon, fill=(int(tint[0]), int(tint[1]), int(tint[2])))
            draw_relief.polygon(polygon, fill=int(np.clip(128 + 45 * load[b], 0, 255)))
