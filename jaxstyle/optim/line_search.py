"""The L-BFGS of jaxopt and of optax, each with its own zoom line search, for comparison.

Their line searches are loops inside a step. A step therefore takes a varying number of evaluations,
which are counted; the program contains the network several times; and under `vmap` all batch
elements wait for the longest search. None of this holds for `lbfgs`.
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
    of_pytrees,
    value_and_grad_at,
    value_of,
)


class LineSearchState(NamedTuple):
    """State of an L-BFGS with a line search."""

    point: Point
    """The last point."""
    evaluations: jax.Array
    """Number of evaluations so far, int32 scalar."""
    inner: Any
    """State of the library."""


def jaxopt_lbfgs(*, history_size: int) -> Optimizer:
    """Build jaxopt's L-BFGS with zoom line search (Nocedal & Wright, algorithms 3.5 and 3.6)."""

    # Imported here, as its import warns that it is no longer maintained.
    import jaxopt

    def solver(value: Callable[[Any], jax.Array]) -> Any:
        # With `has_aux` jaxopt would evaluate once more per step. `implicit_diff=False` alone
        # turns its loops into scans of fixed length; `unroll=False` undoes that. `tol` is an
        # absolute gradient norm, so that it never stops at 0.
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
        augmented = _Augmented.of(objective, position)
        inner = solver(augmented.value).init_state(augmented.start(position))
        point = augmented.point(position, inner.value, inner.grad)
        return _initial_state(point, inner)

    def step(objective: Objective, state: LineSearchState) -> tuple[LineSearchState, StepInfo]:
        position = state.point.position
        augmented = _Augmented.of(objective, position)
        after, inner = solver(augmented.value).update(augmented.start(position), state.inner)
        spent = inner.num_fun_eval - state.inner.num_fun_eval
        point = augmented.point(after[0], inner.value, inner.grad)
        return _advance(state, point, inner, spent, inner.stepsize)

    return of_pytrees(Optimizer(init, step))


def optax_lbfgs(*, history_size: int) -> Optimizer:
    """Build optax's L-BFGS with its zoom line search."""
    solver = optax.lbfgs(memory_size=history_size)

    def init(objective: Objective, position: jax.Array) -> LineSearchState:
        point = value_and_grad_at(objective, position)
        start = _Augmented.of(objective, position).start(position)
        return _initial_state(point, solver.init(start))

    def step(objective: Objective, state: LineSearchState) -> tuple[LineSearchState, StepInfo]:
        old = state.point
        augmented = _Augmented.of(objective, old.position)
        start = augmented.start(old.position)
        updates, inner = solver.update(
            augmented.grad(old),
            state.inner,
            start,
            value=old.value,
            grad=augmented.grad(old),
            value_fn=augmented.value,
        )
        # The search ends on the point that it evaluated last, and keeps value and gradient.
        search = inner[-1]
        position = optax.apply_updates(start, updates)[0]
        point = augmented.point(position, search.value, search.grad)
        spent = search.info.num_linesearch_steps
        return _advance(state, point, inner, spent, search.learning_rate)

    return of_pytrees(Optimizer(init, step))


_TINY = 2.0**-80
"""Factor of the additional coordinates, so small that rounding removes them from any product."""


class _Augmented(NamedTuple):
    """An objective with additional coordinates, whose gradient contains the aux of the evaluation.

    Neither library keeps an objective's aux with the point that its search ends on, and another
    forward pass per step would be an evaluation that is not counted. Therefore the position has
    additional coordinates, whose derivatives are the aux times `_TINY`: too small to change
    anything that the libraries compute.
    """

    objective: Objective
    """The objective."""
    size: int
    """Number of values in aux."""
    dtype: jnp.dtype
    """Type of the raveled aux."""
    unravel: Callable[[jax.Array], Any]
    """`[size] -> aux`."""

    @classmethod
    def of(cls, objective: Objective, position: jax.Array) -> "_Augmented":
        """Build the objective for positions of this shape, without an evaluation."""
        form = jax.eval_shape(lambda x: value_and_grad_at(objective, x).aux, position)
        aux, unravel = ravel_pytree(jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), form))
        return cls(objective, aux.size, aux.dtype, unravel)

    def start(self, position: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return a position with its additional coordinates, which are always 0."""
        return position, jnp.zeros(self.size, position.dtype)

    def value(self, position: tuple[jax.Array, jax.Array]) -> jax.Array:
        """Compute the value at a position with its additional coordinates."""
        point, additional = position
        value, aux = value_of(self.objective, point)
        raveled = jnp.asarray(ravel_pytree(aux)[0], additional.dtype)
        return value + jnp.sum(additional * _TINY * jax.lax.stop_gradient(raveled))

    def grad(self, point: Point) -> tuple[jax.Array, jax.Array]:
        """Return the gradient of `value` at a point."""
        return point.grad, jnp.asarray(ravel_pytree(point.aux)[0], point.grad.dtype) * _TINY

    def point(self, position: jax.Array, value: jax.Array, grad: tuple[Any, jax.Array]) -> Point:
        """Return a point, with the aux from the gradient of `value`."""
        aux = jnp.asarray(grad[1] / _TINY, self.dtype)
        return Point(position, value, grad[0], self.unravel(aux))


def _initial_state(point: Point, inner: Any) -> LineSearchState:
    """Return the state at an evaluated point."""
    # Copies, as the libraries return a buffer several times, which cannot be donated.
    return jax.tree.map(jnp.copy, LineSearchState(point, jnp.ones((), jnp.int32), inner))


def _advance(
    state: LineSearchState, point: Point, inner: Any, spent: jax.Array, step_size: jax.Array
) -> tuple[LineSearchState, StepInfo]:
    """Return the state after a step, and its numbers."""
    evaluations = state.evaluations + jnp.asarray(spent, jnp.int32)
    moved = jnp.any(point.position != state.point.position)
    info = StepInfo(point.value, point.aux, evaluations, jnp.asarray(step_size), moved)
    return LineSearchState(point, evaluations, inner), info
