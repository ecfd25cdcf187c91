"""Forms of the total variation.

Each is a function of the network's input x (0-255 scale for the Caffe networks) or, for
`nine-point`, of the image (RGB `[h, w, 3]` in [0, 1]) and returns a float32 scalar, at least 0. If
`height` is given, later rows are padding (`sharding.SpatialSharding`). They are masked rather than
sliced off, as a slice would have to be sharded again.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp


def total_variation(x: jax.Array, *, height: int | None = None) -> jax.Array:
    """Compute the sum of absolute differences of neighboring pixels, down and to the right.

    Σ|x[i+1, j] − x[i, j]| + Σ|x[i, j+1] − x[i, j]| over all positions and channels
    (the anisotropic form; a sum, so it grows with the image).

    Args:
      x: `[h, w, c]`; in the objective the network's input (0–255 scale for the Caffe
        networks).
      height: number of rows of the image, if the others are padding.

    Returns:
      Float32 scalar, ≥ 0.

    Example:
      >>> import jax.numpy as jnp
      >>> float(total_variation(jnp.array([[[0.0], [1.0]], [[1.0], [1.0]]])))
      2.0
    """
    height = height or len(x)
    down = jnp.abs(x[1:] - x[:-1])
    right = jnp.abs(x[:, 1:] - x[:, :-1])
    return _sum(down, height - 1) + _sum(right, height)


def _sum(values: jax.Array, height: int) -> jax.Array:
    """Return the sum of the first `height` rows."""
    if height < len(values):
        values = jnp.where(jnp.arange(len(values))[:, None, None] < height, values, 0)
    return jnp.sum(values, dtype=jnp.float32)


def _mean(values: jax.Array, height: int) -> jax.Array:
    """Return the mean of the first `height` rows."""
    return _sum(values, height) / (height * values.shape[1] * values.shape[2])


def _squares(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return squared differences down and to the right, both without the last row and column."""
    corner = x[:-1, :-1]
    return jnp.square(corner - x[1:, :-1]), jnp.square(corner - x[:-1, 1:])


def squared_variation(x: jax.Array, *, height: int | None = None) -> jax.Array:
    """Compute ½ Σ (down² + right²) without the last row and column (neural-style).

    Its `TVLoss` (neural_style.lua:567-596) adds the gradient of this term, but not its value.
    """
    down, right = _squares(x)
    return 0.5 * _sum(down + right, (height or len(x)) - 1)


def power_variation(x: jax.Array, *, height: int | None = None) -> jax.Array:
    """Compute Σ (down² + right²)^1.25 without the last row and column (the Keras example)."""
    down, right = _squares(x)
    return _sum((down + right) ** 1.25, (height or len(x)) - 1)


def mean_squared_variation(x: jax.Array, *, height: int | None = None) -> jax.Array:
    """Compute mean(down²) + mean(right²) (anishathalye/neural-style)."""
    height = height or len(x)
    down, right = jnp.square(x[1:] - x[:-1]), jnp.square(x[:, 1:] - x[:, :-1])
    return _mean(down, height - 1) + _mean(right, height)


def nine_point_variation(image: jax.Array, *, height: int | None = None) -> jax.Array:
    """Compute the total variation over the eight neighbors of each pixel.

    2 · (mean(right²) / 3 + mean(down²) / 3 + mean of each diagonal² / 12), with the image padded by
    its edge. After crowsonkb/style-transfer-pytorch (style_transfer.py:184-195).
    """
    height = height or len(image)
    if height < len(image):
        below = jnp.arange(len(image))[:, None, None] == height
        image = jnp.where(below, jnp.roll(image, 1, 0), image)
    padded = jnp.pad(image, ((1, 1), (1, 1), (0, 0)), mode="edge")
    inside = padded[1:-1, 1:-1]
    straight = (padded[1:-1, 2:] - inside, padded[2:, 1:-1] - inside)
    diagonal = (padded[1:, 1:] - padded[:-1, :-1], padded[1:, :-1] - padded[:-1, 1:])
    means = [_mean(jnp.square(d), height) for d in straight]
    means += [_mean(jnp.square(d), height + 1) for d in diagonal]
    return 2 * ((means[0] + means[1]) / 3 + (means[2] + means[3]) / 12)


VARIATIONS: dict[str, Callable[..., jax.Array]] = {
    "absolute": total_variation,
    "squared": squared_variation,
    "mean-squared": mean_squared_variation,
    "power": power_variation,
    "nine-point": nine_point_variation,
}
"""Forms of the total variation by the value of `Recipe.variation`."""
