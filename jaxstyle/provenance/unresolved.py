"""The user's settings before defaults were resolved."""

from collections.abc import Collection, Mapping
from typing import Any

from jaxstyle.config.recipe import Recipe

WEIGHTS = ("strength", "content_weight", "style_weight")
"""Settings whose defaults depend on the network, the losses and the images."""
_SCALES = ("scales", "pyramid", "margin", "history_size")
DEPENDENT_DEFAULTS: Mapping[str, Collection[str]] = {
    "weights": (*WEIGHTS, "tv_weight", "content_layers", "style_layers", "history_size"),
    "style_loss": (*WEIGHTS, "style_layers"),
    "strength": WEIGHTS,
    "variation": ("tv_weight",),
    "optimizer": ("learning_rate", "history_size"),
    "content": (*_SCALES, *WEIGHTS),
    "styles": ("pyramid", *WEIGHTS),
    "size": (*_SCALES, *WEIGHTS),
    "upscale": _SCALES,
    "style_scale": ("pyramid",),
    "scale_ratio": ("scales", "pyramid"),
    "scale_side": ("scales",),
    "scales": ("pyramid", "margin"),
}
"""Settings whose defaults depend on a setting or an input, by its name."""


def unresolved_settings(unresolved: Recipe, resolved: Recipe) -> dict[str, Any]:
    """Return the settings that differ between a recipe and its resolved form, as JSON values.

    Args:
      unresolved: the user's settings.
      resolved: the same settings with all defaults filled in.

    Returns:
      `{name: value in unresolved}`.

    Example:
      >>> unresolved_settings(Recipe(), Recipe(style_weight=100.0))
      {'style_weight': None}
    """
    final = resolved.as_dict()
    return {name: value for name, value in unresolved.as_dict().items() if value != final[name]}


def unset_dependent_defaults(
    recipe: Recipe, unresolved: Mapping[str, Any], changed: Collection[str]
) -> tuple[Recipe, dict[str, Any]]:
    """Return a resolved recipe in which the defaults that depend on changed settings are unset.

    Args:
      recipe: resolved settings.
      unresolved: its settings before resolving, from `unresolved_settings`.
      changed: keys of `DEPENDENT_DEFAULTS` that are about to change.

    Returns:
      The recipe, and the unresolved values of the settings that are still resolved.
    """
    dependent = {name for key in changed for name in DEPENDENT_DEFAULTS.get(key, ())}
    names = dependent & unresolved.keys()
    unset = {name: unresolved[name] for name in names}
    rest = {name: value for name, value in unresolved.items() if name not in names}
    return Recipe.from_dict(recipe.as_dict() | unset), rest
