"""The recipes that the protocol compares."""

import dataclasses

import jaxstyle
from jaxstyle import Recipe

_BEFORE = Recipe(
    style_loss="gram",
    scales=1,
    steps=300,
    variation="absolute",
    tv_weight=1e-6,
    content_weight=1.0,
    style_weight=1e4,
)

RECIPES: dict[str, Recipe] = {
    "default": jaxstyle.presets["default"],
    "before": _BEFORE,
    "gram": Recipe(style_loss="gram"),
    "one-resolution": Recipe(pyramid=1, content_weight=5.0),
    "one-scale": Recipe(pyramid=1, scales=1, steps=300, margin=8),
    "covariance": Recipe(style_loss="covariance"),
    "moments": Recipe(style_loss="moments"),
    "sliced": Recipe(style_loss="sliced-wasserstein"),
    "patches": Recipe(style_loss="patches"),
    "nnst": jaxstyle.presets["nnst"],
    "strotss": jaxstyle.presets["strotss"],
    "crowson": jaxstyle.presets["crowson"],
    "neural-style": jaxstyle.presets["neural-style"],
    "classical": dataclasses.replace(
        jaxstyle.presets["neural-style"],
        content_weight=None,
        style_weight=None,
        tv_weight=0.0,
        steps=500,
    ),
    "crowson-scheme": dataclasses.replace(
        jaxstyle.presets["crowson"], content_weight=None, style_weight=None, tv_weight=0.0
    ),
}
"""By name; `before` is the default of the first version, for networks normalized as ours;
`classical` and `crowson-scheme` are the recipes of neural-style and of style-transfer-pytorch with
the weights of the default, which suit these networks, and without their total variation, whose
weights suit the activations of a whole VGG alone."""
