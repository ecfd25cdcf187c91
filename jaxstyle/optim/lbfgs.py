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
from functools import partial
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
    Projected,
    dot,
    empty_history,
    forget,
    has_pairs,
    inverse_hessian_product,
    project,
    resize_pairs,
    store,
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
    init = partial(
        _init, history_size=history_size, nonmonotone_window=nonmonotone_window,
        first_move=first_move, scaled=scaled, flat=flat,
    )  # fmt: skip
    step = partial(
        _step, first_move=first_move, sufficient_decrease=sufficient_decrease,
        curvature=curvature, max_backtracks=max_backtracks, scaled=scaled,
    )  # fmt: skip
    return of_pytrees(Optimizer(init, step))


def _init(
    objective: Objective,
    position: jax.Array,
    *,
    history_size: int,
    nonmonotone_window: int,
    first_move: float,
    scaled: Callable[[jax.Array], jax.Array],
    flat: bool,
) -> LbfgsState:
    """Build the state at a position, from which the first trial goes along the gradient."""
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


def _step(
    objective: Objective,
    state: LbfgsState,
    *,
    first_move: float,
    sufficient_decrease: float,
    curvature: float,
    max_backtracks: int,
    scaled: Callable[[jax.Array], jax.Array],
) -> tuple[LbfgsState, StepInfo]:
    """Evaluate the trial of a state and choose the next one."""
    trial = _evaluate_trial(objective, state, sufficient_decrease)
    accepted = trial.accepted
    point = where(accepted, trial.point, state.point)
    grad = point.grad / trial.unit
    scaled_grad = jnp.where(accepted, scaled(trial.grad), state.scaled_grad)
    values = jnp.roll(state.recent, 1).at[0].set(trial.point.value)
    recent = jnp.where(accepted, values, state.recent)
    pairs, projected, stored = _store_pair(state, trial, grad, scaled_grad)

    # Too many rejections discard the pairs.
    rejections = jnp.where(accepted, 0, state.shrinks + 1)
    restart = rejections >= max_backtracks
    pairs = forget(pairs, restart)
    starts = restart | trial.is_initial
    recent = jnp.where(starts, point.value, recent)
    longer = jnp.where(accepted & ~stored, 2 * state.move, state.move)
    move = jnp.where(starts, first_move, longer)

    new, is_gradient = _turn(pairs, projected, grad, scaled_grad, scaled, move, restart)
    # After a gradient step the first pair determines the step size.
    may_extend = accepted & has_pairs(state.pairs) & ~is_gradient
    old, extended = _extend_or_backtrack(state, trial, curvature, may_extend)
    line = where(restart | (accepted & ~extended), new, old)
    evaluations = state.evaluations + 1
    return LbfgsState(
        point=point,
        evaluations=evaluations,
        direction=line.direction,
        slope=line.slope,
        step_size=line.step_size,
        shrinks=jnp.where(restart, 0, rejections),
        pairs=pairs,
        move=move,
        recent=recent,
        scaled_grad=scaled_grad,
        unit=trial.unit,
    ), StepInfo(point.value, point.aux, evaluations, state.step_size, accepted)


class _Trial(NamedTuple):
    """An evaluated trial."""

    point: Point
    """The trial's position, value and gradient."""
    grad: jax.Array
    """Gradient divided by `unit`."""
    unit: jax.Array
    """`LbfgsState.unit` from this step on."""
    is_initial: jax.Array
    """Whether it is the initial point of an `unevaluated_state`, bool scalar."""
    finite: jax.Array
    """Whether value and gradient are finite, or it is the initial point; bool scalar."""
    accepted: jax.Array
    """Whether the trial becomes the current point, bool scalar."""


