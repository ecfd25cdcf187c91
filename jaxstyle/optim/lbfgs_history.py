"""The history of L-BFGS: pairs in a ring buffer, and the inverse Hessian that they define.

Reference:
  Byrd, Nocedal & Schnabel, Representations of quasi-Newton matrices and their use in limited
  memory methods, 1994, equation 3.1 (the two-loop recursion as products with whole matrices);
  Nocedal & Wright, Numerical Optimization, 2nd ed., equation 7.20 (initial scaling).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy.linalg import solve_triangular


class CurvatureHistory(NamedTuple):
    """The last pairs of position and gradient differences, with their inner products."""

    s_history: jax.Array
    """Ring buffer of position differences, flattened `[history_size, position.size]` or
    `[history_size, *position.shape]`. CPUs have fast routines for matrix products of the former.
    Other devices compute sums over the latter as fast, without changing the layout of an image."""
    y_history: jax.Array
    """Ring buffer of gradient differences, of the same shape."""
    sy: jax.Array
    """s_iᵀy_j if s_i is not newer than y_j, `[history_size, history_size]`; the diagonal is 0 for
    empty slots."""
    yy: jax.Array
    """y_iᵀMy_j of all slots, with M the preconditioner, `[history_size, history_size]`."""
    cursor: jax.Array
    """Slot of the next pair, now the oldest; int32 scalar."""


class Projected(NamedTuple):
    """The products of a gradient with the pairs, by slot."""

    s_grad: jax.Array
    """Sᵀg, `[history_size]`."""
    y_grad: jax.Array
    """YᵀMg, `[history_size]`."""


def empty_history(history_size: int, position: jax.Array, *, flat: bool = True) -> CurvatureHistory:
    """Build an empty history for positions of this shape, flattened if `flat`."""
    shape = (position.size,) if flat else position.shape
    # Separate buffers, as a buffer that two fields share cannot be donated.
    s_history, y_history = (jnp.zeros((history_size, *shape), position.dtype) for _ in range(2))
    sy, yy = (jnp.zeros((history_size, history_size), position.dtype) for _ in range(2))
    return CurvatureHistory(s_history, y_history, sy, yy, jnp.zeros((), jnp.int32))


def store(
    pairs: CurvatureHistory,
    s: jax.Array,
    y: jax.Array,
    scaled_y: jax.Array,
    grad: jax.Array,
    scaled_grad: jax.Array,
    keep: jax.Array,
) -> tuple[CurvatureHistory, Projected]:
    """Store a pair in the oldest slot if `keep`, and compute a gradient's products with all pairs.

    Args:
      pairs: history so far.
      s: difference of two positions.
      y: difference of their gradients.
      scaled_y: M y, with M the preconditioner.
      grad: g, a gradient.
      scaled_grad: M g.
      keep: whether to store the pair, bool scalar.
    """
    slot = pairs.cursor

    # Selecting between slots instead of buffers keeps the update in place.
    def stored(history: jax.Array, new: jax.Array) -> jax.Array:
        return history.at[slot].set(jnp.where(keep, new.reshape(history.shape[1:]), history[slot]))

    s_history, y_history = stored(pairs.s_history, s), stored(pairs.y_history, y)
    s_with_y, s_with_grad = _dots(s_history, y, grad)
    y_with_y, y_with_grad = _dots(y_history, scaled_y, scaled_grad)
    # Only products of an older s with a newer y are used, so that one column changes.
    sy = pairs.sy.at[:, slot].set(jnp.where(keep, s_with_y, pairs.sy[:, slot]))
    yy = pairs.yy.at[:, slot].set(jnp.where(keep, y_with_y, pairs.yy[:, slot]))
    yy = yy.at[slot].set(jnp.where(keep, y_with_y, yy[slot]))
    cursor = jnp.where(keep, (slot + 1) % len(s_history), slot)
    return CurvatureHistory(s_history, y_history, sy, yy, cursor), Projected(
        s_with_grad, y_with_grad
    )


def resize_pairs(
    pairs: CurvatureHistory,
    old: tuple[int, ...],
    new: tuple[int, ...],
    scaled: Callable[[jax.Array], jax.Array] = lambda x: x,
) -> CurvatureHistory:
    """Return the pairs of images of shape `old` resized to shape `new`.

    Differences of positions and gradients are interpolated, and those of gradients multiplied by
    the ratio of the numbers of pixels. A pair with yᵀs ≤ 0 after that is dropped.

    Args:
      pairs: history at the old shape.
      old: shape of the old positions, `(h, w, c)`.
      new: shape of the new positions.
      scaled: M, the preconditioner at the new shape; the identity if not given.
    """
    share = float(np.prod(old)) / float(np.prod(new))

    def resize(history: jax.Array) -> jax.Array:
        images = jax.image.resize(history.reshape(-1, *old), (len(history), *new), "linear")
        return images.reshape(len(history), -1) if history.ndim == 2 else images

    s_history, y_history = resize(pairs.s_history), share * resize(pairs.y_history)
    scaled_y = jax.vmap(lambda y: scaled(y.reshape(new)).reshape(y.shape))(y_history)
    sy, yy = _all_dots(s_history, y_history), _all_dots(y_history, scaled_y)
    valid = (jnp.diag(pairs.sy) > 0) & (jnp.diag(sy) > 0) & jnp.isfinite(sy).all(1)
    both = valid[:, None] & valid[None]
    return CurvatureHistory(
        s_history, y_history, jnp.where(both, sy, 0), jnp.where(both, yy, 0), pairs.cursor
    )


def project(pairs: CurvatureHistory, grad: jax.Array, scaled_grad: jax.Array) -> Projected:
    """Compute the products of a gradient with all pairs."""
    return Projected(
        _dots(pairs.s_history, grad, grad)[0], _dots(pairs.y_history, scaled_grad, scaled_grad)[0]
    )


def forget(pairs: CurvatureHistory, when: jax.Array) -> CurvatureHistory:
    """Return the history, emptied if `when` is true."""
    return pairs._replace(sy=jnp.where(when, 0, pairs.sy), yy=jnp.where(when, 0, pairs.yy))


def has_pairs(pairs: CurvatureHistory) -> jax.Array:
    """Return whether the history has a pair; bool scalar."""
    return jnp.any(jnp.diag(pairs.sy) > 0)


def inverse_hessian_product(
    pairs: CurvatureHistory,
    projected: Projected,
    scaled_grad: jax.Array,
    scaled: Callable[[jax.Array], jax.Array] = lambda x: x,
) -> jax.Array:
    """Compute the product of the L-BFGS inverse Hessian and a gradient.

    With S and Y the pairs from oldest to newest, R the upper triangle of SᵀY, D its diagonal and M
    the preconditioner (Byrd et al., equation 3.1):

        Hg = γMg + S R⁻ᵀ((D + γ YᵀMY) R⁻¹ Sᵀg − γ YᵀMg) − γ MY R⁻¹ Sᵀg.

    A step reads each history twice as a whole, whereas the two-loop recursion is a chain of 4·m
    small operations.

    Args:
      pairs: S and Y with their products.
      projected: products of the gradient with the pairs.
      scaled_grad: M g.
      scaled: M; the identity if not given.
    """
    size = len(pairs.sy)
    by_age = (pairs.cursor + jnp.arange(size)) % size
    sy, yy = pairs.sy[by_age][:, by_age], pairs.yy[by_age][:, by_age]
    diagonal = jnp.diag(sy)
    filled = diagonal > 0
    # The newest pair is at the end, as `cursor` is the slot after it.
    gamma = jnp.where(filled[-1], diagonal[-1] / jnp.where(filled[-1], yy[-1, -1], 1), 1)
    # An empty slot becomes a row of the identity, whose right-hand side is 0.
    triangle = jnp.where(filled[:, None] & filled[None], jnp.triu(sy), 0) + jnp.diag(
        jnp.where(filled, 0.0, 1.0)
    )
    s_grad = jnp.where(filled, projected.s_grad[by_age], 0)
    y_grad = jnp.where(filled, projected.y_grad[by_age], 0)
    alpha = solve_triangular(triangle, s_grad)
    inner = diagonal * alpha + gamma * (jnp.sum(yy * alpha[None], 1) - y_grad)
    beta = solve_triangular(triangle, jnp.where(filled, inner, 0), trans=1)
    # From the order by age to the order of the slots.
    alpha, beta = (jnp.zeros_like(v).at[by_age].set(v) for v in (alpha, beta))
    y_part, s_part = (
        _combine(history, coefficients).reshape(scaled_grad.shape)
        for history, coefficients in ((pairs.y_history, alpha), (pairs.s_history, beta))
    )
    return gamma * (scaled_grad - scaled(y_part)) + s_part


def dot(a: jax.Array, b: jax.Array) -> jax.Array:
    """Compute the inner product of two arrays of the same shape, at full precision."""
    return jnp.sum(a * b)


def _dots(history: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
    """Compute the inner products of a history with two vectors, `[2, history_size]`."""
    if history.ndim == 2:
        return jnp.stack([jnp.matmul(history, v.reshape(-1), precision="highest") for v in (a, b)])
    return jnp.stack([jnp.sum(history * v[None], _inner(history)) for v in (a, b)])


def _all_dots(a: jax.Array, b: jax.Array) -> jax.Array:
    """Compute the inner products of two histories, `[history_size, history_size]`."""
    if a.ndim == 2:
        return jnp.matmul(a, b.T, precision="highest")
    return lax.map(lambda v: jnp.sum(a * v[None], _inner(a)), b).T


def _combine(history: jax.Array, coefficients: jax.Array) -> jax.Array:
    """Compute the linear combination of a history with `[history_size]` coefficients."""
    if history.ndim == 2:
        # CPUs have a fast product for two rows, but not for one.
        rows = jnp.stack([coefficients, jnp.zeros_like(coefficients)])
        return jnp.matmul(rows, history, precision="highest")[0]
    return jnp.sum(jnp.expand_dims(coefficients, _inner(history)) * history, 0)


def _inner(history: jax.Array) -> tuple[int, ...]:
    """Return the axes of a history that belong to the position."""
    return tuple(range(1, history.ndim))
