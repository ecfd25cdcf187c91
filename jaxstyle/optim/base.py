"""The interface of all optimizers: `init` and `step` over a NamedTuple state.

An objective is a function `position -> (value, aux)` or `position -> value`. In this package the
position is an image and aux its `Terms`, but it may be any array of real floats, or a pytree of
arrays. Every state has the fields `point`, the last accepted `Point`, and `evaluations`, the number
of evaluations of value and gradient so far, an int32 scalar (including that of `init`; 0 in the
state from `unevaluated_state`).
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from jaxstyle.errors import JaxstyleError

Objective = Callable[[jax.Array], tuple[jax.Array, Any]]


class Point(NamedTuple):
    """A position with the value and the gradient of the objective."""

    position: jax.Array
    """Floats of any shape."""
    value: jax.Array
    """Value of the objective, a scalar of the position's type."""
    grad: jax.Array
    """Gradient of the objective, of the position's shape and type."""
    aux: Any
    """Auxiliary output of the objective, a pytree; None if it has none."""


class StepInfo(NamedTuple):
    """Numbers of one step for display; no later step depends on them."""

    value: jax.Array
    """Value at the current point, a scalar."""
    aux: Any
    """Auxiliary output of the objective at the current point."""
    evaluations: jax.Array
    """Number of evaluations so far, int32 scalar."""
    step_size: jax.Array
    """Multiple of the search direction that was tried, or the learning rate of a first-order
    method; a scalar."""
    accepted: jax.Array
    """Whether the position changed; bool scalar."""


class Optimizer(NamedTuple):
    """A pair of pure functions, to be called in a loop of the caller's.

    Both can be jitted, scanned and vmapped.
    """

    init: Callable[[Objective, jax.Array], Any]
    """`(objective, position) -> state`; evaluates the objective at the position."""
    step: Callable[[Objective, Any], tuple[Any, StepInfo]]
    """`(objective, state) -> (state, info)`."""


def where(condition: jax.Array, new: Any, old: Any) -> Any:
    """Return one of two pytrees, selected by a bool scalar."""
    return jax.tree.map(lambda n, o: jnp.where(condition, n, o), new, old)


def unevaluated_state(optimizer: Optimizer, position: jax.Array, aux: Any) -> Any:
    """Build the state of an optimizer before its first evaluation.

    The first step from this state evaluates the position and returns the state of `init`. One
    compiled program for steps is then enough, instead of a second one that contains the objective.

    Args:
      optimizer: an optimizer whose step is a single evaluation
        (`registry.evaluates_once_per_step`).
      position: initial position.
      aux: a pytree with the structure, shapes and types of the objective's aux.
    """
    # The value is infinite and the gradient 0, so that the first step accepts the position.
    state = optimizer.init(lambda _: (jnp.asarray(jnp.inf), aux), position)
    return state._replace(evaluations=jnp.zeros_like(state.evaluations))


def value_and_grad_at(objective: Objective, position: jax.Array) -> Point:
    """Compute value and gradient at a position in one evaluation, in the position's float type.

    The objective may return another type, for example float64 for a float32 position in 64-bit
    mode, but loops need a constant type. If it returns the value alone, `aux` is None.

    Raises:
      JaxstyleError: the position does not consist of real floats, or the value is not a scalar.
    """
    if not jnp.issubdtype(jnp.result_type(position), jnp.floating):
        raise JaxstyleError(
            f"position: numbers of type {jnp.result_type(position)} cannot be optimized; give real "
            "floats, a complex number as its real and imaginary part"
        )

    (value, aux), grad = jax.value_and_grad(partial(value_of, objective), has_aux=True)(position)
    return Point(position, value, grad, aux)


def value_of(objective: Objective, position: jax.Array) -> tuple[jax.Array, Any]:
    """Compute value and aux, with the value in the position's float type.

    Raises:
      JaxstyleError: the value is not a real scalar.
    """
    result = objective(position)
    value, aux = result if isinstance(result, tuple) and len(result) == 2 else (result, None)
    if not hasattr(value, "dtype") and not isinstance(value, int | float):
        raise JaxstyleError(
            f"objective: it returns {type(result).__name__}; let it return (value, aux), or the "
            "value alone"
        )
    if np.shape(value) != () or not jnp.issubdtype(jnp.result_type(value), jnp.floating):
        raise JaxstyleError(
            f"objective: its value is {jnp.result_type(value)}{list(np.shape(value))}; let it "
            "return one real float, or (value, aux)"
        )
    return jnp.asarray(value, position.dtype), aux


def of_pytrees(optimizer: Optimizer) -> Optimizer:
    """Return an optimizer that also takes pytrees of floats, from an optimizer of single arrays.

    For a pytree the objective takes the pytree, and `state.point` has pytrees as position and
    gradient. The rest of the state, and a preconditioner, have the raveled vector.
    """

    def raveled(objective: Objective, unravel: Callable[[jax.Array], Any]) -> Objective:
        return lambda vector: objective(unravel(vector))

    def replaced(state: Any, change: Callable[[Any], Any]) -> Any:
        point = state.point
        point = point._replace(position=change(point.position), grad=change(point.grad))
        return state._replace(point=point)

    def init(objective: Objective, position: Any) -> Any:
        if _is_array(position):
            return optimizer.init(objective, jnp.asarray(position))
        vector, unravel = _raveled(position)
        return replaced(optimizer.init(raveled(objective, unravel), vector), unravel)

    def step(objective: Objective, state: Any) -> tuple[Any, StepInfo]:
        if _is_array(state.point.position):
            return optimizer.step(objective, state)
        _, unravel = _raveled(state.point.position)
        state = replaced(state, lambda tree: _raveled(tree)[0])
        state, info = optimizer.step(raveled(objective, unravel), state)
        return replaced(state, unravel), info

    return Optimizer(init, step)


def _is_array(position: Any) -> bool:
    return hasattr(position, "dtype") and hasattr(position, "shape")


def _raveled(position: Any) -> tuple[jax.Array, Callable[[jax.Array], Any]]:
    leaves = jax.tree.leaves(position)
    try:
        real = all(jnp.issubdtype(jnp.result_type(leaf), jnp.floating) for leaf in leaves)
    except TypeError:
        real = False
    if not leaves or not real:
        kinds = {str(getattr(leaf, "dtype", type(leaf).__name__)) for leaf in leaves}
        raise JaxstyleError(
            f"position: a pytree of {', '.join(sorted(kinds)) or 'nothing'} cannot be optimized; "
            "give an array, or a pytree of arrays, of real floats"
        )
    return ravel_pytree(position)
