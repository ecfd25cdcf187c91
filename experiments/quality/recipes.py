"""The recipes that the protocol compares."""

import jaxstyle
from jaxstyle import Recipe

_BEFORE = Recipe(
    scales=1, steps=300, variation="absolute", tv_weight=1e-6, content_weight=1.0, style_weight=1e4
)

RECIPES: dict[str, Recipe] = {
    "default": jaxstyle.presets["default"],
    "before": _BEFORE,
    "one-resolution": Recipe(pyramid=1, content_weight=5.0),
    "one-scale": Recipe(pyramid=1, scales=1, steps=300, margin=8),
    "covariance": Recipe(style_loss="covariance"),
    "moments": Recipe(style_loss="moments"),
    "neural-style": jaxstyle.presets["neural-style"],
}
"""By name; `before` is the default of the first version, for networks normalized as ours."""
