"""Keep pixel values in [0, 1] during optimization, by a change of variables.

Left to itself the objective is lowered by values outside, and what clipping then makes of the
image was never optimized: its style term may be several times as large.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

MARGIN = 0.02
"""Nearer than this to 0 and 1, `soft_clip` bends."""
EDGE = 1 / 510
"""Half a step of 8 bits: a value nearer to 0 or 1 is saved as that."""


def soft_clip(z: jax.Array) -> jax.Array:
    """Bring any values into (0, 1), those in [MARGIN, 1 - MARGIN] unchanged.

    Below m = MARGIN the value is m · exp((z − m)/m), and likewise above, so that it and its slope
    are continuous. L-BFGS needs to know nothing of bounds then.

    Example:
      >>> import jax.numpy as jnp
      >>> [round(float(x), 4) for x in soft_clip(jnp.array([-0.5, 0.0, 0.3, 1.0]))]
      [0.0, 0.0074, 0.3, 0.9926]
    """
    low = MARGIN * jnp.exp(jnp.minimum(z - MARGIN, 0) / MARGIN)
    high = 1 - MARGIN * jnp.exp(jnp.minimum(1 - MARGIN - z, 0) / MARGIN)
    return jnp.where(z < MARGIN, low, jnp.where(z > 1 - MARGIN, high, z))


def soft_clip_inverse(x: jax.Array) -> jax.Array:
    """Find z with `soft_clip(z) == x`, after x was brought into [EDGE, 1 - EDGE]."""
    x = jnp.clip(x, EDGE, 1 - EDGE)
    low = MARGIN + MARGIN * jnp.log(x / MARGIN)
    high = 1 - MARGIN - MARGIN * jnp.log((1 - x) / MARGIN)
    return jnp.where(x < MARGIN, low, jnp.where(x > 1 - MARGIN, high, x))


def _as_it_is(x: jax.Array) -> jax.Array:
    return x


class Bounds(NamedTuple):
    """A change of variables: what is optimized, and the image that it stands for."""

    image: Callable[[jax.Array], jax.Array]
    """From what the optimizer moves to RGB."""
    position: Callable[[jax.Array], jax.Array]
    """Back, for the initial image."""


BOUNDS = {
    "soft": Bounds(soft_clip, soft_clip_inverse),
    "none": Bounds(_as_it_is, _as_it_is),
}
"""By the name that a recipe gives."""
