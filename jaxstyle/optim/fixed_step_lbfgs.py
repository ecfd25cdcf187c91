"""L-BFGS with full steps and no line search, as `torch.optim.LBFGS` does by default.

What most style transfer programs descend with, kept for comparison with them: no trial is ever
refused, so the value may rise and a run may diverge. `lbfgs` is the better one.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxstyle.errors import JaxstyleError
from jaxstyle.optim.base import Objective, Optimizer, Point, StepInfo, evaluate, of_pytrees
from jaxstyle.optim.lbfgs_history import (
    CurvatureHistory,
    any_held,
    dot,
    empty_history,
    inverse_hessian_product,
    store,
    where,
)


class FixedLbfgsState(NamedTuple):
    """Carried from step to step: the point, the move to come, the pairs."""

    point: Point
    evaluations: jax.Array
    move: jax.Array
    """What the next step adds to the position."""
    pairs: CurvatureHistory


def fixed_lbfgs(
    *,
    history_size: int = 100,
    learning_rate: jax.Array | float = 1.0,
    unit: float = 1 / 255,
    flat: bool = True,
) -> Optimizer:
    """Build L-BFGS with a fixed step size, one evaluation a step.

    The first step is min(1, 1 / |g|₁) times the gradient, a pair is kept when yᵀs > 1e-10, and
    the inverse Hessian starts as yᵀs / yᵀy of the newest pair: torch/optim's `lbfgs.lua`
    and `torch.optim.LBFGS` with `line_search_fn=None`, but for their tests for an end. A point
    that is not finite is not gone to; half of the step is tried next.

    Args:
      history_size: pairs kept; memory is 2·history_size positions.
      learning_rate: multiplies every step, the first too.
      unit: what is 1 where the programs optimize, in units of the position; the length of the
        first step depends on it. 1/255 for images in [0, 1] that they have in 0-255.
      flat: as in `lbfgs`.

    Returns:
      `Optimizer(init, step)` over `FixedLbfgsState`.

    Raises:
      JaxstyleError: an argument outside its range.
    """
    if history_size < 1 or not unit > 0:
        raise JaxstyleError(
            f"fixed_lbfgs(history_size={history_size}, unit={unit}): needs history_size of at "
            "least 1 and unit above 0"
        )

    def first_move(grad: jax.Array) -> jax.Array:
        size = unit * jnp.sum(jnp.abs(grad))
        length = jnp.minimum(1.0, 1 / jnp.where(size > 0, size, 1))
        return -length * unit**2 * grad

    def init(objective: Objective, position: jax.Array) -> FixedLbfgsState:
        point = evaluate(objective, position)
        return FixedLbfgsState(
            point=point,
            evaluations=jnp.ones((), jnp.int32),
            move=first_move(point.grad),
            pairs=empty_history(history_size, position, flat=flat),
        )

    def step(objective: Objective, state: FixedLbfgsState) -> tuple[FixedLbfgsState, StepInfo]:
        old = state.point
        first = state.evaluations == 0
        trial = evaluate(objective, old.position + learning_rate * state.move)
        finite = jnp.isfinite(trial.value) & jnp.all(jnp.isfinite(trial.grad))
        moved = first | finite
        point = where(moved, trial, old)
        s, y = trial.position - old.position, trial.grad - old.grad
        keep = finite & (dot(s, y) > 1e-10)
        pairs, projected = store(state.pairs, s, y, y, point.grad, point.grad, keep)
        newton = -inverse_hessian_product(pairs, projected, point.grad)
        steepest = jnp.where(first, first_move(point.grad), -(unit**2) * point.grad)
        move = jnp.where(any_held(pairs), newton, steepest)
        evaluations = state.evaluations + 1
        return FixedLbfgsState(
            point=point,
            evaluations=evaluations,
            move=jnp.where(moved, move, state.move / 2),
            pairs=pairs,
        ), StepInfo(point.value, point.aux, evaluations, jnp.asarray(learning_rate, s.dtype), moved)

    return of_pytrees(Optimizer(init, step))
