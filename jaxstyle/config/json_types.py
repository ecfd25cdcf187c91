"""The types of settings in JSON."""

import typing
from typing import Any

LAYER_SETTINGS = ("content_layers", "style_layers")
"""Settings that are layers with weights, in JSON an object."""


def json_types(name: str, hint: Any) -> tuple[set[type], str]:
    """Return the types of a setting's JSON values and their description in error messages.

    Args:
      name: name of the setting.
      hint: annotation of the setting in `Recipe`.
    """
    kinds = set(typing.get_args(hint)) or {hint}
    optional = kinds & {type(None)}
    if name in LAYER_SETTINGS:
        return optional | {str, dict}, "a text"
    if name == "style_blend":
        return optional | {str, list}, "a text"
    if name == "mask":
        return {list}, "a list of pairs"
    if float in kinds:
        return kinds | {int}, "a number"
    if bool in kinds:
        return kinds, "true or false"
    return kinds, "a whole number" if int in kinds else "a text"
