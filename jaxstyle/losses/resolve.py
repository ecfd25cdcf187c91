"""Defaults of a recipe that depend on the network, the style loss or the optimizer."""

import dataclasses
from typing import Any

from jaxstyle.config.defaults import (
    DEFAULT_LEARNING_RATES,
    TERM_DEFAULTS,
    default_history_size,
    style_factor,
)
from jaxstyle.config.layers import LayerWeights, check_layers
from jaxstyle.config.recipe import Recipe
from jaxstyle.errors import JaxstyleError, shortened
from jaxstyle.losses.style_losses import STYLE_LOSSES
from jaxstyle.nn.network import Network


def resolve_recipe(recipe: Recipe, network: Network) -> Recipe:
    """Return the recipe with its defaults for a network, a style loss and an optimizer filled in.

    Weights, learning rate and history size of None become these defaults; the layer `all` becomes
    the ReLU of every convolution of the network.

    Raises:
      JaxstyleError: the network lacks a layer, all weights are 0, or an argument has another type.
    """
    if not isinstance(recipe, Recipe):
        raise JaxstyleError(
            f"recipe: {shortened(recipe)} is not a Recipe; give one, as jaxstyle.presets['default']"
        )
    if not hasattr(network, "params"):
        raise JaxstyleError(
            f"network: {shortened(network)} is not a network; load one with jaxstyle.load_network"
        )
    changes = {
        name: value
        for name, value in _term_defaults(recipe, network).items()
        if getattr(recipe, name) is None
    }
    if recipe.strength is not None:
        changes["style_weight"] *= style_factor(recipe.strength)
        changes["strength"] = None
    for name in ("content_layers", "style_layers"):
        layers = changes.get(name, getattr(recipe, name))
        changes[name] = _expand_all(layers, network)
        check_layers(network, [layer for layer, _ in changes[name]], argument=name)
    if recipe.learning_rate is None:
        changes["learning_rate"] = DEFAULT_LEARNING_RATES.get(recipe.optimizer)
    if recipe.history_size is None:
        changes["history_size"] = default_history_size(network)
    resolved = dataclasses.replace(recipe, **changes)
    if not (resolved.content_weight or resolved.style_weight or resolved.tv_weight):
        raise JaxstyleError(
            "content_weight, style_weight and tv_weight are all 0, so that there is nothing to "
            "optimize; give one of them"
        )
    return resolved


def _term_defaults(recipe: Recipe, network: Network) -> dict[str, Any]:
    """Return the default weights and style layers of a recipe with a network."""
    style_loss = STYLE_LOSSES[recipe.style_loss]
    style = style_loss.normalized if network.normalized else style_loss.unnormalized
    defaults = TERM_DEFAULTS[network.normalized]._asdict()
    if recipe.variation != "mean-squared":
        defaults["tv_weight"] = 0.0
    return {**defaults, "style_weight": style.weight, "style_layers": style.layers}


def _expand_all(layers: LayerWeights, network: Network) -> LayerWeights:
    """Return layers with `all` replaced by the ReLU of every convolution of a network.

    A layer that is named beside `all`, before or after it, keeps its own weight.
    """
    expanded: dict[str, float] = {}
    for layer, weight in layers:
        if layer != "all":
            expanded[layer] = weight
            continue
        for convolution in network.layers:
            expanded.setdefault(convolution.replace("conv", "relu"), weight)
    return tuple(expanded.items())
