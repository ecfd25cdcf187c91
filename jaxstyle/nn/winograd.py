"""3x3 convolutions by Winograd's filtering F(4x4, 3x3): 36 products for 16 results instead of 144.

A window of 6x6 positions and a kernel are transformed to 36 numbers each, and the 36 products are
transformed to 4x4 results. Each transformation is a small matrix applied along rows and columns
(Toom-Cook interpolation). The interpolation points are 0, a, -a, 1/a, -1/a and infinity, a set that
is closed under reciprocals. The kernel rotated by 180 degrees, which the gradient with respect to
the map needs, therefore has the same transformed numbers in another order, and one transformed
kernel serves both passes. With a = 1/√2 the float32 errors are twice those of the direct
convolution.

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
"""The finite interpolation points; infinity comes last."""
_RECIPROCAL = [5, 3, 4, 1, 2, 0]


def _matrices() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return G `[6, 3]`, Bᵀ `[6, 6]`, Bᵀ for flipped kernels and Aᵀ `[4, 6]`, for one axis."""
    others = [np.delete(_POINTS, j) for j in range(5)]
    norms = np.array([np.prod(p - q) for p, q in zip(_POINTS, others, strict=True)])
    kernel = np.vstack([np.vander(_POINTS, 3, increasing=True) / norms[:, None], [0, 0, 1]])
    # Coefficients of the polynomials that vanish at all points except one.
    window = np.zeros((6, 6))
    window[:5, :5] = [np.poly(q)[::-1] for q in others]
    window[5] = np.poly(_POINTS)[::-1]
    result = np.column_stack([np.vander(_POINTS, 4, increasing=True).T, [0, 0, 0, 1]])
    # The value of the flipped kernel g2, g1, g0 at p is p² times that of the kernel at 1/p. With
    # the norms the factor is p² N(1/p) / N(p), by which the windows are multiplied.
    factors = np.ones(6)
    factors[1:5] = _POINTS[1:] ** 2 * norms[[3, 4, 1, 2]] / norms[1:]
    factors[0], factors[5] = 1 / norms[0], norms[0]
    flipped = (factors[:, None] * window)[_RECIPROCAL]
    return kernel, window, flipped, result


_KERNEL, _WINDOW, _FLIPPED, _RESULT = (np.kron(m, m) for m in _matrices())
"""For rows and columns together: G `[36, 9]`, Bᵀ `[36, 36]`, the same for flipped kernels, Aᵀ
`[16, 36]` (Lavin & Gray, equation 8)."""
_RESULT_FLIPPED = _RESULT[:, np.add.outer(np.multiply(6, _RECIPROCAL), _RECIPROCAL).reshape(-1)]


def transform(kernel: jax.Array) -> jax.Array:
    """Return a kernel `[3, 3, i, o]` transformed to `[36, i, o]`, with four times its memory."""
    matrix = jnp.asarray(_KERNEL, kernel.dtype)
    flat = kernel.reshape(9, *kernel.shape[2:])
    return jnp.einsum("xk,kio->xio", matrix, flat, precision="highest")


# Jitted, so that layers and programs of the same shape are traced once.
@partial(jax.jit, static_argnames=("flipped",))
def convolve(x: jax.Array, transformed: jax.Array, *, flipped: bool = False) -> jax.Array:
    """Compute the zero-padded cross-correlation of a map with 3x3 kernels.

    Args:
      x: `[h, w, i]`; `[h, w, o]` if flipped.
      transformed: transformed kernel, `[36, i, o]`.
      flipped: whether to rotate the kernel by 180 degrees and swap its channels.

    Returns:
      `[h, w, o]`; `[h, w, i]` if flipped.
    """
    height, width, channels = x.shape
    rows, columns = -(-height // 4), -(-width // 4)
    ends = ((1, 4 * rows + 3 - height), (1, 4 * columns + 3 - width), (0, 0))
    windows = _windows(_windows(jnp.pad(x, ends), rows, axis=0), columns, axis=2)
    windows = windows.swapaxes(1, 2).reshape(rows * columns, 36, channels)
    matrix, result = (
        jnp.asarray(m, x.dtype)
        for m in ((_FLIPPED, _RESULT_FLIPPED) if flipped else (_WINDOW, _RESULT))
    )
    # Products of matrices: written as sums, the transformations are a tenth faster but take four
    # times as long to compile.
    products = lax.dot_general(
        jnp.einsum("xy,nyi->xni", matrix, windows),
        transformed,
        (((2,), (2 if flipped else 1,)), ((0,), (0,))),
    )
    cells = jnp.einsum("xy,yno->xno", result, products).reshape(4, 4, rows, columns, -1)
    return cells.transpose(2, 0, 3, 1, 4).reshape(4 * rows, 4 * columns, -1)[:height, :width]


def _windows(x: jax.Array, count: int, *, axis: int) -> jax.Array:
    """Return an axis of 4 (count + 1) positions split into `count` windows of 6, with stride 4."""
    x = x.reshape(*x.shape[:axis], count + 1, 4, *x.shape[axis + 1 :])
    first, following = (lax.slice_in_dim(x, k, k + count, axis=axis) for k in (0, 1))
    return jnp.concatenate([first, lax.slice_in_dim(following, 0, 2, axis=axis + 1)], axis + 1)
