"""Style losses by the 2-Wasserstein distance between normal distributions."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import sequential_vmap
from jax.scipy.linalg import solve_triangular

from jaxstyle.losses.base import EQUAL_LAYERS, StyleDefaults, StyleLoss
from jaxstyle.losses.covariance import CenteredMoments, centered_moments, covariance
from jaxstyle.losses.matrix_roots import matmul, newton_schulz_root, polar_factor

RIDGE = 1e-4
"""Added to the diagonal of covariance matrices before their square root is taken."""
LEAST_EIGENVALUE = 2e-7
"""Added to the diagonal before the Cholesky decomposition, relative to the trace; otherwise a
matrix of float32 could be indefinite by rounding."""
ITERATIONS = 12
"""Newton-Schulz iterations of crowsonkb/style-transfer-pytorch (style_transfer.py:155)."""


class NormalTarget(NamedTuple):
    """The normal distribution of a style's features, a target of the Wasserstein distance."""

    mean: jax.Array
    """Mean of the features, `[c]`."""
    trace: jax.Array
    """Trace of the square of `root`; of the matrix itself in `iterated_wasserstein_target`."""
    root: jax.Array
    """Square root of the covariance matrix plus `RIDGE` on its diagonal, `[c, c]`."""


@jax.jit
def wasserstein_target(style: CenteredMoments) -> NormalTarget:
    """Return the target of `wasserstein_distance` for the moments of a style."""
    root = _root(_with_ridge(style))
    return NormalTarget(style.mean, jnp.sum(jnp.square(root)), root)


def wasserstein_distance(image: CenteredMoments, style: NormalTarget) -> jax.Array:
    """Compute the squared 2-Wasserstein distance of two normal distributions, divided by c.

    (|mu - mu_t|² + tr(Sigma + Sigma_t - 2 (Sigma_t^½ Sigma Sigma_t^½)^½)) / c, with 1e-4 added
    to the diagonals of both covariance matrices (Olkin & Pukelsheim, 1982, The distance between two
    random vectors with given dispersion matrices).

    Args:
      image: moments of the image's features.
      style: target of the style (`wasserstein_target`).
    """
    channels = len(image.mean)
    # The difference of the outer products in `covariance` is rounded.
    rounding = jnp.finfo(image.mean.dtype).eps * jnp.sum(jnp.square(image.mean))
    matrix = _with_ridge(image) + rounding * jnp.eye(channels, dtype=image.mean.dtype)
    # `root_trace` adds to the diagonal; without it here the distance could be negative.
    trace = (1 + channels * LEAST_EIGENVALUE) * jnp.trace(matrix)
    return _distance(image, trace, style, root_trace(matrix, style.root))


@jax.jit
def iterated_wasserstein_target(style: CenteredMoments) -> NormalTarget:
    """Return the target of `iterated_wasserstein_distance` for the moments of a style."""
    covariance = _with_ridge(style)
    root = newton_schulz_root(covariance, ITERATIONS)
    return NormalTarget(style.mean, jnp.trace(covariance), root)


def iterated_wasserstein_distance(image: CenteredMoments, style: NormalTarget) -> jax.Array:
    """Compute `wasserstein_distance` with roots by 12 Newton-Schulz iterations.

    It consists of products of matrices, which are fast on accelerators. The iterations do not
    converge for covariance matrices of features, whose eigenvalues span many orders of magnitude:
    the distance of a distribution from itself is above 0. Both roots are computed as in
    crowsonkb/style-transfer-pytorch (style_transfer.py:149-180, sqrtm.py).

    Args:
      image: moments of the image's features.
      style: target of the style (`iterated_wasserstein_target`).
    """
    covariance = _with_ridge(image)
    product = matmul(matmul(style.root, covariance), style.root)
    root = newton_schulz_root(product, ITERATIONS)
    return _distance(image, jnp.trace(covariance), style, jnp.trace(root))


def _with_ridge(statistics: CenteredMoments) -> jax.Array:
    """Return the covariance matrix `[c, c]` plus `RIDGE` on its diagonal."""
    mean = statistics.mean
    return covariance(statistics) + RIDGE * jnp.eye(len(mean), dtype=mean.dtype)


def _distance(
    image: CenteredMoments, trace: jax.Array, style: NormalTarget, root_trace: jax.Array
) -> jax.Array:
    """Compute the distance from the traces of the covariances and of their product's root."""
    spread = trace + style.trace - 2 * root_trace
    distance = jnp.sum(jnp.square(image.mean - style.mean)) + spread
    return distance / image.mean.shape[0]


