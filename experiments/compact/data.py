"""Training crops from a folder of photographs and a pool of generated images."""

import queue
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from generate import ImageArray, generated_image
from PIL import Image

HELD_OUT = 40
"""Photographs that training never sees."""
POOL_SIDE = 256


def load_photos(folder: Path) -> list[ImageArray]:
    """Read every JPEG of a folder, in the order of names, as uint8 `[h, w, 3]`."""
    paths = sorted(folder.glob("*.jpg"))
    if len(paths) <= HELD_OUT:
        raise SystemExit(f"{folder} has {len(paths)} JPEGs; more than {HELD_OUT} are needed")
    photos = []
    for path in paths:
        with Image.open(path) as image:
            photos.append(np.asarray(image.convert("RGB")))
    return photos


def split(photos: list[ImageArray]) -> tuple[list[ImageArray], list[ImageArray]]:
    """Divide photographs into (held in, held out), the latter spread evenly over the names."""
    out = {round(i * (len(photos) - 1) / (HELD_OUT - 1)) for i in range(HELD_OUT)}
    held_in = [p for i, p in enumerate(photos) if i not in out]
    return held_in, [photos[i] for i in sorted(out)]


def load_pool(cache: Path, photos: list[ImageArray], count: int, seed: int) -> np.ndarray:
    """Generate `count` images `[count, 256, 256, 3]`, or read those of an earlier run."""
    if cache.exists():
        pool = np.load(cache)
        if len(pool) == count:
            return pool
    rng = np.random.default_rng([seed, 1])
    pool = np.stack([generated_image(rng, photos, POOL_SIDE) for _ in range(count)])
    partial = cache.with_suffix(".partial.npy")
    np.save(partial, pool)
    partial.replace(cache)
    return pool


def center(image: ImageArray, side: int) -> ImageArray:
    """Cut the middle square."""
    h, w, _ = image.shape
    y, x = (h - side) // 2, (w - side) // 2
    return image[y : y + side, x : x + side]


class Crops:
    """An endless source of augmented crops, in network input units (BGR, 0-255, minus mean)."""

    def __init__(
        self,
        photos: list[ImageArray],
        pool: np.ndarray,
        side: int,
        mean: tuple[float, ...],
        seed: int,
    ):
        self._photos, self._pool, self._side = photos, pool, side
        self._mean = np.asarray(mean, np.float32)
        self._rng = np.random.default_rng([seed, 2])

    def crop(self) -> np.ndarray:
        """Make one crop `[side, side, 3]`, float32: three photographs to two generated images."""
        rng, side = self._rng, self._side
        if rng.random() < 0.06:
            return self._noisy(self._flat())[..., ::-1] - self._mean
        generated = rng.random() < 0.4
        source = self._pool if generated else self._photos
        img = source[rng.integers(len(source))]
        h, w, _ = img.shape
        # From details enlarged twice to the whole image reduced: style images come
        # at any scale.
        cut = int(np.exp(rng.uniform(np.log(side / 2), np.log(min(h, w)))))
        y, x = rng.integers(0, h - cut + 1), rng.integers(0, w - cut + 1)
        image = Image.fromarray(img).resize(
            (side, side), Image.BICUBIC, box=(x, y, x + cut, y + cut)
        )
        crop = np.asarray(image, np.float32)
        if rng.random() < 0.5:
            crop = crop[:, ::-1]
        if generated and rng.random() < 0.5:
            crop = crop.swapaxes(0, 1)
        return self._noisy(self._jitter(crop))[..., ::-1] - self._mean

    def _flat(self) -> np.ndarray:
        """Fill with one color, or a slow slope between two, or two parts: skies and walls."""
        rng, side = self._rng, self._side
        first, second = rng.uniform(0, 255, (2, 3))
        kind = rng.integers(3)
        if kind == 0:
            second = first
        elif kind == 1:
            second = first + rng.normal(0, 15, 3)
        y, x = np.indices((side, side), np.float32) / side - rng.uniform(0.2, 0.8)
        angle = rng.uniform(0, 2 * np.pi)
        along = np.sin(angle) * y + np.cos(angle) * x
        mix = np.clip(0.5 + along * (1.0 if kind < 2 else side), 0, 1)[..., None]
        return np.clip(first + (second - first) * mix, 0, 255).astype(np.float32)

    def _jitter(self, crop: np.ndarray) -> np.ndarray:
        """Vary brightness, contrast, saturation and tint; one in ten becomes another color."""
        rng = self._rng
        if rng.random() < 0.1:
            crop = crop[..., rng.permutation(3)]
        mean = crop.mean((0, 1))
        gray = crop.mean(-1, keepdims=True)
        crop = gray + (crop - gray) * rng.uniform(0.3, 1.6)
        crop = mean + (crop - mean) * rng.uniform(0.6, 1.5)
        return np.clip(crop + rng.normal(0, 18) + rng.normal(0, 10, 3), 0, 255)

    def _noisy(self, crop: np.ndarray) -> np.ndarray:
        """Blend a third of the crops with noise, fine or coarse, gray or colored.

        An optimization starts from noise and passes through mixtures of noise and image, in
        which values also leave 0-255; the student has to see grain as its teachers do.
        """
        rng, side = self._rng, self._side
        if rng.random() > 0.33:
            return crop
        grain = rng.choice([1, 1, 2, 4])
        cells = -(-side // grain)
        noise = rng.normal(size=(cells, cells, rng.choice([1, 3, 3])))
        noise = np.repeat(np.repeat(noise, grain, 0), grain, 1)[:side, :side]
        strength = np.exp(rng.uniform(np.log(3), np.log(60)))
        keep = rng.choice([1.0, 1.0, rng.uniform(0, 1)])
        gray = crop.mean((0, 1))
        return (gray + (crop - gray) * keep + strength * noise).astype(np.float32)

    def batches(self, size: int, ahead: int = 4) -> Iterator[np.ndarray]:
        """Yield `[size, side, side, 3]` for ever; a thread prepares `ahead` of them."""
        ready: queue.Queue[np.ndarray] = queue.Queue(ahead)

        def fill() -> None:
            while True:
                ready.put(np.stack([self.crop() for _ in range(size)]))

        threading.Thread(target=fill, daemon=True).start()
        while True:
            yield ready.get()
