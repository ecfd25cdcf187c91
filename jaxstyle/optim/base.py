"""The one interface of all optimizers: `init` and `step` over a NamedTuple state.

An objective is `position -> (value, aux)`; for us an image and its `Terms`, but any
real array will do. Every state has the fields `point` and `evaluations`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

Objective = Callable[[jax.Array], tuple[jax.Array, Any]]


class Point(NamedTuple):
    """A position with what the objective says of it."""

    position: jax.Array
    value: jax.Array
    """Scalar of the position's type."""
    grad: jax.Array
    """Same shape as `position`."""
    aux: Any


class State(Protocol):
    """What every optimizer carries; each adds its own fields."""

    @property
    def point(self) -> Point:
        """Where the optimizer stands, already evaluated."""

    @property
    def evaluations(self) -> jax.Array:
        """Evaluations of value and gradient so far, that of `init` included; int32 scalar. 0 of
        what is `blank`."""


class StepInfo(NamedTuple):
    """Numbers of one step for display; no later step uses them."""

    value: jax.Array
    """Of the point reached."""
    aux: Any
    evaluations: jax.Array
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
    """Bring what belongs to the pixels of an image to one of another size, linearly."""
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
    # Anything is better, and nothing pulls anywhere.
    state = optimizer.init(lambda _: (jnp.asarray(jnp.inf), aux), position)
    return state._replace(evaluations=jnp.zeros_like(state.evaluations))


def evaluate(objective: Objective, position: jax.Array) -> Point:
    """Compute value and gradient once, both in the position's float type.

    An objective may compute in another, as one in 64-bit mode does of a float32 position; what a
    loop carries has to keep its type.
    """

    def typed(position: jax.Array) -> tuple[jax.Array, Any]:
        value, aux = objective(position)
        return jnp.asarray(value, position.dtype), aux

    (value, aux), grad = jax.value_and_grad(typed, has_aux=True)(position)
    return Point(position, value, grad, aux)
