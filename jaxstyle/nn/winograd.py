"""3x3 convolutions by Winograd's filtering F(4x4, 3x3): 36 products for 16 results, not 144.

A window of 6x6 positions becomes 36 numbers, a kernel becomes 36 numbers, their products become
4x4 results; each step is a small matrix applied along rows and columns (Toom and Cook's
interpolation). The points of interpolation are 0, a, -a, 1/a, -1/a and infinity, which taking
reciprocals permutes. So the kernel turned by 180 degrees, which the gradient with respect to the
map is made with, has the same transformed numbers in another order: one transformed kernel serves
both ways. With a = 1/√2 the errors of float32 are twice those of the direct convolution.

Reference:
  Lavin & Gray, Fast Algorithms for Convolutional Neural Networks, arXiv:1509.09308, section 4.3;
  Blahut, Fast Algorithms for Signal Processing, 2010, chapter 5 (interpolation at any points).
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

_A = np.sqrt(0.5)
_POINTS = np.array([0, _A, -_A, 1 / _A, -1 / _A])
"""The finite points of interpolation; infinity comes last."""
_RECIPROCAL = [5, 3, 4, 1, 2, 0]


def _matrices() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return G `[6, 3]`, Bᵀ `[6, 6]`, Bᵀ for turned kernels and Aᵀ `[4, 6]`, for one axis."""
    others = [np.delete(_POINTS, j) for j in range(5)]
    norms = np.array([np.prod(p - q) for p, q in zip(_POINTS, others, strict=True)])
    kernel = np.vstack([np.vander(_POINTS, 3, increasing=True) / norms[:, None], [0, 0, 1]])
    # Coefficients of the polynomials that vanish at all points but one.
    window = np.zeros((6, 6))
    window[:5, :5] = [np.poly(q)[::-1] for q in others]
    window[5] = np.poly(_POINTS)[::-1]
    result = np.column_stack([np.vander(_POINTS, 4, increasing=True).T, [0, 0, 0, 1]])
    # Of a turned kernel g2, g1, g0 the number at p is p² times that of the kernel at 1/p, but for
    # the norms: p² N(1/p) / N(p), which the windows are multiplied with.
    factors = np.ones(6)
    factors[1:5] = _POINTS[1:] ** 2 * norms[[3, 4, 1, 2]] / norms[1:]
    factors[0], factors[5] = 1 / norms[0], norms[0]
    turned = (factors[:, None] * window)[_RECIPROCAL]
    return kernel, window, turned, result


_KERNEL, _WINDOW, _TURNED, _RESULT = (np.kron(m, m) for m in _matrices())
"""For rows and columns at once: G `[36, 9]`, Bᵀ `[36, 36]`, the same for turned kernels, Aᵀ
`[16, 36]` (Lavin & Gray, equation 8)."""
_RESULT_TURNED = _RESULT[:, np.add.outer(np.multiply(6, _RECIPROCAL), _RECIPROCAL).reshape(-1)]


def transform(kernel: jax.Array) -> jax.Array:
    """Return a kernel `[3, 3, i, o]` transformed to `[36, i, o]`, four times its memory."""
    matrix = jnp.asarray(_KERNEL, kernel.dtype)
    flat = kernel.reshape(9, *kernel.shape[2:])
    return jnp.einsum("xk,kio->xio", matrix, flat, precision=lax.Precision.HIGHEST)


# Traced once for each shape, however many layers, programs and directions have it.
@partial(jax.jit, static_argnames=("turned",))
def convolve(x: jax.Array, transformed: jax.Array, *, turned: bool = False) -> jax.Array:
    """Compute the cross-correlation of a map with 3x3 kernels, zero-padded.

    Args:
      x: `[h, w, i]`.
      transformed: kernel, `[36, i, o]`.
      turned: take the kernel turned by 180 degrees with its channels swapped: from `[h, w, o]`.

    Returns:
      `[h, w, o]`; `[h, w, i]` if turned.
    """
    height, width, channels = x.shape
    rows, columns = -(-height // 4), -(-width // 4)
    ends = ((1, 4 * rows + 3 - height), (1, 4 * columns + 3 - width), (0, 0))
    windows = _windows(_windows(jnp.pad(x, ends), rows, axis=0), columns, axis=2)
    windows = windows.swapaxes(1, 2).reshape(rows * columns, 36, channels)
    matrix, result = (
        jnp.asarray(m, x.dtype)
        for m in ((_TURNED, _RESULT_TURNED) if turned else (_WINDOW, _RESULT))
    )
    # Products of matrices throughout: written as sums they run a tenth faster and compile four
    # times as long.
    products = lax.dot_general(
        jnp.einsum("xy,nyi->xni", matrix, windows),
        transformed,
        (((2,), (2 if turned else 1,)), ((0,), (0,))),
    )
    cells = jnp.einsum("xy,yno->xno", result, products).reshape(4, 4, rows, columns, -1)
    return cells.transpose(2, 0, 3, 1, 4).reshape(4 * rows, 4 * columns, -1)[:height, :width]


def _windows(x: jax.Array, count: int, *, axis: int) -> jax.Array:
    """Return an axis of 4 (count + 1) positions as two: windows, 4 apart, of 6 positions."""
    x = x.reshape(*x.shape[:axis], count + 1, 4, *x.shape[axis + 1 :])
    mine, following = (lax.slice_in_dim(x, k, k + count, axis=axis) for k in (0, 1))
    return jnp.concatenate([mine, lax.slice_in_dim(following, 0, 2, axis=axis + 1)], axis + 1)
