"""L-BFGS for accelerators and `vmap`: one evaluation per step, without an inner loop.

The line search is not a loop inside a step. Each step evaluates one trial point and either accepts
it, which gives a new direction, or keeps the old point and reduces the step size. The compiled
program therefore contains the objective once, and under `vmap` each batch element accepts or
backtracks independently, without waiting for the others.

Three choices reduce the number of evaluations. The line search is nonmonotone: a trial may be worse
than the current point if it is better than one of the last few, as unit steps are nearly always
right in the end and a rejected trial costs an evaluation. If the slope has hardly decreased along a
step, or has increased (between two minima, where the function is concave), the next trial continues
along the same direction, twice as far. And the initial inverse Hessian may be a `preconditioner`
instead of a multiple of the identity.

Reference:
  Liu & Nocedal, On the limited memory BFGS method for large scale optimization, 1989,
  algorithm 2.1; Byrd, Nocedal & Schnabel, Representations of quasi-Newton matrices and their
  use in limited memory methods, 1994, equation 3.1 (the two-loop recursion as products
  with whole matrices); Grippo, Lampariello & Lucidi, A nonmonotone line search technique for
  Newton's method, 1986 (acceptance); Nocedal & Wright, Numerical Optimization, 2nd ed.,
  equation 7.20 (initial scaling), equations 3.6 (sufficient decrease, curvature) and section
  3.5 (interpolation).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxstyle.errors import JaxstyleError
from jaxstyle.optim.base import Objective, Optimizer, Point, StepInfo, of_pytrees, value_and_grad_at
from jaxstyle.optim.lbfgs_history import (
    CurvatureHistory,
    dot,
    empty_history,
    forget,
    has_pairs,
    inverse_hessian_product,
    project,
    resize_pairs,
    store,
    where,
)


class LbfgsState(NamedTuple):
    """State of `lbfgs`: the accepted point, the next trial and the curvature pairs."""

    point: Point
    """The last accepted point."""
    evaluations: jax.Array
    """Number of evaluations so far, int32 scalar."""
    direction: jax.Array
    """p, the search direction, of the position's shape."""
    slope: jax.Array
    """Derivative along p at the point, a negative scalar."""
    step_size: jax.Array
    """t, the step size of the next trial at position + t · p, a scalar."""
    shrinks: jax.Array
    """Number of trials rejected since the last accepted one, int32 scalar."""
    pairs: CurvatureHistory
    """Pairs of position and gradient differences."""
    move: jax.Array
    """Largest change of a coordinate in the next trial along a gradient, a scalar."""
    recent: jax.Array
    """Values of the last accepted points, newest first, `[nonmonotone_window]`."""
    scaled_grad: jax.Array
    """Product of the preconditioner and the gradient, divided by `unit`."""
    unit: jax.Array
    """Power of two by which gradients and values are divided before they are multiplied, so that
    products neither overflow nor underflow; 1 for gradients of usual magnitude. `slope` and the
    pairs are in this unit."""


