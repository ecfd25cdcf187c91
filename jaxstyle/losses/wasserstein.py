"""Style losses on the 2-Wasserstein distance between normal distributions."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxstyle.losses.base import EQUAL_LAYERS, EXACT, StyleDefaults, StyleLoss
from jaxstyle.losses.covariance import covariance
from jaxstyle.losses.matrix_roots import newton_schulz_root
from jaxstyle.losses.moments import Moments, moments

RIDGE = 1e-4
"""Added to the diagonal of covariance matrices before their square root is taken."""
ITERATIONS = 12
"""Newton-Schulz iterations of crowsonkb/style-transfer-pytorch (style_transfer.py:155)."""


class NormalTarget(NamedTuple):
    """A normal distribution of features, as a target of the Wasserstein distance."""

    mean: jax.Array
    """`[c]`."""
    trace: jax.Array
    """Trace of the covariance matrix with `RIDGE` on its diagonal, scalar."""
    root: jax.Array
    """Square root of that matrix, `[c, c]`."""


def wasserstein_target(style: Moments) -> NormalTarget:
    """Return what `wasserstein_distance` needs of a style, with the exact root."""
    theirs = _with_ridge(style)
    return NormalTarget(style.mean, jnp.trace(theirs), _root(theirs))


def wasserstein_distance(image: Moments, style: NormalTarget) -> jax.Array:
    """Compute the squared 2-Wasserstein distance of two normal distributions, divided by c.

    (|mu - mu_t|² + tr(Sigma + Sigma_t - 2 (Sigma_t^½ Sigma Sigma_t^½)^½)) / c, with 1e-4 added
    to the diagonals of both (Olkin & Pukelsheim, 1982, The distance between two random vectors
    with given dispersion matrices).
    """
    mine = _with_ridge(image)
    return _distance(image, mine, style, root_trace(mine, style.root))


def iterated_wasserstein_target(style: Moments) -> NormalTarget:
    """Return what `iterated_wasserstein_distance` needs of a style, with the iterated root."""
    theirs = _with_ridge(style)
    root = newton_schulz_root(theirs, ITERATIONS)
    return NormalTarget(style.mean, jnp.trace(theirs), root)


def iterated_wasserstein_distance(image: Moments, style: NormalTarget) -> jax.Array:
    """Compute `wasserstein_distance` with roots by 12 Newton-Schulz iterations.

    Products of matrices alone, so that accelerators compute it fast. The iterations have not
    converged for covariance matrices of features, whose eigenvalues span many decades: the
    distance of a distribution from itself is above 0. Both roots as
    crowsonkb/style-transfer-pytorch computes them (style_transfer.py:149-180, sqrtm.py).
    """
    mine = _with_ridge(image)
    product = jnp.matmul(jnp.matmul(style.root, mine, precision=EXACT), style.root, precision=EXACT)
    root = newton_schulz_root(product, ITERATIONS)
    return _distance(image, mine, style, jnp.trace(root))


def _with_ridge(of: Moments) -> jax.Array:
    return covariance(of) + RIDGE * jnp.eye(len(of.mean), dtype=of.mean.dtype)


def _distance(
    image: Moments, mine: jax.Array, style: NormalTarget, root_trace: jax.Array
) -> jax.Array:
    spread = jnp.trace(mine) + style.trace - 2 * root_trace
    distance = jnp.sum(jnp.square(image.mean - style.mean)) + spread
    return distance / image.mean.shape[0]


@jax.custom_jvp
def root_trace(a: jax.Array, root: jax.Array) -> jax.Array:
    """Compute the trace of (b^½ a b^½)^½ of two covariance matrices.

    It is the sum of the singular values of b^½ a^½. Float32 holds these better than
    the eigenvalues of b^½ a b^½, which are their squares: its derivative, ½ b^½ (b^½ a b^½)^-½ b^½,
    divides by them. There is no derivative by b, which is a target.

    Args:
      a: `[c, c]`, symmetric; eigenvalues below `RIDGE` are raised to it.
      root: b^½, likewise.
    """
    return _root_trace(a, root)[0]


def _root_trace(a: jax.Array, root: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the trace and its derivative by `a`."""
    left, values, _ = jnp.linalg.svd(jnp.matmul(root, _root(a), precision=EXACT))
    spread = jnp.matmul(root, left, precision=EXACT)
    scaled = spread / jnp.maximum(values, RIDGE)[None]
    slope = jnp.matmul(scaled, spread.T, precision=EXACT) / 2
    return jnp.sum(values), slope


def _root(matrix: jax.Array) -> jax.Array:
    """Return the square root of a symmetric matrix whose eigenvalues are clipped at `RIDGE`."""
    values, vectors = jnp.linalg.eigh(matrix)
    scaled = vectors * jnp.sqrt(jnp.maximum(values, RIDGE))[None]
    return jnp.matmul(scaled, vectors.T, precision=EXACT)


@root_trace.defjvp
def _root_trace_jvp(
    primals: tuple[jax.Array, jax.Array], tangents: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    trace, slope = _root_trace(*primals)
    return trace, jnp.sum(slope * tangents[0])


_loss = partial(
    StyleLoss,
    moments,
    normalized=StyleDefaults(100.0, EQUAL_LAYERS),
    unnormalized=StyleDefaults(1.0, EQUAL_LAYERS),
    balance=12.583,
)
WASSERSTEIN = _loss(wasserstein_distance, target=wasserstein_target)
ITERATED_WASSERSTEIN = _loss(iterated_wasserstein_distance, target=iterated_wasserstein_target)
