"""L-BFGS that takes every step in whole, as `torch.optim.LBFGS` does without a line search.

What most style transfer programs descend with, kept for comparison with them: no trial is ever
refused, so the value may rise and a run may diverge. `lbfgs` is the better one.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxstyle.optimisers.base import Objective, Optimiser, Point, StepInfo, evaluate
from jaxstyle.optimisers.pairs import (
    Pairs,
    WithGradient,
    any_held,
    dot,
    forget,
    inverse_hessian_product,
    no_pairs,
    store,
    where,
)


class FixedLbfgsState(NamedTuple):
    """The point and the pairs, with their products with its gradient."""

    point: Point
    evaluations: jax.Array
    pairs: Pairs
    with_grad: WithGradient


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
        nothing = jnp.zeros(history_size, position.dtype)
        return FixedLbfgsState(
            point=evaluate(objective, position),
            evaluations=jnp.ones((), jnp.int32),
            pairs=no_pairs(history_size, position),
            with_grad=WithGradient(nothing, nothing),
        )

    def step(objective: Objective, state: FixedLbfgsState) -> tuple[FixedLbfgsState, StepInfo]:
        old = state.point
        newton = inverse_hessian_product(state.pairs, state.with_grad, old.grad, lambda x: x)
        first = jnp.minimum(1.0, 1 / (unit * jnp.sum(jnp.abs(old.grad))))
        size = jnp.where(state.evaluations == 1, first, 1.0)
        move = jnp.where(any_held(state.pairs), newton, size * unit**2 * old.grad)
        trial = evaluate(objective, old.position - move)

        finite = jnp.isfinite(trial.value) & jnp.all(jnp.isfinite(trial.grad))
        point = where(finite, trial, old)
        s, y = trial.position - old.position, trial.grad - old.grad
        pairs, with_grad = store(
            state.pairs, s, y, keep=finite & (dot(s, y) > 1e-10), scaled_y=y,
            grad=point.grad, scaled_grad=point.grad,
        )  # fmt: skip
        evaluations = state.evaluations + 1
        state = FixedLbfgsState(point, evaluations, forget(pairs, ~finite), with_grad)
        return state, StepInfo(point.value, point.aux, evaluations, size, finite)

    return Optimiser(init, step)
