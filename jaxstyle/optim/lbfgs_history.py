"""The history of L-BFGS: pairs in a ring buffer, and the inverse Hessian they define.

Reference:
  Byrd, Nocedal & Schnabel, Representations of quasi-Newton matrices and their use in limited
  memory methods, 1994, equation 3.1 (the two-loop recursion as products with whole matrices);
  Nocedal & Wright, Numerical Optimization, 2nd ed., equation 7.20 (initial scaling).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy.linalg import solve_triangular

from jaxstyle.optim.base import resized


class CurvatureHistory(NamedTuple):
    """The last pairs of position and gradient differences, with the products that are needed."""

    s_history: jax.Array
    """Ring buffer of position differences, flattened `[history_size, position.size]` or as they are
    `[history_size, *position.shape]`. CPUs have fast routines for products of matrices; other
    devices take sums as fast, and would have to move a flat image in their memory."""
    y_history: jax.Array
    """Ring buffer of gradient differences, likewise."""
    sy: jax.Array
    """s_iᵀy_j where s_i is no newer than y_j, `[history_size, history_size]`; the diagonal is
    0 where a slot is empty."""
    yy: jax.Array
    """y_iᵀMy_j of all slots, M the preconditioner, likewise."""
    cursor: jax.Array
    """Slot that the next pair goes to, the oldest there is; int32."""


class Projected(NamedTuple):
    """The gradient's products with the pairs, slot by slot, `[history_size]`."""

    s_grad: jax.Array
    """Sᵀg."""
    y_grad: jax.Array
    """YᵀMg."""


def empty_history(history_size: int, position: jax.Array, *, flat: bool = True) -> CurvatureHistory:
    """Build empty buffers for positions of this shape, flattened or not."""
    shape = (position.size,) if flat else position.shape
    # A buffer each: one that two fields share cannot be donated.
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
    """Store a pair in the oldest slot if `keep`, and project a gradient on all pairs.

    Args:
      pairs: those so far.
      s: difference of two positions.
      y: difference of their gradients.
      scaled_y: M y, M the preconditioner.
      grad: g, the gradient to project.
      scaled_grad: M g.
      keep: bool scalar.
    """
    slot = pairs.cursor

    # Selecting the slot, not the buffer, keeps the update in place.
    def stored(history: jax.Array, new: jax.Array) -> jax.Array:
        return history.at[slot].set(jnp.where(keep, new.reshape(history.shape[1:]), history[slot]))

    s_history, y_history = stored(pairs.s_history, s), stored(pairs.y_history, y)
    s_with_y, s_with_grad = _dots(s_history, y, grad)
    y_with_y, y_with_grad = _dots(y_history, scaled_y, scaled_grad)
    # Only products of an older s with a newer y are ever used: a column is all there is.
    sy = pairs.sy.at[:, slot].set(jnp.where(keep, s_with_y, pairs.sy[:, slot]))
    yy = pairs.yy.at[:, slot].set(jnp.where(keep, y_with_y, pairs.yy[:, slot]))
    yy = yy.at[slot].set(jnp.where(keep, y_with_y, yy[slot]))
    cursor = jnp.where(keep, (slot + 1) % len(s_history), slot)
    return CurvatureHistory(s_history, y_history, sy, yy, cursor), Projected(
        s_with_grad, y_with_grad
    )


def carried(
    pairs: CurvatureHistory,
    old: tuple[int, ...],
    new: tuple[int, ...],
    scaled: Callable[[jax.Array], jax.Array] = lambda x: x,
) -> CurvatureHistory:
    """Return the pairs of images of shape `old` resized to shape `new`.

    Positions are interpolated, gradients too, and divided among the more pixels. A pair that is
    not positive after that is dropped.
    """
    share = float(np.prod(old)) / float(np.prod(new))

    def resize(history: jax.Array) -> jax.Array:
        images = resized(history.reshape(-1, *old), (len(history), *new))
        return images.reshape(len(history), -1) if history.ndim == 2 else images

    s_history, y_history = resize(pairs.s_history), share * resize(pairs.y_history)
    scaled_y = jax.vmap(lambda y: scaled(y.reshape(new)).reshape(y.shape))(y_history)
    sy, yy = _all_dots(s_history, y_history), _all_dots(y_history, scaled_y)
    held = (jnp.diag(pairs.sy) > 0) & (jnp.diag(sy) > 0) & jnp.isfinite(sy).all(1)
    both = held[:, None] & held
    return CurvatureHistory(
        s_history, y_history, jnp.where(both, sy, 0), jnp.where(both, yy, 0), pairs.cursor
    )


def project(pairs: CurvatureHistory, grad: jax.Array, scaled_grad: jax.Array) -> Projected:
    """Compute the products of a gradient with all pairs."""
    return Projected(
        _dots(pairs.s_history, grad, grad)[0], _dots(pairs.y_history, scaled_grad, scaled_grad)[0]
    )


