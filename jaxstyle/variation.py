"""Total variation in the forms of the literature: how much neighbouring pixels differ.

Each is a function of the picture (RGB `[h, w, 3]` in [0, 1]) and of the network's input x of
the same shape (0-255 scale for the Caffe networks), and gives a float32 scalar, at least 0.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp


def total_variation(x: jax.Array) -> jax.Array:
    """Sum of the absolute differences of neighbouring pixels, down and to the right.

    Σ|x[i+1, j] − x[i, j]| + Σ|x[i, j+1] − x[i, j]| over all positions and channels
    (the anisotropic form; a sum, so it grows with the picture).

    Args:
      x: `[h, w, c]`; the objective gives the network's input here (0–255 scale for the
        Caffe networks).

    Returns:
      Float32 scalar, ≥ 0.
    """
    # Each axis is one subtraction of two slices; `jnp.diff` of both would be the same.
    down = jnp.abs(x[1:] - x[:-1])
    right = jnp.abs(x[:, 1:] - x[:, :-1])
    return jnp.sum(down, dtype=jnp.float32) + jnp.sum(right, dtype=jnp.float32)


def _squares(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Squared differences down and to the right, both without the last row and column."""
    corner = x[:-1, :-1]
    return jnp.square(corner - x[1:, :-1]), jnp.square(corner - x[:-1, 1:])


def squared_variation(x: jax.Array) -> jax.Array:
    """½ Σ (down² + right²) without the last row and column: what neural-style descends.

    Its `TVLoss` (neural_style.lua:567-596) only adds the gradient of this.
    """
    down, right = _squares(x)
    return 0.5 * jnp.sum(down + right, dtype=jnp.float32)


def power_variation(x: jax.Array) -> jax.Array:
    """Σ (down² + right²)^1.25 without the last row and column (the Keras example)."""
    down, right = _squares(x)
    return jnp.sum((down + right) ** 1.25, dtype=jnp.float32)


def mean_squared_variation(x: jax.Array) -> jax.Array:
    """mean(down²) + mean(right²) (anishathalye/neural-style)."""
    down, right = jnp.square(x[1:] - x[:-1]), jnp.square(x[:, 1:] - x[:, :-1])
    return jnp.mean(down, dtype=jnp.float32) + jnp.mean(right, dtype=jnp.float32)


def nine_point_variation(image: jax.Array) -> jax.Array:
    """2 · (mean of squares to the right and down, each / 3, along both diagonals, each / 12).

    Beyond the picture its edge is repeated. After crowsonkb/style-transfer-pytorch
    (style_transfer.py:184-195).
    """
    padded = jnp.pad(image, ((1, 1), (1, 1), (0, 0)), mode="edge")
    inside = padded[1:-1, 1:-1]
    straight = (padded[1:-1, 2:] - inside, padded[2:, 1:-1] - inside)
    diagonal = (padded[1:, 1:] - padded[:-1, :-1], padded[1:, :-1] - padded[:-1, 1:])
    in_all = [jnp.mean(jnp.square(d), dtype=jnp.float32) for d in (*straight, *diagonal)]
    return 2 * ((in_all[0] + in_all[1]) / 3 + (in_all[2] + in_all[3]) / 12)


VARIATIONS: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "absolute": lambda image, x: total_variation(x),
    "squared": lambda image, x: squared_variation(x),
    "mean-squared": lambda image, x: mean_squared_variation(x),
    "power": lambda image, x: power_variation(x),
    "nine-point": lambda image, x: nine_point_variation(image),
}
"""By the name that a recipe gives: functions of the picture and of the network's input."""
