"""Optimisers: one interface (`Optimiser`), ours (`lbfgs`) and the libraries'."""

from typing import Any

from jaxstyle.optimisers.base import Optimiser as Optimiser
from jaxstyle.optimisers.base import Point as Point
from jaxstyle.optimisers.base import StepInfo as StepInfo
from jaxstyle.optimisers.base import blank as blank
from jaxstyle.optimisers.base import evaluate as evaluate
from jaxstyle.optimisers.first_order import (
    FirstOrderState,
    carry_moments,
    first_order,
    schedule,
    transformation,
)
from jaxstyle.optimisers.fixed_lbfgs import fixed_lbfgs as fixed_lbfgs
from jaxstyle.optimisers.lbfgs import LbfgsState as LbfgsState
from jaxstyle.optimisers.lbfgs import carry_pairs
from jaxstyle.optimisers.lbfgs import lbfgs as lbfgs
from jaxstyle.optimisers.line_search import jaxopt_lbfgs, optax_lbfgs
from jaxstyle.optimisers.preconditioner import preconditioner
from jaxstyle.recipe import LBFGS_OPTIMIZERS, Recipe
from jaxstyle.sharding import Rows
from jaxstyle.vgg import INPUTS

_SEARCHES = {"jaxopt-lbfgs": jaxopt_lbfgs, "optax-lbfgs": optax_lbfgs}
"""Those whose step is a loop of evaluations."""


def is_flat(recipe: Recipe) -> bool:
    """Whether each step of the optimiser is one evaluation, so that it may begin `blank`."""
    return recipe.optimizer not in _SEARCHES


def make_optimiser(recipe: Recipe, *, rows: Rows | None = None) -> Optimiser:
    """Build the optimiser that a resolved recipe names.

    Args:
      recipe: resolved.
      rows: how the position's rows are shared out over devices.
    """
    if recipe.optimizer not in LBFGS_OPTIMIZERS:
        return first_order(transformation(recipe), schedule(recipe))
    history_size = recipe.history_size
    assert history_size is not None, "resolved"
    if recipe.optimizer == "lbfgs":
        return lbfgs(
            history_size=history_size,
            preconditioner=preconditioner(recipe.preconditioner, rows=rows),
        )
    if recipe.optimizer == "lbfgs-fixed":
        # The programs that work so step on the scale of their picture.
        scale = INPUTS.get(recipe.convention or "", {}).get("scale", 255.0)
        return fixed_lbfgs(history_size=history_size, unit=1 / scale)
    return _SEARCHES[recipe.optimizer](history_size=history_size)


def carried(old: Any, new: Any, recipe: Recipe) -> Any:
    """Give a state what another knows that comes from a picture of another size.

    Args:
      old: state after some steps.
      new: state fresh from `init`; what it is given back as where the optimiser has nothing to
        carry on (`lbfgs-fixed` and the libraries' L-BFGS).
      recipe: resolved; of both.
    """
    if isinstance(old, LbfgsState) and recipe.optimizer == "lbfgs":
        return carry_pairs(old, new, preconditioner=preconditioner(recipe.preconditioner))
    return carry_moments(old, new) if isinstance(old, FirstOrderState) else new
