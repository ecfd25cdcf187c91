"""Means and mean squares of feature maps, and a style loss on channel means and deviations."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxstyle.losses.base import EQUAL_LAYERS, StyleDefaults, StyleLoss, mean_over_positions


class Moments(NamedTuple):
    """First and second moments of each channel over positions."""

    mean: jax.Array
    """mu, `[c]`."""
    second: jax.Array
    """Mean square, `[c]`."""


def channel_moments(features: jax.Array, *, weights: jax.Array | None = None) -> Moments:
    """Return mu `[c]` and the mean square of each channel, `[c]`, of features `[h, w, c]`."""
    return Moments(
        mean_over_positions(features, weights), mean_over_positions(jnp.square(features), weights)
    )


def moments_distance(image: Moments, style: Moments) -> jax.Array:
    """Compute the mean over channels of (mu - mu_t)² + (sigma - sigma_t)².

    The "BN statistics" of Li et al., 2017 (arXiv:1701.01036, equation 16).
    """
    deviations = [jnp.sqrt(jnp.maximum(m.second - m.mean**2, 0) + 1e-6) for m in (image, style)]
    return jnp.mean(jnp.square(image.mean - style.mean) + jnp.square(deviations[0] - deviations[1]))


MOMENTS = StyleLoss(
    channel_moments,
    moments_distance,
    normalized=StyleDefaults(100.0, EQUAL_LAYERS),
    unnormalized=StyleDefaults(1.0, EQUAL_LAYERS),
    balance=55.0,
)
