"""Square roots of matrices by products of matrices only."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from jaxstyle.losses.base import EXACT

_product = partial(jnp.matmul, precision=EXACT)


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
        t = (3 * identity - _product(z, y)) / 2
        return _product(y, t), _product(t, z)

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
        step = 3 * identity - _product(a, a)
        commutator = _product(a.T, q) - _product(q, a)
        return _product(a, step) / 2, (_product(q, step) - _product(a.T, commutator)) / 2

    _, q = lax.fori_loop(0, iterations, iterate, (root / size, tangents[0] / size))
    return root, q / 2
