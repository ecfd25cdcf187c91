"""The L-BFGS of jaxopt and of optax, each with its own zoom line search, for comparison.

Their searches are loops inside a step, so a step costs a varying number of evaluations
(counted), the program holds the network several times, and under `vmap` all batch elements wait
for the longest search. `lbfgs` has none of this.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxstyle.optim.base import Objective, Optimizer, Point, StepInfo, evaluate


class LineSearchState(NamedTuple):
    """The point and the library's own state."""

    point: Point
    evaluations: jax.Array
    inner: Any


def jaxopt_lbfgs(*, history_size: int) -> Optimizer:
    """Build jaxopt's L-BFGS with zoom line search (Nocedal & Wright, algorithms 3.5 and 3.6)."""

    # Here because it warns, when imported, that it is no longer maintained.
    import jaxopt

    def solver(objective: Objective) -> Any:
        # No `has_aux`: jaxopt would then evaluate once more a step. `implicit_diff=False`
        # alone turns its loops into scans of fixed length; `unroll=False` undoes that.
        # `tol` is an absolute gradient norm: 0 never stops.
        return jaxopt.LBFGS(
            jax.value_and_grad(_value(objective)),
            value_and_grad=True,
            linesearch="zoom",
            history_size=history_size,
            tol=0.0,
            implicit_diff=False,
            unroll=False,
        )

    def init(objective: Objective, position: jax.Array) -> LineSearchState:
        inner = solver(objective).init_state(position)
        point = Point(position, inner.value, inner.grad, objective(position)[1])
        return LineSearchState(point, jnp.ones((), jnp.int32), inner)

    def step(objective: Objective, state: LineSearchState) -> tuple[LineSearchState, StepInfo]:
        position, inner = solver(objective).update(state.point.position, state.inner)
        spent = inner.num_fun_eval - state.inner.num_fun_eval
        point = Point(position, inner.value, inner.grad, objective(position)[1])
        return _advance(state, point, inner, spent, inner.stepsize)

    return Optimizer(init, step)


def optax_lbfgs(*, history_size: int) -> Optimizer:
    """Build optax's L-BFGS with its zoom line search."""
    solver = optax.lbfgs(memory_size=history_size)

    def init(objective: Objective, position: jax.Array) -> LineSearchState:
        point = evaluate(objective, position)
        return LineSearchState(point, jnp.ones((), jnp.int32), solver.init(position))

    def step(objective: Objective, state: LineSearchState) -> tuple[LineSearchState, StepInfo]:
        old = state.point
        updates, inner = solver.update(
            old.grad,
            state.inner,
            old.position,
            value=old.value,
            grad=old.grad,
            value_fn=_value(objective),
        )
        position = optax.apply_updates(old.position, updates)
        # The search ends on the point it evaluated last and keeps value and gradient.
        search = inner[-1]
        point = Point(position, search.value, search.grad, objective(position)[1])
        spent = search.info.num_linesearch_steps
        return _advance(state, point, inner, spent, search.learning_rate)

    return Optimizer(init, step)


def _value(objective: Objective) -> Callable[[jax.Array], jax.Array]:
    return lambda position: objective(position)[0]


def _advance(
    state: LineSearchState, point: Point, inner: Any, spent: jax.Array, step_size: jax.Array
) -> tuple[LineSearchState, StepInfo]:
    evaluations = state.evaluations + jnp.asarray(spent, jnp.int32)
    moved = jnp.any(point.position != state.point.position)
    info = StepInfo(point.value, point.aux, evaluations, jnp.asarray(step_size), moved)
    return LineSearchState(point, evaluations, inner), info
