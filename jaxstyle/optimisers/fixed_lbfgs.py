"""L-BFGS that takes every step in whole, as `torch.optim.LBFGS` does without a line search.

What most style transfer programs descend with, kept for comparison with them: no trial is ever
refused, so the value may rise and a run may diverge. `lbfgs` is the better one.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxstyle.optimisers.base import Objective, Optimiser, Point, StepInfo, evaluate
from jaxstyle.optimisers.lbfgs import _dot, _dots, _inverse_hessian_product, _where


class FixedLbfgsState(NamedTuple):
    """The point and the pairs; see `LbfgsState` for the latter."""

    point: Point
    evaluations: jax.Array
    s_history: jax.Array
    y_history: jax.Array
    sy: jax.Array
    yy: jax.Array
    cursor: jax.Array


def fixed_lbfgs(*, history_size: int = 100, unit: float = 1 / 255) -> Optimiser:
    """Build L-BFGS with step size 1, one evaluation a step.

    The first step is min(1, 1 / |g|₁) times the gradient, a pair is kept when yᵀs > 1e-10, and
    the inverse Hessian starts as yᵀs / yᵀy of the newest pair: torch/optim's `lbfgs.lua`
    and `torch.optim.LBFGS` with `line_search_fn=None`. A point that is not finite is not gone
    to; the pairs are forgotten instead, and the search begins anew.

    Args:
      history_size: pairs kept.
      unit: what is 1 where the programs optimise, in units of the position; the first step
        depends on it. 1/255 for pictures in [0, 1] that they have in 0-255.

    Returns:
      `Optimiser(init, step)` over `FixedLbfgsState`.
    """

    def init(objective: Objective, position: jax.Array) -> FixedLbfgsState:
        history = jnp.zeros((history_size, position.size), position.dtype)
        square = jnp.zeros((history_size, history_size), position.dtype)
        one, zero = jnp.ones((), jnp.int32), jnp.zeros((), jnp.int32)
        point = evaluate(objective, position)
        return FixedLbfgsState(point, one, history, history, square, square, zero)

    def step(objective: Objective, state: FixedLbfgsState) -> tuple[FixedLbfgsState, StepInfo]:
        old, histories = state.point, (state.s_history, state.y_history)
        s_with_grad, y_with_grad = (_dots(h, old.grad, old.grad)[0] for h in histories)
        newton = -_inverse_hessian_product(
            old.grad, lambda x: x, *histories, s_with_grad, y_with_grad,
            state.sy, state.yy, state.cursor,
        )  # fmt: skip
        scaled_grad = old.grad * unit**2
        largest = 1 / (unit * jnp.sum(jnp.abs(old.grad)))
        first = jnp.where(state.evaluations == 1, jnp.minimum(1.0, largest), 1.0)
        held = jnp.any(jnp.diag(state.sy) > 0)
        trial = evaluate(objective, old.position + jnp.where(held, newton, -first * scaled_grad))

        finite = jnp.isfinite(trial.value) & jnp.all(jnp.isfinite(trial.grad))
        s, y = trial.position - old.position, trial.grad - old.grad
        keep = finite & (_dot(s, y) > 1e-10)
        slot = state.cursor

        def stored(history: jax.Array, new: jax.Array) -> jax.Array:
            return history.at[slot].set(jnp.where(keep, new.reshape(-1), history[slot]))

        s_history, y_history = stored(state.s_history, s), stored(state.y_history, y)
        s_with_y, y_with_y = (_dots(history, y, y)[0] for history in (s_history, y_history))
        sy = state.sy.at[:, slot].set(jnp.where(keep, s_with_y, state.sy[:, slot]))
        y_with_y = jnp.where(keep, y_with_y, state.yy[slot])
        yy = state.yy.at[:, slot].set(y_with_y).at[slot].set(y_with_y)
        point = _where(finite, trial, old)
        evaluations = state.evaluations + 1
        return FixedLbfgsState(
            point=point,
            evaluations=evaluations,
            s_history=s_history,
            y_history=y_history,
            sy=jnp.where(finite, sy, 0),
            yy=jnp.where(finite, yy, 0),
            cursor=jnp.where(keep, (slot + 1) % history_size, slot),
        ), StepInfo(point.value, point.aux, evaluations, jnp.ones_like(first), finite)

    return Optimiser(init, step)
