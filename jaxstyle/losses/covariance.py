"""A style loss on covariance matrices: the Gram loss of centered features."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxstyle.config.layers import first_of_blocks
from jaxstyle.losses.base import StyleDefaults, StyleLoss, mean_over_positions
from jaxstyle.losses.gram import gram_matrix, style_loss


class CenteredMoments(NamedTuple):
    """First and second moments of the channels over positions, the second in two parts.

    Their sum is FᵀF / n. Subtracting mu muᵀ from FᵀF / n itself would leave nothing but rounding
    where features hardly vary, as in a plain sky. Means over parts of an image or over several
    styles are again of this form.
    """

    mean: jax.Array
    """mu, `[c]`."""
    centered: jax.Array
    """(F - mu)ᵀ(F - mu) / n, `[c, c]`."""
    outer: jax.Array
    """mu muᵀ, `[c, c]`."""


def centered_moments(features: jax.Array, *, weights: jax.Array | None = None) -> CenteredMoments:
    """Return the moments of features `[h, w, c]`; see `gram_matrix` for the weights."""
    total = 1.0 if weights is None else jnp.mean(weights, dtype=jnp.float32)
    weighted = mean_over_positions(features, weights)
    mean = weighted / jnp.where(total == 0, 1.0, total)
    centered = gram_matrix(features - mean.astype(features.dtype)[None, None], weights=weights)
    return CenteredMoments(weighted, centered * features.shape[-1], total * jnp.outer(mean, mean))


def covariance(statistics: CenteredMoments) -> jax.Array:
    """Return the covariance matrix of channels, FᵀF / n - mu muᵀ, `[c, c]`."""
    between = statistics.outer - jnp.outer(statistics.mean, statistics.mean)
    return statistics.centered + between


def covariance_distance(image: CenteredMoments, style: CenteredMoments) -> jax.Array:
    """Compute the Gram loss of centered features, mean((Sigma / c - Sigma_t / c)²).

    It does not depend on the channels' means. Li, Wang, Liu & Hou, Demystifying Neural Style
    Transfer, 2017 (arXiv:1701.01036): both are maximum mean discrepancies.
    """
    channels = image.mean.shape[0]
    return style_loss(covariance(image) / channels, covariance(style) / channels)


COVARIANCE = StyleLoss(
    centered_moments,
    covariance_distance,
    normalized=StyleDefaults(1e4, first_of_blocks(1.0, 4.0, 16.0, 64.0, 64.0)),
    unnormalized=StyleDefaults(100.0, first_of_blocks(1.0, 4.0, 16.0, 64.0, 64.0)),
    balance=7.0,
)
