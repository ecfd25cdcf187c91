"""L-BFGS with full steps and no line search, as `torch.optim.LBFGS` does by default.

Most style transfer programs use it, and it is here for comparison with them. As no trial point is
rejected, the value may increase and a run may diverge; `lbfgs` is the better choice.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxstyle.errors import JaxstyleError
from jaxstyle.optim.base import (
    Objective,
    Optimizer,
    Point,
    StepInfo,
    of_pytrees,
    value_and_grad_at,
    where,
)
from jaxstyle.optim.lbfgs_history import (
    CurvatureHistory,
    dot,
    empty_history,
    has_pairs,
    inverse_hessian_product,
    store,
)


class FixedLbfgsState(NamedTuple):
    """State of `fixed_lbfgs`: the point, the next step and the curvature pairs."""

    point: Point
    """The last finite point."""
    evaluations: jax.Array
    """Number of evaluations so far, int32 scalar."""
    move: jax.Array
    """Step to be added to the position, of the position's shape."""
    pairs: CurvatureHistory
    """Pairs of position and gradient differences."""


def fixed_lbfgs(
    *,
    history_size: int = 100,
    unit: float = 1 / 255,
    flat: bool = True,
) -> Optimizer:
    """Build L-BFGS with a fixed step size and one evaluation per step.

    The first step is min(1, 1 / |g|₁) times the gradient, a pair is stored if yᵀs > 1e-10, and the
    initial inverse Hessian is yᵀs / yᵀy of the newest pair. This is `lbfgs.lua` of torch/optim and
    `torch.optim.LBFGS` with `line_search_fn=None`, without their tests for convergence. If a trial
    point is not finite, the position stays, and half of the step is tried next.

    Args:
      history_size: number of stored pairs; memory is 2·history_size positions.
      unit: the unit of the programs' positions in units of this position, on which the length of
        the first step depends: 1/255 for images in [0, 1] if the programs have them in 0-255.
      flat: as in `lbfgs`.

    Returns:
      `Optimizer(init, step)` over `FixedLbfgsState`.

    Raises:
      JaxstyleError: an argument is out of range.
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
        point = value_and_grad_at(objective, position)
        return FixedLbfgsState(
            point=point,
            evaluations=jnp.ones((), jnp.int32),
            move=first_move(point.grad),
            pairs=empty_history(history_size, position, flat=flat),
        )

    def step(objective: Objective, state: FixedLbfgsState) -> tuple[FixedLbfgsState, StepInfo]:
        old = state.point
        first = state.evaluations == 0
        trial = value_and_grad_at(objective, old.position + state.move)
        finite = jnp.isfinite(trial.value) & jnp.all(jnp.isfinite(trial.grad))
        moved = first | finite
        point = where(moved, trial, old)
        s, y = trial.position - old.position, trial.grad - old.grad
        keep = finite & (dot(s, y) > 1e-10)
        pairs, projected = store(state.pairs, s, y, y, point.grad, point.grad, keep)
        newton = -inverse_hessian_product(pairs, projected, point.grad)
        steepest = jnp.where(first, first_move(point.grad), -(unit**2) * point.grad)
        move = jnp.where(has_pairs(pairs), newton, steepest)
        evaluations = state.evaluations + 1
        return FixedLbfgsState(
            point=point,
            evaluations=evaluations,
            move=jnp.where(moved, move, state.move / 2),
            pairs=pairs,
        ), StepInfo(point.value, point.aux, evaluations, jnp.ones((), s.dtype), moved)

    return of_pytrees(Optimizer(init, step))
