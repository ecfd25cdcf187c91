"""The content loss: mean squared difference of feature maps."""

import jax
import jax.numpy as jnp


def content_loss(
    features: jax.Array, target: jax.Array, *, weights: jax.Array | None = None
) -> jax.Array:
    """Compute the mean squared difference of two feature maps.

    L = mean over (y, x, c) of (F − P)². Gatys et al. (2016, eq. 1) take half the sum
    instead of the mean.

    Args:
      features: F, `[h, w, c]`, activations of the image.
      target: P, `[h, w, c]`, activations of the content image.
      weights: factors of the squares at each position, `[h, w, 1]`; 1 if not given.

    Returns:
      Float32 scalar, ≥ 0.

    Example:
      >>> import jax.numpy as jnp
      >>> float(content_loss(jnp.full((2, 2, 3), 3.0), jnp.ones((2, 2, 3))))
      4.0
    """
    squares = jnp.square(features - target)
    return jnp.mean(squares if weights is None else weights * squares, dtype=jnp.float32)
