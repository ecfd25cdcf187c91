"""A style loss on covariance matrices: the Gram loss of centered features."""

import jax
import jax.numpy as jnp

from jaxstyle.config.layers import first_of_blocks
from jaxstyle.losses.base import StyleDefaults, StyleLoss
from jaxstyle.losses.gram import style_loss
from jaxstyle.losses.moments import Moments, moments


def covariance(statistics: Moments) -> jax.Array:
    """Return the covariance matrix of channels, FᵀF / n - mu muᵀ, `[c, c]`."""
    return statistics.second - jnp.outer(statistics.mean, statistics.mean)


def covariance_distance(image: Moments, style: Moments) -> jax.Array:
    """Compute the Gram loss of centered features, mean((Sigma / c - Sigma_t / c)²).

    It does not depend on the channels' means. Li, Wang, Liu & Hou, Demystifying Neural Style
    Transfer, 2017 (arXiv:1701.01036): both are maximum mean discrepancies.
    """
    channels = image.mean.shape[0]
    return style_loss(covariance(image) / channels, covariance(style) / channels)


COVARIANCE = StyleLoss(
    moments,
    covariance_distance,
    normalized=StyleDefaults(1e4, first_of_blocks(1.0, 4.0, 16.0, 64.0, 64.0)),
    unnormalized=StyleDefaults(100.0, first_of_blocks(1.0, 4.0, 16.0, 64.0, 64.0)),
    balance=7.0,
)
