"""Pixel values in [0, 1] during optimization, by a change of variables.

Without it values outside of [0, 1] lower the objective, and the clipped image is another one, whose
style term may be several times as large.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

MARGIN = 0.02
"""Distance from 0 and 1 within which `soft_clip` is not the identity."""
EDGE = 1 / 510
"""Half a step of 8 bits: values nearer to 0 or 1 are saved as 0 or 1."""


def soft_clip(z: jax.Array) -> jax.Array:
    """Return values mapped to (0, 1); those in [MARGIN, 1 - MARGIN] are unchanged.

    Below m = MARGIN the result is m · exp((z − m)/m), and symmetrically above 1 − m, so that it and
    its derivative are continuous. An optimizer without bounds can then be used.

    Example:
      >>> import jax.numpy as jnp
      >>> [round(float(x), 4) for x in soft_clip(jnp.array([-0.5, 0.0, 0.3, 1.0]))]
      [0.0, 0.0074, 0.3, 0.9926]
    """
    low = MARGIN * jnp.exp(jnp.minimum(z - MARGIN, 0) / MARGIN)
    high = 1 - MARGIN * jnp.exp(jnp.minimum(1 - MARGIN - z, 0) / MARGIN)
    return jnp.where(z < MARGIN, low, jnp.where(z > 1 - MARGIN, high, z))


def soft_clip_inverse(x: jax.Array) -> jax.Array:
    """Return z with `soft_clip(z) == x`, for x clipped to [EDGE, 1 - EDGE]."""
    x = jnp.clip(x, EDGE, 1 - EDGE)
    low = MARGIN + MARGIN * jnp.log(x / MARGIN)
    high = 1 - MARGIN - MARGIN * jnp.log((1 - x) / MARGIN)
    return jnp.where(x < MARGIN, low, jnp.where(x > 1 - MARGIN, high, x))


class Bounds(NamedTuple):
    """A change of variables between the optimizer's variables and the image."""

    image: Callable[[jax.Array], jax.Array]
    """`variables [h, w, 3] -> RGB [h, w, 3]`."""
    position: Callable[[jax.Array], jax.Array]
    """The inverse, for the initial image."""


BOUNDS = {
    "soft": Bounds(soft_clip, soft_clip_inverse),
    "none": Bounds(lambda variables: variables, lambda image: image),
}
"""Changes of variables by the value of `Recipe.bounds`."""
