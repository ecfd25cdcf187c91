"""Neural style transfer by optimization, as a functional JAX program with L-BFGS on the device."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    __version__: str
    from jaxstyle.api import evaluate as evaluate
    from jaxstyle.api import measure as measure
    from jaxstyle.api import stylize as stylize
    from jaxstyle.api import stylize_batch as stylize_batch
    from jaxstyle.api import texture as texture
    from jaxstyle.config.numbers import Numbers as Numbers
    from jaxstyle.config.presets import presets as presets
    from jaxstyle.config.recipe import Recipe as Recipe
    from jaxstyle.engine.compute_targets import compute_targets as compute_targets
    from jaxstyle.engine.iterate import Iterate as Iterate
    from jaxstyle.engine.loop import iterates as iterates
    from jaxstyle.engine.planning import Plan as Plan
    from jaxstyle.engine.planning import plan as plan
    from jaxstyle.engine.preparation import prepare as prepare
    from jaxstyle.engine.problem import Problem as Problem
    from jaxstyle.engine.results import Result as Result
    from jaxstyle.engine.results import finish as finish
    from jaxstyle.errors import JaxstyleError as JaxstyleError
    from jaxstyle.losses.content import content_loss as content_loss
    from jaxstyle.losses.gram import gram_matrix as gram_matrix
    from jaxstyle.losses.gram import style_loss as style_loss
    from jaxstyle.losses.masks import Masks as Masks
    from jaxstyle.losses.metrics import Metrics as Metrics
    from jaxstyle.losses.objective import Terms as Terms
    from jaxstyle.losses.objective import make_objective as make_objective
    from jaxstyle.losses.targets import Targets as Targets
    from jaxstyle.losses.total_variation import total_variation as total_variation
    from jaxstyle.nn.network import Network as Network
    from jaxstyle.nn.preprocessing import Preprocessing as Preprocessing
    from jaxstyle.nn.vgg import features as features
    from jaxstyle.optim.base import Optimizer as Optimizer
    from jaxstyle.optim.lbfgs import lbfgs as lbfgs
    from jaxstyle.optim.registry import make_optimizer as make_optimizer
    from jaxstyle.weights import load_network as load_network

# Loaded when first asked for: the command line's help needs no JAX.
_EXPORTS = {
    "Preprocessing": "jaxstyle.nn.preprocessing",
    "Iterate": "jaxstyle.engine.iterate",
    "JaxstyleError": "jaxstyle.errors",
    "Problem": "jaxstyle.engine.problem",
    "Masks": "jaxstyle.losses.masks",
    "Metrics": "jaxstyle.losses.metrics",
    "Network": "jaxstyle.nn.network",
    "Numbers": "jaxstyle.config.numbers",
    "Optimizer": "jaxstyle.optim.base",
    "Plan": "jaxstyle.engine.planning",
    "Recipe": "jaxstyle.config.recipe",
    "Result": "jaxstyle.engine.results",
    "Targets": "jaxstyle.losses.targets",
    "Terms": "jaxstyle.losses.objective",
    "compute_targets": "jaxstyle.engine.compute_targets",
    "content_loss": "jaxstyle.losses.content",
    "evaluate": "jaxstyle.api",
    "features": "jaxstyle.nn.vgg",
    "finish": "jaxstyle.engine.results",
    "gram_matrix": "jaxstyle.losses.gram",
    "iterates": "jaxstyle.engine.loop",
    "lbfgs": "jaxstyle.optim.lbfgs",
    "load_network": "jaxstyle.weights",
    "make_objective": "jaxstyle.losses.objective",
    "measure": "jaxstyle.api",
    "make_optimizer": "jaxstyle.optim.registry",
    "plan": "jaxstyle.engine.planning",
    "prepare": "jaxstyle.engine.preparation",
    "presets": "jaxstyle.config.presets",
    "style_loss": "jaxstyle.losses.gram",
    "stylize": "jaxstyle.api",
    "stylize_batch": "jaxstyle.api",
    "texture": "jaxstyle.api",
    "total_variation": "jaxstyle.losses.total_variation",
}
_SUBMODULES = ("images", "notebook", "weights")

__all__ = [*_EXPORTS, *_SUBMODULES]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name == "__version__":
        # Imports much, which a command that is interrupted as it starts need not wait for.
        from importlib.metadata import version

        return version("jaxstyle")
    if name in _SUBMODULES:
        return import_module(f"jaxstyle.{name}")
    if name not in _EXPORTS:
        raise AttributeError(f"module 'jaxstyle' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_EXPORTS[name]), name)
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
