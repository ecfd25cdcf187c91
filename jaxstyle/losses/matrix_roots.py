"""Square roots and polar factors of matrices by products of matrices only."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

matmul = partial(jnp.matmul, precision="highest")
"""The product of matrices in full float32 on every backend."""
_POLAR_COEFFICIENTS = np.array([
    [8.514258, -25.281576, 18.767309],
    [4.257075, -3.160166, 0.586477],
    [4.256828, -3.159995, 0.586457],
    [4.255775, -3.159267, 0.586374],
    [4.251302, -3.156172, 0.586021],
    [4.232387, -3.143078, 0.584528],
    [4.154156, -3.088758, 0.578332],
    [3.858359, -2.880825, 0.554632],
    [3.049598, -2.284989, 0.487061],
    [2.112056, -1.493836, 0.400103],
    [1.878384, -1.253755, 0.375376],
])  # fmt: skip
"""Of polynomials a x + b x³ + c x⁵: the first differs least from 1 on [1e-6, 1], and each other on
the range of the one before. After the last, singular values in [1e-6, 1] are 1 within 2e-4."""


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def newton_schulz_root(matrix: jax.Array, iterations: int) -> jax.Array:
    """Compute the square root of a positive semidefinite matrix by Newton-Schulz iterations.

    Y, Z ← Y T, T Z with T = (3 - Z Y) / 2, from Y = A / |A|, Z = 1 (Higham, Functions of Matrices,
    2008, equation 6.35). Converges quadratically once the smallest eigenvalue of Y is near 1, which
    takes about log2(condition) / 1.17 iterations.

    The derivative solves the Lyapunov equation R X + X R = dA, R the root, with as many iterations
    (Lin & Maji, Improved Bilinear Pooling with CNNs, 2017, section 3.2).

    Args:
      matrix: A, `[c, c]`, symmetric.
      iterations: number of iterations.
    """
    size = jnp.sqrt(jnp.sum(jnp.square(matrix)))
    identity = jnp.eye(len(matrix), dtype=matrix.dtype)

    def iterate(_: int, pair: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        y, z = pair
        t = (3 * identity - matmul(z, y)) / 2
        return matmul(y, t), matmul(t, z)

    y, _ = lax.fori_loop(0, iterations, iterate, (matrix / size, identity))
    return y * jnp.sqrt(size)


@newton_schulz_root.defjvp
def _root_jvp(
    iterations: int, primals: tuple[jax.Array], tangents: tuple[jax.Array]
) -> tuple[jax.Array, jax.Array]:
    root = newton_schulz_root(*primals, iterations)
    size = jnp.sqrt(jnp.sum(jnp.square(root)))
    identity = jnp.eye(len(root), dtype=root.dtype)

    def iterate(_: int, pair: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        a, q = pair
        step = 3 * identity - matmul(a, a)
        commutator = matmul(a.T, q) - matmul(q, a)
        return matmul(a, step) / 2, (matmul(q, step) - matmul(a.T, commutator)) / 2

    _, q = lax.fori_loop(0, iterations, iterate, (root / size, tangents[0] / size))
    return root, q / 2


def polar_factor(matrix: jax.Array) -> jax.Array:
    """Compute the orthogonal polar factor U of a square matrix A = U H, H positive definite.

    Odd polynomials of the matrix bring its singular values to 1, X ← a X + b X XᵀX + c X (XᵀX)²,
    with the polynomials that do so fastest (Amsel, Persson, Musco & Gower, The Polar Express, 2025,
    arXiv:2505.16932, section 3). Singular values below 1e-6 |A| end between 0 and 1.

    Args:
      matrix: A, `[c, c]`.

    Returns:
      U, `[c, c]`; 0 if A is.
    """

    def iterate(x: jax.Array, coefficients: jax.Array) -> tuple[jax.Array, None]:
        a, b, c = coefficients
        square = matmul(x.T, x)
        return a * x + matmul(x, b * square + c * matmul(square, square)), None

    # Rounding must not take singular values above 1, where the first polynomial is steep.
    size = 1.001 * jnp.sqrt(jnp.sum(jnp.square(matrix)))
    size = jnp.maximum(size, jnp.finfo(matrix.dtype).tiny)
    coefficients = jnp.asarray(_POLAR_COEFFICIENTS, matrix.dtype)
    return lax.scan(iterate, matrix / size, coefficients)[0]
