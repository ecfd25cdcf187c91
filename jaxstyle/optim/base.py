"""The one interface of all optimizers: `init` and `step` over a NamedTuple state.

An objective is `position -> (value, aux)`; for us an image and its `Terms`, but any
real array will do, or a pytree of them, or a value alone. Every state has the fields `point` and
`evaluations`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from jaxstyle.errors import JaxstyleError

Objective = Callable[[jax.Array], tuple[jax.Array, Any]]


class Point(NamedTuple):
    """A position with the value and the gradient of the objective."""

    position: jax.Array
    """Any shape, floats."""
    value: jax.Array
    """Scalar of the position's type."""
    grad: jax.Array
    """Same shape as `position`."""
    aux: Any
    """What the objective returns beside the value."""


class State(Protocol):
    """The fields of every optimizer's state; each adds its own."""

    @property
    def point(self) -> Point:
        """The last accepted point, already evaluated."""

    @property
    def evaluations(self) -> jax.Array:
        """Evaluations of value and gradient so far, that of `init` included; int32 scalar. 0 in
        the state that `blank` builds."""


class StepInfo(NamedTuple):
    """Numbers of one step for display; no later step uses them."""

    value: jax.Array
    """Of the point reached."""
    aux: Any
    """Of the point reached."""
    evaluations: jax.Array
    """Evaluations so far, int32 scalar."""
    step_size: jax.Array
    """Multiple of the search direction that was tried; the learning rate of first-order methods."""
    accepted: jax.Array
    """Whether the position moved; bool scalar."""


class Optimizer(NamedTuple):
    """A pair of pure functions; the loop belongs to the caller.

    `init(objective, position) -> state` evaluates the start;
    `step(objective, state) -> (state, info)`. Both jit, scan and vmap.
    """

    init: Callable[[Objective, jax.Array], Any]
    step: Callable[[Objective, Any], tuple[Any, StepInfo]]


def resized(values: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Return values of the pixels of an image, linearly interpolated for one of another size."""
    return jax.image.resize(values, shape, "linear")


def blank(optimizer: Optimizer, position: jax.Array, aux: Any) -> Any:
    """Build the state of an optimizer before any evaluation.

    A flat optimizer's first step from there evaluates the position and gives the state of `init`.
    So a program that steps can start too, and the objective, which is most of what there is to
    compile, is in one program only.

    Args:
      optimizer: one whose step is a single evaluation.
      position: start.
      aux: of the form that the objective gives; the values do not matter.
    """
    # Any value is less than infinity, and the gradient is 0.
    state = optimizer.init(lambda _: (jnp.asarray(jnp.inf), aux), position)
    return state._replace(evaluations=jnp.zeros_like(state.evaluations))


def evaluate(objective: Objective, position: jax.Array) -> Point:
    """Compute value and gradient once, both in the position's float type.

    An objective may compute in another, as one in 64-bit mode does of a float32 position; what a
    loop carries has to keep its type. It may also give the value alone; `aux` is then None.

    Raises:
      JaxstyleError: numbers that are not real floats, or a value that is no scalar.
    """
    if not jnp.issubdtype(jnp.result_type(position), jnp.floating):
        raise JaxstyleError(
            f"position: numbers of type {jnp.result_type(position)} cannot be optimized; give real "
            "floats, a complex number as its real and imaginary part"
        )

    (value, aux), grad = jax.value_and_grad(partial(value_of, objective), has_aux=True)(position)
    return Point(position, value, grad, aux)


def value_of(objective: Objective, position: jax.Array) -> tuple[jax.Array, Any]:
    """Compute value and aux, the value in the position's float type.

    Raises:
      JaxstyleError: a value that is no scalar of real floats.
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
    """Return an optimizer of single arrays that takes positions of any pytree of floats too.

    The objective is then given the pytree, and `state.point` has a pytree as position and as
    gradient; the rest of the state, and a preconditioner, have the raveled vector.
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
    kinds = {str(getattr(leaf, "dtype", type(leaf).__name__)) for leaf in leaves}
    try:
        kinds = {str(jnp.result_type(leaf)) for leaf in leaves}
        real = all(jnp.issubdtype(jnp.result_type(leaf), jnp.floating) for leaf in leaves)
    except TypeError:
        real = False
    if not leaves or not real:
        raise JaxstyleError(
            f"position: a pytree of {', '.join(sorted(kinds)) or 'nothing'} cannot be optimized; "
            "give an array, or a pytree of arrays, of real floats"
        )
    return ravel_pytree(position)
