"""The traced numbers of a recipe: arguments of the compiled programs."""

import dataclasses
from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.typing import ArrayLike

from jaxstyle.config.json_types import LAYER_SETTINGS
from jaxstyle.config.recipe import Recipe

# Makes a recipe a valid, static argument of jitted functions.
jax.tree_util.register_static(Recipe)


class Numbers(NamedTuple):
    """The numbers of a resolved recipe that scale the objective or the steps, scalars.

    Programs that take them as arguments are compiled once for all values, and can be vmapped over
    them.
    """

    content_weight: ArrayLike
    """Weight of the content term, at least 0."""
    style_weight: ArrayLike
    """Weight of the style term, at least 0."""
    tv_weight: ArrayLike
    """Weight of the total variation, at least 0."""
    content_layers: dict[str, ArrayLike]
    """Weights of the content layers, by layer."""
    style_layers: dict[str, ArrayLike]
    """Weights of the style layers, by layer."""
    steps: ArrayLike
    """Number of steps of one scale, for schedules of the learning rate."""
    learning_rate: ArrayLike | None
    """Step size of first-order methods, in units of the image (0 to 1); None for L-BFGS."""
    decay: ArrayLike
    """Fraction of the learning rate at the end of a schedule, above 0 and at most 1."""
    momentum: ArrayLike
    """Momentum of the optimizer `momentum`, 0 to 1."""
    adam_b2: ArrayLike
    """Decay of the second moment of Adam, 0 to 1."""
    average: ArrayLike | None
    """Decay of the moving average of the images, below 1; None for the best image."""

    @classmethod
    def of(cls, recipe: Recipe) -> "Numbers":
        """Return the numbers of a recipe; unresolved settings stay None."""
        numbers: dict[str, Any] = {name: getattr(recipe, name) for name in cls._fields}
        for name in LAYER_SETTINGS:
            numbers[name] = dict(numbers[name] or ())
        return cls(**numbers)

    @classmethod
    def stack(cls, recipes: Sequence[Recipe]) -> "Numbers":
        """Return the numbers of k recipes on the host, each as an array `[k]`."""
        return jax.tree.map(_stacked, *map(cls.of, recipes))


def _stacked(*numbers: float) -> np.ndarray:
    return np.asarray(numbers, np.int32 if isinstance(numbers[0], int) else np.float32)


HOST_SETTINGS = frozenset(
    {
        "strength", "init", "noise_std", "noise_blend", "seed", "size", "upscale", "style_blend",
        "style_scale", "scale_content", "content_mask", "mask",
    }
)  # fmt: skip
"""Settings that are used before compiled programs run, to prepare images, targets and numbers."""


def static_part(recipe: Recipe) -> Recipe:
    """Return the part of a recipe that determines its compiled programs.

    It has the recipe's values of the settings that programs depend on, and the default values of
    `HOST_SETTINGS` and of `Numbers`. Layers keep their names and get weights of 1. Recipes with
    equal static parts share their programs.
    """
    reset = {*HOST_SETTINGS, *Numbers._fields}
    if recipe.preserve_color != "luminance":
        # The other values change the style images only.
        reset.add("preserve_color")
    changes: dict[str, Any] = {
        field.name: field.default for field in dataclasses.fields(Recipe) if field.name in reset
    }
    for name in LAYER_SETTINGS:
        changes[name] = tuple((layer, 1.0) for layer, _ in getattr(recipe, name))
    return dataclasses.replace(recipe, **changes)


def program_key(recipe: Recipe) -> Hashable:
    """Return a key that is equal for resolved recipes whose runs can be one batch."""
    return recipe.steps, static_part(recipe), jax.tree.structure(Numbers.of(recipe))
