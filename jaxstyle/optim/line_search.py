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
from jax.flatten_util import ravel_pytree

from jaxstyle.optim.base import (
    Objective,
    Optimizer,
    Point,
    StepInfo,
    evaluate,
    of_pytrees,
    value_of,
)


class LineSearchState(NamedTuple):
    """The point and the library's own state."""

    point: Point
    evaluations: jax.Array
    inner: Any


def jaxopt_lbfgs(*, history_size: int) -> Optimizer:
    """Build jaxopt's L-BFGS with zoom line search (Nocedal & Wright, algorithms 3.5 and 3.6)."""

    # Here because it warns, when imported, that it is no longer maintained.
    import jaxopt

    def solver(value: Callable[[Any], jax.Array]) -> Any:
        # No `has_aux`: jaxopt would then evaluate once more a step. `implicit_diff=False`
        # alone turns its loops into scans of fixed length; `unroll=False` undoes that.
        # `tol` is an absolute gradient norm: 0 never stops.
        return jaxopt.LBFGS(
            jax.value_and_grad(value),
            value_and_grad=True,
            linesearch="zoom",
            history_size=history_size,
            tol=0.0,
            implicit_diff=False,
            unroll=False,
        )

    def init(objective: Objective, position: jax.Array) -> LineSearchState:
        carried = _Carried.of(objective, position)
        inner = solver(carried.value).init_state(carried.start(position))
        point = carried.point(position, inner.value, inner.grad)
        return _begun(point, inner)

    def step(objective: Objective, state: LineSearchState) -> tuple[LineSearchState, StepInfo]:
        position = state.point.position
        carried = _Carried.of(objective, position)
        after, inner = solver(carried.value).update(carried.start(position), state.inner)
        spent = inner.num_fun_eval - state.inner.num_fun_eval
        point = carried.point(after[0], inner.value, inner.grad)
        return _advance(state, point, inner, spent, inner.stepsize)

    return of_pytrees(Optimizer(init, step))


def optax_lbfgs(*, history_size: int) -> Optimizer:
    """Build optax's L-BFGS with its zoom line search."""
    solver = optax.lbfgs(memory_size=history_size)

    def init(objective: Objective, position: jax.Array) -> LineSearchState:
        point = evaluate(objective, position)
        start = _Carried.of(objective, position).start(position)
        return _begun(point, solver.init(start))

    def step(objective: Objective, state: LineSearchState) -> tuple[LineSearchState, StepInfo]:
        old = state.point
        carried = _Carried.of(objective, old.position)
        start = carried.start(old.position)
        updates, inner = solver.update(
            carried.grad(old),
            state.inner,
            start,
            value=old.value,
            grad=carried.grad(old),
            value_fn=carried.value,
        )
        # The search ends on the point it evaluated last and keeps value and gradient.
        search = inner[-1]
        position = optax.apply_updates(start, updates)[0]
        point = carried.point(position, search.value, search.grad)
        spent = search.info.num_linesearch_steps
        return _advance(state, point, inner, spent, search.learning_rate)

    return of_pytrees(Optimizer(init, step))


_TINY = 2.0**-80
"""What the carried coordinates have instead of 1: their share of any product is below rounding."""


class _Carried(NamedTuple):
    """An objective whose gradient carries the aux of the same evaluation.

    Neither library keeps an objective's aux with the point that its search ends on, and another
    forward pass a step would be an evaluation that is not counted. So the position has further
    coordinates, whose derivatives are the aux times `_TINY`; as these are so small, nothing that
    the libraries compute is changed by them.
    """

    objective: Objective
    size: int
    dtype: jnp.dtype
    """Of all aux in one vector."""
    unravel: Callable[[jax.Array], Any]

    @classmethod
    def of(cls, objective: Objective, position: jax.Array) -> "_Carried":
        """Return the objective of positions of this form; nothing is evaluated."""
        form = jax.eval_shape(lambda x: evaluate(objective, x).aux, position)
        aux, unravel = ravel_pytree(jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), form))
        return cls(objective, aux.size, aux.dtype, unravel)

    def start(self, position: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return a position with its further coordinates, which are always 0."""
        return position, jnp.zeros(self.size, position.dtype)

    def value(self, position: tuple[jax.Array, jax.Array]) -> jax.Array:
        """Compute the value."""
        point, further = position
        value, aux = value_of(self.objective, point)
        carried = jnp.asarray(ravel_pytree(aux)[0], further.dtype)
        return value + jnp.sum(further * _TINY * jax.lax.stop_gradient(carried))

    def grad(self, point: Point) -> tuple[jax.Array, jax.Array]:
        """Return the gradient that `value` has at a point."""
        return point.grad, jnp.asarray(ravel_pytree(point.aux)[0], point.grad.dtype) * _TINY

    def point(self, position: jax.Array, value: jax.Array, grad: tuple[Any, jax.Array]) -> Point:
        """Return an evaluated position, with the aux that its gradient carries."""
        aux = jnp.asarray(grad[1] / _TINY, self.dtype)
        return Point(position, value, grad[0], self.unravel(aux))


def _begun(point: Point, inner: Any) -> LineSearchState:
    # Copies: the libraries give the same buffer several times, which cannot be donated then.
    return jax.tree.map(jnp.copy, LineSearchState(point, jnp.ones((), jnp.int32), inner))


def _advance(
    state: LineSearchState, point: Point, inner: Any, spent: jax.Array, step_size: jax.Array
) -> tuple[LineSearchState, StepInfo]:
    evaluations = state.evaluations + jnp.asarray(spent, jnp.int32)
    moved = jnp.any(point.position != state.point.position)
    info = StepInfo(point.value, point.aux, evaluations, jnp.asarray(step_size), moved)
    return LineSearchState(point, evaluations, inner), info
