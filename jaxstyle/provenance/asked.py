"""The settings as the user gave them, before defaults were resolved."""

from collections.abc import Collection, Mapping
from typing import Any

from jaxstyle.config.recipe import Recipe

WEIGHTS = ("strength", "content_weight", "style_weight")
"""Settings of which the network, the losses and the images decide the defaults."""
_SCALES = ("scales", "pyramid", "margin", "history_size")
DECIDES: Mapping[str, Collection[str]] = {
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
"""Settings, by the setting or the input that decides what their defaults are."""


def asked_settings(asked: Recipe, resolved: Recipe) -> dict[str, Any]:
    """Return the given values of the settings that resolving changed, for JSON.

    Example:
      >>> asked_settings(Recipe(), Recipe(style_weight=100.0))
      {'style_weight': None}
    """
    came_to = resolved.as_dict()
    return {name: value for name, value in asked.as_dict().items() if value != came_to[name]}


def release(
    recipe: Recipe, asked: Mapping[str, Any], changed: Collection[str]
) -> tuple[Recipe, dict[str, Any]]:
    """Return a resolved recipe with the settings unset that depend on changed ones.

    Args:
      recipe: resolved.
      asked: of it, from `asked_settings`.
      changed: keys of `DECIDES` that are about to change.

    Returns:
      The recipe, and `asked` of what is still resolved.
    """
    names = {name for key in changed for name in DECIDES.get(key, ())} & asked.keys()
    released = {name: asked[name] for name in names}
    rest = {name: value for name, value in asked.items() if name not in names}
    return Recipe.from_dict(recipe.as_dict() | released), rest