def lbfgs(
    *,
    history_size: int = 20,
    preconditioner: Callable[[jax.Array], jax.Array] | None = None,
    nonmonotone_window: int = 5,
    first_move: float = 0.05,
    sufficient_decrease: float = 1e-4,
    curvature: float = 0.9,
    max_backtracks: int = 10,
    flat: bool = True,
) -> Optimizer:
    """Build L-BFGS whose steps each take exactly one evaluation of value and gradient.

    A trial is accepted if it is finite and sufficiently below the largest of the last
    `nonmonotone_window` accepted values (f(x + tp) ≤ max f + c₁ t pᵀg). Otherwise t becomes the
    minimum of the interpolating parabola, within [t/10, t/2]. If the slope at an accepted trial is
    steeper than c₂ times the slope at the start of the step, the next trial continues along p by
    2t, unless the step gave the first pair.

    A pair is not stored if yᵀs is too small for a positive definite update. As long as no pair is
    stored (for example if the initial point is on a ridge, as noise is), gradient steps double. A
    point that is not finite is never accepted. After `max_backtracks` rejections in a row the pairs
    are discarded and the search restarts along the gradient.

    The value may increase for a few steps, so that the last point need not be the best one. Keep
    the best point, as `jaxstyle.iterates` does, or set `nonmonotone_window=1`.

    Args:
      history_size: m, the number of stored pairs; memory is 2·m positions.
      preconditioner: a linear, symmetric and positive definite map M of positions. The initial
        inverse Hessian is M yᵀs / yᵀMy of the newest pair; M is the identity if not given. This
        equals optimization without a preconditioner over z with x = M^(1/2) z.
      nonmonotone_window: number of accepted values that a trial is compared with; 1 for a monotone
        line search.
      first_move: largest change of a coordinate in the first trial and after a restart, in units of
        the position, as the curvature is not known yet.
      sufficient_decrease: c₁, between 0 and 1.
      curvature: c₂, between c₁ and 1.
      max_backtracks: number of rejections in a row before a restart.
      flat: whether to store the pairs flattened, for CPUs (`CurvatureHistory`).

    Returns:
      `Optimizer(init, step)` over `LbfgsState`.

    Raises:
      JaxstyleError: an argument is out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxstyle import lbfgs
      >>> init, step = lbfgs()
      >>> square = lambda x: (jnp.sum((x - 3.0) ** 2), None)
      >>> state = init(square, jnp.zeros(2))
      >>> for _ in range(5):
      ...     state, info = step(square, state)
      >>> bool(jnp.allclose(state.point.position, 3.0))
      True
    """
    if (
        min(history_size, nonmonotone_window, max_backtracks) < 1
        or not first_move > 0
        or not 0 < sufficient_decrease < curvature < 1
    ):
        raise JaxstyleError(
            f"lbfgs(history_size={history_size}, nonmonotone_window={nonmonotone_window}, "
            f"first_move={first_move}, sufficient_decrease={sufficient_decrease}, "
            f"curvature={curvature}, max_backtracks={max_backtracks}): needs history_size, "
            "nonmonotone_window and max_backtracks of at least 1, first_move above 0 and "
            "0 < sufficient_decrease < curvature < 1"
        )
    # A copy, as a buffer that two fields of the state share cannot be donated.
    scaled = preconditioner or jnp.copy

    def init(objective: Objective, position: jax.Array) -> LbfgsState:
        point = value_and_grad_at(objective, position)
        unit = _unit(point.grad)
        grad = point.grad / unit
        scaled_grad = scaled(grad)
        return LbfgsState(
            point=point,
            evaluations=jnp.ones((), jnp.int32),
            direction=-scaled_grad,
            slope=-dot(grad, scaled_grad),
            step_size=_gradient_step(scaled_grad, first_move),
            shrinks=jnp.zeros((), jnp.int32),
            pairs=empty_history(history_size, position, flat=flat),
            move=jnp.asarray(first_move, position.dtype),
            recent=jnp.full(nonmonotone_window, point.value),
            scaled_grad=scaled_grad,
            unit=unit,
        )

    def step(objective: Objective, state: LbfgsState) -> tuple[LbfgsState, StepInfo]:
        old, t = state.point, state.step_size
        first = state.evaluations == 0
        trial = value_and_grad_at(objective, old.position + t * state.direction)
        unit = jnp.where(first, _unit(trial.grad), state.unit)
        trial_grad = trial.grad / unit

        # 1. Accept or reject the trial. Near a minimum the decrease is below the rounding error of
        # the value; within that error, a trial is as good as the point.
        rounding = jnp.finfo(trial.value.dtype).eps * jnp.abs(old.value) / unit
        rise = (trial.value - jnp.max(state.recent)) / unit
        # The initial point is always accepted, even if its value is not a number.
        finite = first | (jnp.isfinite(trial.value) & jnp.all(jnp.isfinite(trial.grad)))
        accepted = finite & ~(rise > sufficient_decrease * t * state.slope + rounding)
        point = where(accepted, trial, old)
        grad = point.grad / unit
        scaled_grad = jnp.where(accepted, scaled(trial_grad), state.scaled_grad)
        recent = jnp.where(accepted, jnp.roll(state.recent, 1).at[0].set(trial.value), state.recent)

        # 2. Store the pair if the update is positive definite.
        s, y = trial.position - old.position, trial_grad - old.grad / unit
        keep = accepted & (dot(s, y) > 1e-8 * jnp.sqrt(dot(s, s)) * jnp.sqrt(dot(y, y)))
        pairs, projected = store(
            state.pairs, s, y, scaled_grad - state.scaled_grad, grad, scaled_grad, keep
        )

        # 3. Discard the pairs after too many rejections.
        shrinks = jnp.where(accepted, 0, state.shrinks + 1)
        restart = shrinks >= max_backtracks
        shrinks = jnp.where(restart, 0, shrinks)
        pairs = forget(pairs, restart)
        recent = jnp.where(restart | first, point.value, recent)

        # 4. Choose the next trial: along a new direction from an accepted point, farther along the
        # old one if the slope is still steep, or nearer along it after a rejection.
        newton = -inverse_hessian_product(pairs, projected, scaled_grad, scaled)
        slope = dot(newton, grad)
        # Use the gradient without pairs, or if rounding errors leave no descent direction.
        steepest = restart | ~has_pairs(pairs) | ~(slope < 0)
        new_direction = jnp.where(steepest, -scaled_grad, newton)
        new_slope = jnp.where(steepest, -dot(grad, scaled_grad), slope)
        move = jnp.where(
            restart | first, first_move, jnp.where(accepted & ~keep, 2 * state.move, state.move)
        )
        new_step_size = jnp.where(steepest, _gradient_step(scaled_grad, move), 1.0)
        slope_here = dot(state.direction, trial_grad)
        # After a gradient step the first pair determines the step size.
        further = accepted & has_pairs(state.pairs) & ~steepest
        further &= slope_here < curvature * state.slope
        turn = restart | (accepted & ~further)
        along = jnp.where(further, 2 * t, _shrunk(state, trial.value, finite, unit))
        return LbfgsState(
            point=point,
            evaluations=state.evaluations + 1,
            direction=jnp.where(turn, new_direction, state.direction),
            slope=jnp.where(turn, new_slope, jnp.where(further, slope_here, state.slope)),
            step_size=jnp.where(turn, new_step_size, along),
            shrinks=shrinks,
            pairs=pairs,
            move=move,
            recent=recent,
            scaled_grad=scaled_grad,
            unit=unit,
        ), StepInfo(point.value, point.aux, state.evaluations + 1, t, accepted)

    return of_pytrees(Optimizer(init, step))


