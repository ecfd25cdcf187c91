"""A style loss on covariance matrices: the Gram loss of centered features."""

import jax
import jax.numpy as jnp

from jaxstyle.losses.gram import style_loss
from jaxstyle.losses.moments import Moments


def covariance(moments: Moments) -> jax.Array:
    """Return the covariance matrix of channels, FᵀF / n - mu muᵀ, `[c, c]`."""
    return moments.second - jnp.outer(moments.mean, moments.mean)


def covariance_distance(image: Moments, style: Moments) -> jax.Array:
    """Compute the Gram loss of centered features, mean((Sigma / c - Sigma_t / c)²).

    It does not depend on the channels' means. Li, Wang, Liu & Hou, Demystifying Neural Style
    Transfer, 2017 (arXiv:1701.01036): both are maximum mean discrepancies.
    """
    channels = image.mean.shape[0]
    return style_loss(covariance(image) / channels, covariance(style) / channels)
