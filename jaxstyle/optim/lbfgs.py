"""L-BFGS made for the device: one evaluation a step, no inner loop.

The search along a direction is not a loop inside the step but the step itself: each step
evaluates one trial position and either accepts it, which gives a new direction, or keeps
the old point and shortens the trial. So the program holds the network once, and under
`vmap` each batch element accepts or shrinks on its own while all of them advance together.

Three things make every evaluation count. A trial may be worse than the point, as long as it is
better than one of the last few: unit steps are nearly always right in the end, and a refused
one is an evaluation lost. Where the slope has hardly fallen along the step, or has even grown
(the concave stretches between two minima), the next trial goes on in the same direction, twice
as far. And the inverse Hessian may start as more than a multiple of the identity, as a
`preconditioner`.

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
from jaxstyle.optim.base import Objective, Optimizer, Point, StepInfo, evaluate, of_pytrees
from jaxstyle.optim.lbfgs_history import (
    CurvatureHistory,
    any_held,
    dot,
    empty_history,
    forget,
    inverse_hessian_product,
    project,
    store,
    where,
)
from jaxstyle.optim.lbfgs_history import carried as resize_pairs


class LbfgsState(NamedTuple):
    """State of `lbfgs`: the accepted point, the next trial and the curvature pairs."""

    point: Point
    """The last accepted point."""
    evaluations: jax.Array
    """Evaluations so far, int32 scalar."""
    direction: jax.Array
    """p, same shape as the position."""
    slope: jax.Array
    """Derivative along p at the point, negative."""
    step_size: jax.Array
    """t of the next trial, at position + t · p."""
    shrinks: jax.Array
    """Trials refused since the last accepted one; int32."""
    pairs: CurvatureHistory
    """Pairs of position and gradient differences."""
    move: jax.Array
    """Largest change of a coordinate that the next trial along a gradient makes."""
    recent: jax.Array
    """Values of the last points accepted, newest first, `[nonmonotone_window]`."""
    scaled_grad: jax.Array
    """The preconditioner's product with the point's gradient over `unit`."""
    unit: jax.Array
    """Power of two that gradients and values are divided by before they are multiplied, so that
    products neither overflow nor vanish; 1 for gradients of usual size. `slope` and the pairs are
    in this unit."""


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
    """Build the flat L-BFGS: each step is exactly one evaluation of value and gradient.

    A trial is accepted when it is finite and decreases the largest of the last `nonmonotone_window`
    accepted values enough (f(x + tp) ≤ max f + c₁ t pᵀg); otherwise t shrinks to the minimum of
    the parabola through what is known, kept within [t/10, t/2]. If the slope at the accepted
    trial is still steeper than c₂ times what it was, the next trial goes on along p, 2t
    further, unless it has just given the first pair. A pair with yᵀs too small for a positive
    definite update is not stored; where that leaves no pair at all (the start lies on a ridge, as
    noise does), gradient steps double until one is. A point that is not finite is never accepted.
    After `max_backtracks` refusals the pairs are forgotten and the search restarts along the
    gradient.

    The value may rise for a few steps, so the last point need not be the best: who wants the best
    keeps it, as `jaxstyle.iterates` does, or sets `nonmonotone_window=1`.

    Args:
      history_size: m, pairs kept; memory is 2·m positions.
      preconditioner: a linear, symmetric and positive definite map M of positions, the shape of the
        initial inverse Hessian, whose scale yᵀs / yᵀMy is taken from the newest pair; identity
        if not given. Equal to running without it in coordinates z with x = M^(1/2) z.
      nonmonotone_window: accepted values that a trial is compared with; 1 for a monotone descent.
      first_move: largest change of any coordinate in the very first trial (and after a
        restart), in units of the position: nothing is known of the curvature yet.
      sufficient_decrease: c₁, between 0 and 1.
      curvature: c₂, between c₁ and 1.
      max_backtracks: refusals in a row before the restart.
      flat: whether the pairs are kept flattened, for CPUs (`CurvatureHistory`).

    Returns:
      `Optimizer(init, step)` over `LbfgsState`.

    Raises:
      JaxstyleError: an argument outside its range.

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
    # A copy: state buffers that are one cannot be donated.
    scaled = preconditioner or jnp.copy

    def init(objective: Objective, position: jax.Array) -> LbfgsState:
        point = evaluate(objective, position)
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
        trial = evaluate(objective, old.position + t * state.direction)
        unit = jnp.where(first, _unit(trial.grad), state.unit)
        trial_grad = trial.grad / unit

        # 1. Accept or refuse. Near a minimum the decrease drowns in the rounding of the
        # value itself; within that, a trial is as good as the point.
        rounding = jnp.finfo(trial.value.dtype).eps * jnp.abs(old.value) / unit
        rise = (trial.value - jnp.max(state.recent)) / unit
        # Of a start anything is taken, a value that is not a number too.
        finite = first | (jnp.isfinite(trial.value) & jnp.all(jnp.isfinite(trial.grad)))
        accepted = finite & ~(rise > sufficient_decrease * t * state.slope + rounding)
        point = where(accepted, trial, old)
        grad = point.grad / unit
        scaled_grad = jnp.where(accepted, scaled(trial_grad), state.scaled_grad)
        recent = jnp.where(accepted, jnp.roll(state.recent, 1).at[0].set(trial.value), state.recent)

        # 2. Store the pair where it is safe to.
        s, y = trial.position - old.position, trial_grad - old.grad / unit
        keep = accepted & (dot(s, y) > 1e-8 * jnp.sqrt(dot(s, s)) * jnp.sqrt(dot(y, y)))
        pairs, projected = store(
            state.pairs, s, y, scaled_grad - state.scaled_grad, grad, scaled_grad, keep
        )

        # 3. Forget the pairs if the search is stuck.
        shrinks = jnp.where(accepted, 0, state.shrinks + 1)
        restart = shrinks >= max_backtracks
        shrinks = jnp.where(restart, 0, shrinks)
        pairs = forget(pairs, restart)
        recent = jnp.where(restart | first, point.value, recent)

        # 4. Direct the next trial: along a new direction from an accepted point, further along
        # the old one where the slope asks for it, nearer along it from a refused one.
        newton = -inverse_hessian_product(pairs, projected, scaled_grad, scaled)
        slope = dot(newton, grad)
        # Without pairs, or with pairs spoiled by rounding, the gradient is what is left.
        steepest = restart | ~any_held(pairs) | ~(slope < 0)
        new_direction = jnp.where(steepest, -scaled_grad, newton)
        new_slope = jnp.where(steepest, -dot(grad, scaled_grad), slope)
        move = jnp.where(
            restart | first, first_move, jnp.where(accepted & ~keep, 2 * state.move, state.move)
        )
        new_step_size = jnp.where(steepest, _gradient_step(scaled_grad, move), 1.0)
        slope_here = dot(state.direction, trial_grad)
        # Along a gradient the first pair says how far to go.
        further = accepted & any_held(state.pairs) & ~steepest
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
    """Return a fresh state with the pairs of a state on an image of another size.

    Args:
      old: state after some steps.
      new: state from `init`; returned as it is if the resized pairs give no descent direction.
      preconditioner: as in `lbfgs`.
    """
    # A copy: state buffers that are one cannot be donated.
    scaled = preconditioner or jnp.copy
    grad, scaled_grad = new.point.grad / new.unit, new.scaled_grad
    pairs = old.pairs._replace(y_history=old.pairs.y_history * (old.unit / new.unit))
    pairs = resize_pairs(pairs, old.point.grad.shape, grad.shape, scaled)
    projected = project(pairs, grad, scaled_grad)
    newton = -inverse_hessian_product(pairs, projected, scaled_grad, scaled)
    slope = dot(newton, grad)
    usable = any_held(pairs) & (slope < 0)
    return new._replace(
        direction=jnp.where(usable, newton, new.direction),
        slope=jnp.where(usable, slope, new.slope),
        step_size=jnp.where(usable, 1.0, new.step_size),
        pairs=where(usable, pairs, new.pairs),
    )


def _gradient_step(scaled_grad: jax.Array, move: jax.Array | float) -> jax.Array:
    """Return the step size at which the largest entry of a gradient step is `move`."""
    largest = jnp.max(jnp.abs(scaled_grad))
    # At a stationary point any step will do, as it goes nowhere.
    return move / jnp.where(largest > 0, largest, 1)


def _unit(grad: jax.Array) -> jax.Array:
    """Return the power of two that brings the largest entry between 2^-30 and 2^30; 1 within."""
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
