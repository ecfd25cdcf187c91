"""Total variation in the forms of the literature: how much neighboring pixels differ.

Each is a function of the image (RGB `[h, w, 3]` in [0, 1]) and of the network's input x of
the same shape (0-255 scale for the Caffe networks), and gives a float32 scalar, at least 0. With a
`height`, rows from there on are not the image's (`sharding.SpatialSharding` adds them): they are
masked, not cut off, as what is left would have to be shared out over the devices anew.
"""

from collections.abc import Callable
from typing import Protocol

import jax
import jax.numpy as jnp


def total_variation(x: jax.Array, *, height: int | None = None) -> jax.Array:
    """Sum of the absolute differences of neighboring pixels, down and to the right.

    Σ|x[i+1, j] − x[i, j]| + Σ|x[i, j+1] − x[i, j]| over all positions and channels
    (the anisotropic form; a sum, so it grows with the image).

    Args:
      x: `[h, w, c]`; the objective gives the network's input here (0–255 scale for the
        Caffe networks).
      height: rows that count; all if not given.

    Returns:
      Float32 scalar, ≥ 0.
    """
    height = height or len(x)
    # Each axis is one subtraction of two slices; `jnp.diff` of both would be the same.
    down = jnp.abs(x[1:] - x[:-1])
    right = jnp.abs(x[:, 1:] - x[:, :-1])
    return _sum(down, height - 1) + _sum(right, height)


def _sum(values: jax.Array, height: int) -> jax.Array:
    """Add up the first rows."""
    if height < len(values):
        values = jnp.where(jnp.arange(len(values))[:, None, None] < height, values, 0)
    return jnp.sum(values, dtype=jnp.float32)


def _mean(values: jax.Array, height: int) -> jax.Array:
    return _sum(values, height) / (height * values.shape[1] * values.shape[2])


def _squares(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Squared differences down and to the right, both without the last row and column."""
    corner = x[:-1, :-1]
    return jnp.square(corner - x[1:, :-1]), jnp.square(corner - x[:-1, 1:])


def squared_variation(x: jax.Array, *, height: int | None = None) -> jax.Array:
    """½ Σ (down² + right²) without the last row and column: what neural-style descends.

    Its `TVLoss` (neural_style.lua:567-596) only adds the gradient of this.
    """
    down, right = _squares(x)
    return 0.5 * _sum(down + right, (height or len(x)) - 1)


def power_variation(x: jax.Array, *, height: int | None = None) -> jax.Array:
    """Σ (down² + right²)^1.25 without the last row and column (the Keras example)."""
    down, right = _squares(x)
    return _sum((down + right) ** 1.25, (height or len(x)) - 1)


def mean_squared_variation(x: jax.Array, *, height: int | None = None) -> jax.Array:
    """mean(down²) + mean(right²) (anishathalye/neural-style)."""
    height = height or len(x)
    down, right = jnp.square(x[1:] - x[:-1]), jnp.square(x[:, 1:] - x[:, :-1])
    return _mean(down, height - 1) + _mean(right, height)


def nine_point_variation(image: jax.Array, *, height: int | None = None) -> jax.Array:
    """2 · (mean of squares to the right and down, each / 3, along both diagonals, each / 12).

    Beyond the image its edge is repeated. After crowsonkb/style-transfer-pytorch
    (style_transfer.py:184-195).
    """
    height = height or len(image)
    if height < len(image):
        below = jnp.arange(len(image))[:, None, None] == height
        image = jnp.where(below, jnp.roll(image, 1, 0), image)
    padded = jnp.pad(image, ((1, 1), (1, 1), (0, 0)), mode="edge")
    inside = padded[1:-1, 1:-1]
    straight = (padded[1:-1, 2:] - inside, padded[2:, 1:-1] - inside)
    diagonal = (padded[1:, 1:] - padded[:-1, :-1], padded[1:, :-1] - padded[:-1, 1:])
    in_all = [_mean(jnp.square(d), height) for d in straight]
    in_all += [_mean(jnp.square(d), height + 1) for d in diagonal]
    return 2 * ((in_all[0] + in_all[1]) / 3 + (in_all[2] + in_all[3]) / 12)


class Variation(Protocol):
    """A function of the image, the network's input and the rows that count."""

    def __call__(self, image: jax.Array, x: jax.Array, *, height: int | None = None) -> jax.Array:
        """Return the variation."""


def _of_input(of: Callable[..., jax.Array]) -> Variation:
    return lambda image, x, *, height=None: of(x, height=height)


VARIATIONS: dict[str, Variation] = {
    "absolute": _of_input(total_variation),
    "squared": _of_input(squared_variation),
    "mean-squared": _of_input(mean_squared_variation),
    "power": _of_input(power_variation),
    "nine-point": lambda image, x, *, height=None: nine_point_variation(image, height=height),
}
"""By the name that a recipe gives."""