def _evaluate_trial(objective: Objective, state: LbfgsState, sufficient_decrease: float) -> _Trial:
    """Evaluate the objective at the trial of a state, and decide whether to accept the trial."""
    t = state.step_size
    is_initial = state.evaluations == 0
    point = value_and_grad_at(objective, state.point.position + t * state.direction)
    unit = jnp.where(is_initial, _unit(point.grad), state.unit)
    grad = point.grad / unit
    # Near a minimum the decrease is below the rounding error of the value; within that error, a
    # trial is as good as the point.
    rounding = jnp.finfo(point.value.dtype).eps * jnp.abs(state.point.value) / unit
    rise = (point.value - jnp.max(state.recent)) / unit
    # The initial point is always accepted, even if its value is not a number.
    finite = is_initial | (jnp.isfinite(point.value) & jnp.all(jnp.isfinite(point.grad)))
    accepted = finite & ~(rise > sufficient_decrease * t * state.slope + rounding)
    return _Trial(point, grad, unit, is_initial, finite, accepted)


def _store_pair(
    state: LbfgsState, trial: _Trial, grad: jax.Array, scaled_grad: jax.Array
) -> tuple[CurvatureHistory, Projected, jax.Array]:
    """Store the pair of an accepted trial if the update of the Hessian is positive definite.

    Args:
      state: state before the step.
      trial: its trial.
      grad: gradient at the point after the step, divided by the unit.
      scaled_grad: product of the preconditioner and `grad`.

    Returns:
      The pairs, their products with `grad`, and whether the pair was stored.
    """
    s = trial.point.position - state.point.position
    y = trial.grad - state.point.grad / trial.unit
    stored = trial.accepted & (dot(s, y) > 1e-8 * jnp.sqrt(dot(s, s)) * jnp.sqrt(dot(y, y)))
    scaled_y = scaled_grad - state.scaled_grad
    return *store(state.pairs, s, y, scaled_y, grad, scaled_grad, stored), stored


class _Line(NamedTuple):
    """The line of the next trial; the fields are as in `LbfgsState`."""

    direction: jax.Array
    slope: jax.Array
    step_size: jax.Array


def _turn(
    pairs: CurvatureHistory,
    projected: Projected,
    grad: jax.Array,
    scaled_grad: jax.Array,
    scaled: Callable[[jax.Array], jax.Array],
    move: jax.Array,
    restart: jax.Array,
) -> tuple[_Line, jax.Array]:
    """Return the line along a new direction, and whether that is the gradient's.

    It is after a restart, without pairs, and if rounding errors leave no descent direction.
    """
    newton = -inverse_hessian_product(pairs, projected, scaled_grad, scaled)
    slope = dot(newton, grad)
    steepest = restart | ~has_pairs(pairs) | ~(slope < 0)
    return _Line(
        jnp.where(steepest, -scaled_grad, newton),
        jnp.where(steepest, -dot(grad, scaled_grad), slope),
        jnp.where(steepest, _gradient_step(scaled_grad, move), 1.0),
    ), steepest


def _extend_or_backtrack(
    state: LbfgsState, trial: _Trial, curvature: float, may_extend: jax.Array
) -> tuple[_Line, jax.Array]:
    """Return the line of the next trial along the same direction, and whether it is farther.

    It is farther if that is allowed and the slope at the trial is still steep, otherwise nearer.
    """
    slope = dot(state.direction, trial.grad)
    extended = may_extend & (slope < curvature * state.slope)
    shrunk = _shrunk(state, trial)
    return _Line(
        state.direction,
        jnp.where(extended, slope, state.slope),
        jnp.where(extended, 2 * state.step_size, shrunk),
    ), extended


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


def _shrunk(state: LbfgsState, trial: _Trial) -> jax.Array:
    """Return the step size at the minimum of the parabola through the point and the trial."""
    t = state.step_size
    rise = (trial.point.value - state.point.value) / trial.unit
    curvature = 2 * (rise - t * state.slope)
    minimum = -state.slope * t * t / jnp.where(curvature > 0, curvature, 1)
    inside = trial.finite & (curvature > 0)
    return jnp.where(inside, jnp.clip(minimum, t / 10, t / 2), t / 10)