def forget(pairs: CurvatureHistory, when: jax.Array) -> CurvatureHistory:
    """Return the history without its pairs where `when` is true."""
    return pairs._replace(sy=jnp.where(when, 0, pairs.sy), yy=jnp.where(when, 0, pairs.yy))


def any_held(pairs: CurvatureHistory) -> jax.Array:
    """Return whether the history has a pair; bool scalar."""
    return jnp.any(jnp.diag(pairs.sy) > 0)


def inverse_hessian_product(
    pairs: CurvatureHistory,
    projected: Projected,
    scaled_grad: jax.Array,
    scaled: Callable[[jax.Array], jax.Array] = lambda x: x,
) -> jax.Array:
    """Compute the product of the L-BFGS inverse Hessian and a gradient.

    With S, Y the pairs from oldest to newest, R the upper triangle of SᵀY, D its diagonal, M the
    preconditioner:
    Hg = γMg + S R⁻ᵀ((D + γ YᵀMY) R⁻¹ Sᵀg − γ YᵀMg) − γ MY R⁻¹ Sᵀg (Byrd et al., equation 3.1).
    A step reads each history twice in whole, where the two-loop recursion makes a chain of 4·m
    small operations.

    Args:
      pairs: S and Y with their products.
      projected: the gradient's, as `store` gives them.
      scaled_grad: M g.
      scaled: M; the identity if not given.
    """
    size = len(pairs.sy)
    by_age = (pairs.cursor + jnp.arange(size)) % size
    sy, yy = pairs.sy[by_age][:, by_age], pairs.yy[by_age][:, by_age]
    diagonal = jnp.diag(sy)
    held = diagonal > 0
    # The newest pair scales; `cursor` is one past it.
    gamma = jnp.where(held[-1], diagonal[-1] / jnp.where(held[-1], yy[-1, -1], 1), 1)
    # An empty slot becomes a row of the identity, whose right-hand side is 0.
    triangle = jnp.where(held[:, None] & held[None], jnp.triu(sy), 0) + jnp.diag(
        jnp.where(held, 0.0, 1.0)
    )
    s_grad = jnp.where(held, projected.s_grad[by_age], 0)
    y_grad = jnp.where(held, projected.y_grad[by_age], 0)
    alpha = solve_triangular(triangle, s_grad)
    inner = diagonal * alpha + gamma * (jnp.sum(yy * alpha[None], 1) - y_grad)
    beta = solve_triangular(triangle, jnp.where(held, inner, 0), trans=1)
    # Back from age to slot.
    alpha, beta = (jnp.zeros_like(v).at[by_age].set(v) for v in (alpha, beta))
    y_part, s_part = (
        _combine(history, coefficients).reshape(scaled_grad.shape)
        for history, coefficients in ((pairs.y_history, alpha), (pairs.s_history, beta))
    )
    return gamma * (scaled_grad - scaled(y_part)) + s_part


def where(condition: jax.Array, new: Any, old: Any) -> Any:
    """Return one of two pytrees by a condition."""
    return jax.tree.map(lambda n, o: jnp.where(condition, n, o), new, old)


def dot(a: jax.Array, b: jax.Array) -> jax.Array:
    """Compute the scalar product of two arrays of one shape at full precision."""
    return jnp.sum(a * b)


_EXACT = lax.Precision.HIGHEST


def _dots(history: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
    """Compute the products of all pairs with two vectors, `[2, history_size]`."""
    if history.ndim == 2:
        return jnp.stack([jnp.matmul(history, v.reshape(-1), precision=_EXACT) for v in (a, b)])
    return jnp.stack([jnp.sum(history * v[None], _inner(history)) for v in (a, b)])


def _all_dots(a: jax.Array, b: jax.Array) -> jax.Array:
    """Compute the products of all pairs of two histories, `[history_size, history_size]`."""
    if a.ndim == 2:
        return jnp.matmul(a, b.T, precision=_EXACT)
    return lax.map(lambda v: jnp.sum(a * v[None], _inner(a)), b).T


def _combine(history: jax.Array, coefficients: jax.Array) -> jax.Array:
    """Compute the sum of all pairs, each times its coefficient."""
    if history.ndim == 2:
        # A row alone is no matrix: of two of them the CPU has a fast product.
        rows = jnp.stack([coefficients, jnp.zeros_like(coefficients)])
        return jnp.matmul(rows, history, precision=_EXACT)[0]
    return jnp.sum(jnp.expand_dims(coefficients, _inner(history)) * history, 0)


def _inner(history: jax.Array) -> tuple[int, ...]:
    """Return the axes of a pair."""
    return tuple(range(1, history.ndim))
