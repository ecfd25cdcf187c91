"""Gradient descent and its relatives, from optax, behind the common interface."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxstyle.config.numbers import Numbers
from jaxstyle.optim.base import Objective, Optimizer, Point, StepInfo, evaluate, of_pytrees, resized


class FirstOrderState(NamedTuple):
    """State of a first-order method."""

    point: Point
    """The last point."""
    evaluations: jax.Array
    """Evaluations so far, int32 scalar."""
    inner: Any
    """State of the optax transformation."""


def first_order(
    transform: optax.GradientTransformation, learning_rate: optax.Schedule
) -> Optimizer:
    """Build an optimizer from an optax transformation of unit step size.

    Args:
      transform: gradient to direction, such as `optax.scale_by_adam()`.
      learning_rate: number of steps done -> step size, in units of the position.
    """

    def init(objective: Objective, position: jax.Array) -> FirstOrderState:
        point = evaluate(objective, position)
        return FirstOrderState(point, jnp.ones((), jnp.int32), transform.init(position))

    def step(objective: Objective, state: FirstOrderState) -> tuple[FirstOrderState, StepInfo]:
        point = state.point
        first = state.evaluations == 0
        rate = jnp.asarray(learning_rate(jnp.maximum(state.evaluations - 1, 0)), jnp.float32)
        updates, inner = transform.update(point.grad, state.inner, point.position)
        inner = jax.tree.map(lambda new, old: jnp.where(first, old, new), inner, state.inner)
        point = evaluate(objective, point.position - jnp.where(first, 0, rate * updates))
        evaluations = state.evaluations + 1
        return FirstOrderState(point, evaluations, inner), StepInfo(
            point.value, point.aux, evaluations, rate, jnp.ones((), bool)
        )

    return of_pytrees(Optimizer(init, step))


def carry_moments(old: FirstOrderState, new: FirstOrderState) -> FirstOrderState:
    """Return a fresh state with the moments of a state on an image of another size."""
    # The gradient of a pixel is the smaller, the more pixels there are.
    lengths = [jnp.sqrt(jnp.mean(jnp.square(state.point.grad))) for state in (old, new)]
    ratio = lengths[1] / jnp.where(lengths[0] > 0, lengths[0], 1)
    inner = _resized(old.inner, ratio, new.point.position.shape)
    finite = jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(inner)] or [True])
    inner = jax.tree.map(lambda a, b: jnp.where(jnp.all(finite), a, b), inner, new.inner)
    return new._replace(inner=inner)


def _resized(inner: Any, ratio: jax.Array, shape: tuple[int, ...]) -> Any:
    """Return optax's moments, resized and times the ratio of the gradients; second moments times
    its square."""

    def resize(path: Any, leaf: jax.Array) -> jax.Array:
        if leaf.ndim < 2:
            return leaf
        power = 2 if getattr(path[-1], "name", "") == "nu" else 1
        return resized(leaf, shape) * ratio**power

    return jax.tree_util.tree_map_with_path(resize, inner)


def schedule(name: str, numbers: Numbers) -> optax.Schedule:
    """Return the learning rate after k of `numbers.steps` steps.

    Args:
      name: the shape of its fall, as of `Recipe.schedule`.
      numbers: it falls from `learning_rate` to `decay` times that at the end.
    """
    rate: Any = numbers.learning_rate
    decay: Any = numbers.decay
    # On the fraction of the run, so that the number of steps may be a traced value.
    over_run = {
        "constant": lambda: optax.constant_schedule(rate),
        "exponential": lambda: lambda done: rate * decay**done,
        "linear": lambda: lambda done: rate * (1 + (decay - 1) * done),
        "cosine": lambda: optax.cosine_decay_schedule(rate, 1, alpha=decay),
    }[name]()
    return lambda count: over_run(count / numbers.steps)


def transformation(optimizer: str, numbers: Numbers) -> optax.GradientTransformation:
    """Return the optax transformation of a first-order method, for a step size of 1."""
    momentum: Any = numbers.momentum
    b2: Any = numbers.adam_b2
    return {
        "sgd": lambda: optax.identity(),
        "momentum": lambda: optax.trace(decay=momentum),
        "rmsprop": lambda: optax.scale_by_rms(decay=0.9),
        "adam": lambda: optax.scale_by_adam(b2=b2),
    }[optimizer]()