@jax.custom_jvp
def root_trace(a: jax.Array, root: jax.Array) -> jax.Array:
    """Compute the trace of (b^½ a b^½)^½ of two covariance matrices.

    It is the sum of the singular values of b^½ L with L the Cholesky factor of a, a = L Lᵀ. In
    float32 these are more exact than the eigenvalues of b^½ a b^½, which are their squares and
    divide the derivative with respect to a, ½ b^½ (b^½ a b^½)^-½ b^½. There is no derivative with
    respect to b, which is a target.

    Args:
      a: `[c, c]`, symmetric; `LEAST_EIGENVALUE` is added to it.
      root: b^½, `[c, c]`, symmetric.
    """
    return _root_trace(a, root)[0]


def _root_trace(a: jax.Array, root: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the trace and its derivative with respect to `a`."""
    values: tuple[jax.Array, jax.Array] = lax.platform_dependent(
        a, root, cpu=root_trace_by_svd, default=root_trace_by_products
    )
    return values


@jax.custom_jvp
def root_trace_by_svd(a: jax.Array, root: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return `root_trace` and its derivative with respect to `a`, by singular values.

    Batches are computed one after the other: jaxlib divides a batched decomposition among the
    threads of the CPU and waits for them, which never ends if several such decompositions run at
    the same time and occupy all threads.
    """
    values: tuple[jax.Array, jax.Array] = sequential_vmap(_by_singular_values)(a, root)
    return values


@root_trace_by_svd.defjvp
def _root_trace_by_svd_jvp(
    primals: tuple[jax.Array, jax.Array], tangents: tuple[jax.Array, jax.Array]
) -> tuple[tuple[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]:
    # The reverse mode cannot differentiate a function of `sequential_vmap`, and the derivative of
    # singular vectors is infinite where singular values are equal.
    return root_trace_by_svd(*primals), jax.jvp(root_trace_by_products, primals, tangents)[1]


def _by_singular_values(a: jax.Array, root: jax.Array) -> tuple[jax.Array, jax.Array]:
    left, values, _ = jnp.linalg.svd(matmul(root, _factor(a)))
    spread = matmul(root, left)
    scaled = spread / jnp.maximum(values, RIDGE)[None]
    return jnp.sum(values), matmul(scaled, spread.T) / 2


def root_trace_by_products(a: jax.Array, root: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return `root_trace` and its derivative with respect to `a`, by products of matrices.

    With U the polar factor of b^½ L, the trace is that of Uᵀ b^½ L and the derivative is
    ½ b^½ U L^-1. Accelerators compute products of matrices much faster than singular values.
    """
    factor = _factor(a)
    product = matmul(root, factor)
    polar = polar_factor(product)
    spread = matmul(root, polar)
    slope = solve_triangular(factor, spread.T, trans="T", lower=True)
    return jnp.sum(polar * product), (slope + slope.T) / 4


def _factor(matrix: jax.Array) -> jax.Array:
    """Return the Cholesky factor of a symmetric matrix with `LEAST_EIGENVALUE` added."""
    ridge = jnp.maximum(LEAST_EIGENVALUE * jnp.trace(matrix), jnp.finfo(matrix.dtype).tiny)
    return jnp.linalg.cholesky(matrix + ridge * jnp.eye(len(matrix), dtype=matrix.dtype))


@sequential_vmap
def _root(matrix: jax.Array) -> jax.Array:
    """Return the square root of a symmetric matrix whose eigenvalues are clipped at `RIDGE`."""
    values, vectors = jnp.linalg.eigh(matrix)
    scaled = vectors * jnp.sqrt(jnp.maximum(values, RIDGE))[None]
    return matmul(scaled, vectors.T)


@root_trace.defjvp
def _root_trace_jvp(
    primals: tuple[jax.Array, jax.Array], tangents: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    trace, slope = _root_trace(*primals)
    return trace, jnp.sum(slope * tangents[0])


_loss = partial(
    StyleLoss,
    centered_moments,
    normalized=StyleDefaults(100.0, EQUAL_LAYERS),
    unnormalized=StyleDefaults(1.0, EQUAL_LAYERS),
    balance=4.0,
)
WASSERSTEIN = _loss(wasserstein_distance, target=wasserstein_target)
ITERATED_WASSERSTEIN = _loss(iterated_wasserstein_distance, target=iterated_wasserstein_target)
