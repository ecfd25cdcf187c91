"""The image pyramid and the mirrored margin of its images."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxstyle.nn.pooling import avg_pool


def halve(x: jax.Array) -> jax.Array:
    """Return the image pyramid's next resolution: the mean of each 2x2 cell of `[h, w, c]`.

    An odd last row or column counts twice, so that sizes are rounded up.
    """
    return avg_pool(jnp.pad(x, ((0, x.shape[0] % 2), (0, x.shape[1] % 2), (0, 0)), mode="edge"))


MULTIPLE = 16
"""Divisor of the sides of a mirrored image, so that four poolings drop no row or column."""


def mirrored(x: ArrayLike, margin: int | None) -> Any:
    """Return an image or mask `[h, w, ...]` padded by its mirror image.

    Zero padding changes features near the edges of a map, and poolings drop an odd last row or
    column. Both cause artifacts along the edges of the result; with a margin they fall outside of
    the image.

    Args:
      x: an array of JAX or NumPy; the result is of the same kind.
      margin: pixels on each side; below and on the right more, to multiples of `MULTIPLE`. With 0
        or None, `x` is returned unchanged.
    """
    if not margin:
        return x
    sides = np.shape(x)[:2]
    pads = [(margin, margin + -(side + 2 * margin) % MULTIPLE) for side in sides]
    pads += [(0, 0)] * (np.ndim(x) - 2)
    return (np if isinstance(x, np.ndarray) else jnp).pad(x, pads, mode="symmetric")
