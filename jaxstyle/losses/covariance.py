"""A style loss on covariance matrices: the Gram loss of centered features."""

import jax
import jax.numpy as jnp

from jaxstyle.losses.gram import style_loss
from jaxstyle.losses.moments import Moments


def covariance(of: Moments) -> jax.Array:
    """Sigma = FᵀF / n - mu muᵀ, `[c, c]`."""
    return of.second - jnp.outer(of.mean, of.mean)


def covariance_distance(image: Moments, style: Moments) -> jax.Array:
    """mean((Sigma / c - Sigma_t / c)²): the Gram loss of features whose mean is taken off.

    Blind to the channels' means. Li, Wang, Liu & Hou, Demystifying Neural Style Transfer, 2017
    (arXiv:1701.01036), put both in one family, of maximum mean discrepancies.
    """
    channels = image.mean.shape[0]
    return style_loss(covariance(image) / channels, covariance(style) / channels)
