"""Generated images: textures, and photographs repainted in brush strokes.

Style transfer shows a network paintings, and on its way there images that are half
noise. Photographs alone leave both outside of what the student has seen, and what it has
not seen it cannot correct: speckle survives where the style layers do not react to it.
"""

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

ImageArray = np.ndarray  # uint8 [side, side, 3]


def generated_image(
    rng: np.random.Generator, photos: Sequence[ImageArray], side: int
) -> ImageArray:
    """Draw one image `[side, side, 3]`: a painted photograph in three of five cases."""
    if rng.random() < 0.6:
        return painted(rng, photos[rng.integers(len(photos))], side)
    makers: tuple[Callable[[np.random.Generator, int], ImageArray], ...] = (
        smooth_noise,
        cells,
        stripes,
        flow_texture,
        blots,
    )
    return makers[rng.integers(len(makers))](rng, side)


def palette(rng: np.random.Generator, count: int) -> np.ndarray:
    """Choose `count` colors `[count, 3]`, 0-255: a few hues around a common tint."""
    tint = rng.uniform(0, 255, 3)
    spread = rng.uniform(20, 110)
    colors = tint + rng.normal(0, spread, (count, 3)) + rng.normal(0, 50, (count, 1))
    return np.clip(colors, 0, 255)


def spectral_noise(rng: np.random.Generator, side: int, exponent: float) -> np.ndarray:
    """Make a periodic field in [0, 1] whose amplitude falls as frequency**-exponent."""
    f = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None, :])
    f[0, 0] = 1.0
    spectrum = np.fft.rfft2(rng.normal(size=(side, side))) * f**-exponent
    spectrum[0, 0] = 0.0
    field = np.fft.irfft2(spectrum, s=(side, side))
    low, high = np.quantile(field, [0.01, 0.99])
    return np.clip((field - low) / (high - low), 0.0, 1.0)


def color_map(rng: np.random.Generator, field: np.ndarray) -> ImageArray:
    """Color a field in [0, 1] by a random ramp, with smooth or hard steps."""
    colors = palette(rng, int(rng.integers(2, 7)))
    if rng.random() < 0.4:
        field = np.floor(field * len(colors)) / len(colors)
    stops = np.linspace(0, 1, len(colors))
    return np.stack([np.interp(field, stops, c) for c in colors.T], -1).astype(np.uint8)


def smooth_noise(rng: np.random.Generator, side: int) -> ImageArray:
    """Clouds to grain, by one spectral exponent."""
    return color_map(rng, spectral_noise(rng, side, rng.uniform(0.2, 2.2)))


def cells(rng: np.random.Generator, side: int) -> ImageArray:
    """Voronoi cells in flat colors, with or without dark joints: tiles, scales, glass."""
    count = int(rng.integers(20, 120))
    seeds = rng.uniform(0, side, (count, 2)).astype(np.float32)
    grid = np.indices((side, side), np.float32).reshape(2, -1).T
    nearest = ((grid[:, None] - seeds) ** 2).sum(-1)
    two = np.partition(nearest, 1, axis=1)[:, :2]
    image = palette(rng, count)[nearest.argmin(1)]
    if rng.random() < 0.6:
        joint = np.sqrt(two[:, 1]) - np.sqrt(two[:, 0]) < rng.uniform(1, 5)
        image[joint] = palette(rng, 1)
    return image.reshape(side, side, 3).astype(np.uint8)


def stripes(rng: np.random.Generator, side: int) -> ImageArray:
    """Bent stripes or a chequer, from a pixel wide to an eighth of the side."""
    y, x = np.indices((side, side), np.float32)
    angle = rng.uniform(0, np.pi)
    bend = spectral_noise(rng, side, 2.0) * rng.choice([0.0, 10.0, 40.0])
    period = np.exp(rng.uniform(np.log(2), np.log(side / 8)))
    u = (np.cos(angle) * x + np.sin(angle) * y + bend) * 2 * np.pi / period
    v = (np.cos(angle) * y - np.sin(angle) * x + bend) * 2 * np.pi / period
    wave = np.sin(u) * np.sin(v) if rng.random() < 0.4 else np.sin(u)
    sharpness = rng.choice([1.0, 8.0])
    return color_map(rng, np.clip(0.5 + 0.5 * sharpness * wave, 0, 1))


def flow_texture(rng: np.random.Generator, side: int) -> ImageArray:
    """Noise smeared along a flow: fibres, hair, bristles."""
    angle = spectral_noise(rng, side, 2.2) * rng.uniform(2, 12)
    return color_map(rng, smear(rng.random((side, side)), angle, int(rng.integers(4, 16))))