def carry_history(
    old: LbfgsState,
    new: LbfgsState,
    *,
    preconditioner: Callable[[jax.Array], jax.Array] | None = None,
) -> LbfgsState:
    """Return an initial state with the pairs of a state at another image size.

    Args:
      old: state after some steps.
      new: state from `init`; returned unchanged if the resized pairs give no descent direction.
      preconditioner: as in `lbfgs`, at the new size.
    """
    # A copy, as a buffer that two fields of the state share cannot be donated.
    scaled = preconditioner or jnp.copy
    grad, scaled_grad = new.point.grad / new.unit, new.scaled_grad
    pairs = old.pairs._replace(y_history=old.pairs.y_history * (old.unit / new.unit))
    pairs = resize_pairs(pairs, old.point.grad.shape, grad.shape, scaled)
    projected = project(pairs, grad, scaled_grad)
    newton = -inverse_hessian_product(pairs, projected, scaled_grad, scaled)
    slope = dot(newton, grad)
    usable = has_pairs(pairs) & (slope < 0)
    return new._replace(
        direction=jnp.where(usable, newton, new.direction),
        slope=jnp.where(usable, slope, new.slope),
        step_size=jnp.where(usable, 1.0, new.step_size),
        pairs=where(usable, pairs, new.pairs),
    )


def _gradient_step(scaled_grad: jax.Array, move: jax.Array | float) -> jax.Array:
    """Return the step size at which the largest entry of a gradient step is `move`."""
    largest = jnp.max(jnp.abs(scaled_grad))
    # At a stationary point the step is 0 for any step size.
    return move / jnp.where(largest > 0, largest, 1)


def _unit(grad: jax.Array) -> jax.Array:
    """Return the unit of gradients and values (`LbfgsState.unit`) for gradients like this one.

    The unit is 1 if the absolutely largest entry is within [2^-30, 2^30], 0 or not finite.
    Otherwise it is the power of two by which the entry is divided to come to the nearest end of
    that range, up to a factor of 2.
    """
    largest = jnp.max(jnp.abs(grad))
    usual = (largest >= 2.0**-30) & (largest <= 2.0**30)
    mantissa, _ = jnp.frexp(largest)
    power = largest / (2 * mantissa)
    unit = power / jnp.clip(power, 2.0**-30, 2.0**30)
    return jnp.where(usual | ~(largest > 0) | ~jnp.isfinite(largest), 1, unit)


def _shrunk(state: LbfgsState, value: jax.Array, finite: jax.Array, unit: jax.Array) -> jax.Array:
    """Return the step size at the minimum of the parabola through the point and the trial."""
    t = state.step_size
    curvature = 2 * ((value - state.point.value) / unit - t * state.slope)
    minimum = -state.slope * t * t / jnp.where(curvature > 0, curvature, 1)
    inside = finite & (curvature > 0)
    return jnp.where(inside, jnp.clip(minimum, t / 10, t / 2), t / 10)
