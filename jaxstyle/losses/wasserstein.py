"""A style loss on the 2-Wasserstein distance between normal distributions."""

import jax
import jax.numpy as jnp

from jaxstyle.losses.base import EQUAL_LAYERS, EXACT, StyleDefaults, StyleLoss
from jaxstyle.losses.covariance import covariance
from jaxstyle.losses.moments import Moments, moments

RIDGE = 1e-4
"""Added to the diagonal of covariance matrices before their square root is taken."""


def wasserstein_distance(image: Moments, style: Moments) -> jax.Array:
    """Compute the squared 2-Wasserstein distance of two normal distributions, divided by c.

    (|mu - mu_t|² + tr(Sigma + Sigma_t - 2 (Sigma_t^½ Sigma Sigma_t^½)^½)) / c, with 1e-4 added
    to the diagonals of both (Olkin & Pukelsheim, 1982, The distance between two random vectors
    with given dispersion matrices); as crowsonkb/style-transfer-pytorch
    (style_transfer.py:149-180).
    """
    ridge = RIDGE * jnp.eye(image.mean.shape[0])
    mine, theirs = covariance(image) + ridge, covariance(style) + ridge
    spread = jnp.trace(mine) + jnp.trace(theirs) - 2 * root_trace(mine, theirs)
    distance = jnp.sum(jnp.square(image.mean - style.mean)) + spread
    return distance / image.mean.shape[0]


@jax.custom_vjp
def root_trace(a: jax.Array, b: jax.Array) -> jax.Array:
    """Compute the trace of (b^½ a b^½)^½ of two covariance matrices.

    It is the sum of the singular values of b^½ a^½. Float32 holds these better than
    the eigenvalues of b^½ a b^½, which are their squares: its derivative, ½ b^½ (b^½ a b^½)^-½ b^½,
    divides by them. There is no derivative by b, which is a target.

    Args:
      a: `[c, c]`, symmetric; eigenvalues below `RIDGE` are raised to it.
      b: likewise.
    """
    return _root_trace(a, b)[0]


def _root_trace(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the trace and its derivative by `a`."""
    root = _root(b)
    left, values, _ = jnp.linalg.svd(jnp.matmul(root, _root(a), precision=EXACT))
    spread = jnp.matmul(root, left, precision=EXACT)
    slope = jnp.matmul(spread / jnp.maximum(values, RIDGE)[None], spread.T, precision=EXACT) / 2
    return jnp.sum(values), slope


def _root(matrix: jax.Array) -> jax.Array:
    """Return the square root of a symmetric matrix whose eigenvalues are clipped at `RIDGE`."""
    values, vectors = jnp.linalg.eigh(matrix)
    scaled = vectors * jnp.sqrt(jnp.maximum(values, RIDGE))[None]
    return jnp.matmul(scaled, vectors.T, precision=EXACT)


root_trace.defvjp(_root_trace, lambda slope, cotangent: (cotangent * slope, jnp.zeros_like(slope)))


WASSERSTEIN = StyleLoss(
    moments,
    wasserstein_distance,
    normalized=StyleDefaults(100.0, EQUAL_LAYERS),
    unnormalized=StyleDefaults(1.0, EQUAL_LAYERS),
)