def blots(rng: np.random.Generator, side: int) -> ImageArray:
    """Discs of one size range over a ground: dots, pebbles, pointillism."""
    image = Image.new("RGB", (side, side), _rgb(palette(rng, 1)[0]))
    draw = ImageDraw.Draw(image)
    largest = np.exp(rng.uniform(np.log(2), np.log(side / 8)))
    count = int(min(4000, 2.0 * side * side / largest**2))
    colors = palette(rng, 12)
    for x, y, u, c in zip(
        *rng.uniform(0, side, (2, count)),
        rng.random(count),
        rng.integers(0, 12, count),
        strict=True,
    ):
        r = largest * (0.4 + 0.6 * u)
        draw.ellipse((x - r, y - r, x + r, y + r), fill=_rgb(colors[c]))
    return np.asarray(image)


def smear(field: np.ndarray, angle: np.ndarray, length: int) -> np.ndarray:
    """Average a field along a flow (line integral convolution), result stretched to [0, 1]."""
    side = field.shape[0]
    dy, dx = np.sin(angle), np.cos(angle)
    total = field.copy()
    for sign in (1.0, -1.0):
        y, x = np.indices(field.shape).astype(np.float64)
        for _ in range(length):
            iy, ix = y.astype(int) % side, x.astype(int) % side
            y += sign * dy[iy, ix]
            x += sign * dx[iy, ix]
            total += field[y.astype(int) % side, x.astype(int) % side]
    low, high = np.quantile(total, [0.01, 0.99])
    return np.clip((total - low) / (high - low), 0.0, 1.0)


def painted(rng: np.random.Generator, photo: ImageArray, side: int) -> ImageArray:
    """Repaint a photograph: layers of strokes from coarse to fine along a flow, then bristles.

    Colors come from the blurred photograph, half of the time through a small palette. The
    flow is a smooth random field or the photograph's own contours.
    """
    ground = _square(rng, photo, side)
    if rng.random() < 0.5:
        few = palette(rng, int(rng.integers(5, 16)))
        distance = ((np.asarray(ground, np.float32)[:, :, None] - few) ** 2).sum(-1)
        ground = Image.fromarray(few[distance.argmin(-1)].astype(np.uint8))
    soft = ground.filter(ImageFilter.GaussianBlur(side / 64))
    if rng.random() < 0.5:
        gray = np.asarray(soft.convert("L").filter(ImageFilter.GaussianBlur(side / 40)), np.float64)
        gy, gx = np.gradient(gray)
        angle = np.arctan2(gy, gx) + np.pi / 2
    else:
        angle = spectral_noise(rng, side, 2.2) * rng.uniform(2, 10)
    canvas = soft.copy()
    draw = ImageDraw.Draw(canvas)
    colors = np.asarray(soft, np.float64)
    width = side * np.exp(rng.uniform(np.log(1 / 50), np.log(1 / 12)))
    length = width * rng.uniform(2, 7)
    jitter = rng.uniform(4, 30)
    for _ in range(3):
        _strokes(rng, draw, colors, angle, width, length, jitter)
        width, length = width * 0.55, length * 0.6
        if width < 1.5:
            break
    result = np.asarray(canvas, np.float64)
    if rng.random() < 0.7:
        bristles = smear(rng.random((side, side)), angle, 8) - 0.5
        result = result + (bristles * rng.uniform(20, 90))[..., None]
    return np.clip(result, 0, 255).astype(np.uint8)


def _strokes(
    rng: np.random.Generator,
    draw: ImageDraw.ImageDraw,
    colors: np.ndarray,
    angle: np.ndarray,
    width: float,
    length: float,
    jitter: float,
) -> None:
    """Draw one layer of curved strokes, as polylines of four pieces with round joints."""
    side = angle.shape[0]
    count = int(min(3000, 1.2 * side * side / (width * length)))
    start = rng.uniform(0, side, (count, 2))
    points = [start]
    for _ in range(4):
        y, x = np.clip(points[-1], 0, side - 1).astype(int).T
        step = np.stack([np.sin(angle[y, x]), np.cos(angle[y, x])], -1) * length / 4
        points.append(points[-1] + step)
    y, x = start.astype(int).T
    fills = colors[y, x] + rng.normal(0, jitter, (count, 1)) + rng.normal(0, jitter / 2, (count, 3))
    paths = np.stack(points, 1)[..., ::-1]
    for path, fill in zip(paths, np.clip(fills, 0, 255), strict=True):
        draw.line([tuple(p) for p in path], _rgb(fill), max(1, round(width)), joint="curve")


def _square(rng: np.random.Generator, photo: ImageArray, side: int) -> Image.Image:
    """Cut a random square of at least half the photograph and resize it."""
    h, w, _ = photo.shape
    cut = int(min(h, w) * rng.uniform(0.5, 1.0))
    y, x = rng.integers(0, h - cut + 1), rng.integers(0, w - cut + 1)
    return Image.fromarray(photo[y : y + cut, x : x + cut]).resize((side, side), Image.BICUBIC)


def _rgb(color: np.ndarray) -> tuple[int, int, int]:
    r, g, b = (int(v) for v in color)
    return r, g, b
