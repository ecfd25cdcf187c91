"""Optimizers by name, as in `Recipe.optimizer`."""

from typing import Any

from jaxstyle.config.choices import LBFGS_OPTIMIZERS, PREPROCESSING_CHANGES
from jaxstyle.config.numbers import Numbers
from jaxstyle.config.recipe import Recipe
from jaxstyle.nn.sharding import SpatialSharding
from jaxstyle.optim.base import Optimizer
from jaxstyle.optim.first_order import (
    FirstOrderState,
    carry_moments,
    first_order,
    schedule,
    transformation,
)
from jaxstyle.optim.fixed_step_lbfgs import fixed_lbfgs
from jaxstyle.optim.lbfgs import LbfgsState, carry_history, lbfgs
from jaxstyle.optim.line_search import jaxopt_lbfgs, optax_lbfgs
from jaxstyle.optim.preconditioner import preconditioner

_LINE_SEARCH_OPTIMIZERS = {"jaxopt-lbfgs": jaxopt_lbfgs, "optax-lbfgs": optax_lbfgs}
"""Optimizers whose steps are loops of evaluations."""


def evaluates_once_per_step(recipe: Recipe) -> bool:
    """Return whether each step of the optimizer is exactly one evaluation."""
    return recipe.optimizer not in _LINE_SEARCH_OPTIMIZERS


def make_optimizer(
    recipe: Recipe,
    *,
    numbers: Numbers | None = None,
    rows: SpatialSharding | None = None,
    platform: str = "cpu",
) -> Optimizer:
    """Build the optimizer of a resolved recipe.

    Args:
      recipe: resolved settings.
      numbers: numbers that replace those of the recipe; may be traced.
      rows: sharding of the position's rows over devices.
      platform: platform of the devices, as JAX names it.
    """
    flat_pairs = platform == "cpu"
    if recipe.optimizer not in LBFGS_OPTIMIZERS:
        numbers = numbers or Numbers.of(recipe)
        return first_order(
            transformation(recipe.optimizer, numbers), schedule(recipe.schedule, numbers)
        )
    history_size = recipe.lbfgs_pairs
    if recipe.optimizer == "lbfgs":
        return lbfgs(
            history_size=history_size,
            preconditioner=preconditioner(recipe.preconditioner, rows=rows),
            flat=flat_pairs,
        )
    if recipe.optimizer == "lbfgs-fixed":
        # The programs with this optimizer take steps on the scale of their images.
        scale = PREPROCESSING_CHANGES.get(recipe.convention or "", {}).get("scale", 255.0)
        return fixed_lbfgs(history_size=history_size, unit=1 / scale, flat=flat_pairs)
    return _LINE_SEARCH_OPTIMIZERS[recipe.optimizer](history_size=history_size)


def carry_over(old: Any, new: Any, recipe: Recipe) -> Any:
    """Return an initial state with the L-BFGS pairs or moments of a state at another image size.

    Args:
      old: state after some steps.
      new: state from `init`; returned unchanged for `lbfgs-fixed` and the L-BFGS of libraries,
        whose state is not transferred.
      recipe: resolved settings of both.
    """
    if isinstance(old, LbfgsState) and recipe.optimizer == "lbfgs":
        return carry_history(old, new, preconditioner=preconditioner(recipe.preconditioner))
    return carry_moments(old, new) if isinstance(old, FirstOrderState) else new
