"""First-order methods of optax with the interface of `base.Optimizer`."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxstyle.config.numbers import Numbers
from jaxstyle.optim.base import (
    Objective,
    Optimizer,
    Point,
    StepInfo,
    of_pytrees,
    value_and_grad_at,
    where,
)


class FirstOrderState(NamedTuple):
    """State of a first-order method."""

    point: Point
    """The last point."""
    evaluations: jax.Array
    """Number of evaluations so far, int32 scalar."""
    inner: Any
    """State of the optax transformation."""


def first_order(
    transform: optax.GradientTransformation, learning_rate: optax.Schedule
) -> Optimizer:
    """Build an optimizer from an optax transformation of unit step size.

    Args:
      transform: transformation from gradient to direction, such as `optax.scale_by_adam()`.
      learning_rate: `number of completed steps -> step size`, in units of the position.
    """

    def init(objective: Objective, position: jax.Array) -> FirstOrderState:
        point = value_and_grad_at(objective, position)
        return FirstOrderState(point, jnp.ones((), jnp.int32), transform.init(position))

    def step(objective: Objective, state: FirstOrderState) -> tuple[FirstOrderState, StepInfo]:
        point = state.point
        first = state.evaluations == 0
        rate = jnp.asarray(learning_rate(jnp.maximum(state.evaluations - 1, 0)), jnp.float32)
        updates, inner = transform.update(point.grad, state.inner, point.position)
        inner = where(first, state.inner, inner)
        move = jnp.where(first, 0, rate * updates).astype(point.position.dtype)
        point = value_and_grad_at(objective, point.position - move)
        evaluations = state.evaluations + 1
        return FirstOrderState(point, evaluations, inner), StepInfo(
            point.value, point.aux, evaluations, rate, jnp.ones((), bool)
        )

    return of_pytrees(Optimizer(init, step))


def carry_moments(old: FirstOrderState, new: FirstOrderState) -> FirstOrderState:
    """Return an initial state with the moments of a state at another image size."""
    # The gradient with respect to a pixel decreases with the number of pixels.
    lengths = [jnp.sqrt(jnp.mean(jnp.square(state.point.grad))) for state in (old, new)]
    ratio = lengths[1] / jnp.where(lengths[0] > 0, lengths[0], 1)
    inner = _resized(old.inner, ratio, new.point.position.shape)
    finite = jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(inner)] or [True])
    return new._replace(inner=where(jnp.all(finite), inner, new.inner))


def _resized(inner: Any, ratio: jax.Array, shape: tuple[int, ...]) -> Any:
    """Return optax's moments, resized and multiplied by the ratio of the gradients' lengths.

    Second moments are multiplied by the square of the ratio.
    """

    def resize(path: Any, leaf: jax.Array) -> jax.Array:
        if leaf.ndim < 2:
            return leaf
        power = 2 if getattr(path[-1], "name", "") == "nu" else 1
        return jax.image.resize(leaf, shape, "linear") * ratio**power

    return jax.tree_util.tree_map_with_path(resize, inner)


def schedule(name: str, numbers: Numbers) -> optax.Schedule:
    """Return a schedule of the learning rate.

    Args:
      name: name of the schedule, as in `Recipe.schedule`.
      numbers: the learning rate decreases from `learning_rate` to `decay` times that value in
        `steps` steps.
    """
    rate: Any = numbers.learning_rate
    decay: Any = numbers.decay
    # A function of the completed fraction of the run, as the number of steps may be traced.
    of_fraction = {
        "constant": lambda: optax.constant_schedule(rate),
        "exponential": lambda: lambda fraction: rate * decay**fraction,
        "linear": lambda: lambda fraction: rate * (1 + (decay - 1) * fraction),
        "cosine": lambda: optax.cosine_decay_schedule(rate, 1, alpha=decay),
    }[name]()
    return lambda count: of_fraction(count / numbers.steps)


def transformation(optimizer: str, numbers: Numbers) -> optax.GradientTransformation:
    """Return the optax transformation of a first-order method, with a step size of 1."""
    momentum: Any = numbers.momentum
    b2: Any = numbers.adam_b2
    return {
        "sgd": lambda: optax.identity(),
        "momentum": lambda: optax.trace(decay=momentum),
        "rmsprop": lambda: optax.scale_by_rms(decay=0.9),
        "adam": lambda: optax.scale_by_adam(b2=b2),
    }[optimizer]()
