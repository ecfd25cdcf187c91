"""Checks of settings that exclude each other."""

from typing import TYPE_CHECKING

from jaxstyle.config.choices import POSITION_MEAN_LOSSES
from jaxstyle.errors import JaxstyleError

if TYPE_CHECKING:
    from jaxstyle.config.recipe import Recipe


def check_combinations(recipe: "Recipe") -> None:
    """Raise a `JaxstyleError` for settings that exclude each other."""
    for name in ("content_weight", "style_weight"):
        if recipe.strength is not None and getattr(recipe, name) is not None:
            raise JaxstyleError(
                f"strength: {recipe.strength!r} and {name} {getattr(recipe, name)!r} are two ways "
                "to say one thing; give one of them"
            )
    if recipe.content_mask is not None and not recipe.compares_features_only:
        raise JaxstyleError(
            f"content_mask: {recipe.content_mask!r} weighs positions of the content loss "
            f"'features', and content_loss is {recipe.content_loss!r}; use content_loss "
            "'features', or no mask"
        )
    if recipe.style_loss != "gram" and (
        recipe.gram_normalization != "elements" or recipe.style_reduction != "mean"
    ):
        raise JaxstyleError(
            f"style_loss: {recipe.style_loss!r} has no Gram matrix, so gram_normalization "
            f"{recipe.gram_normalization!r} and style_reduction {recipe.style_reduction!r} do not "
            "apply; give style_loss 'gram' too"
        )
    if recipe.tile and not recipe.is_separable:
        raise JaxstyleError(
            f"tile: {recipe.tile} does not work with content_loss {recipe.content_loss!r}, "
            f"style_loss {recipe.style_loss!r} and pooling {recipe.pooling!r}; tiles need losses "
            "of means over positions and a pooling that drops odd rows; use tile 0"
        )
    if recipe.mask and recipe.style_loss not in POSITION_MEAN_LOSSES:
        raise JaxstyleError(
            f"mask: regions do not work with style_loss {recipe.style_loss!r}, which is no mean "
            "over positions; choose another style loss"
        )
    if recipe.mask and recipe.turn_style:
        raise JaxstyleError(
            "turn_style: turned images do not work with masks, whose regions would have to "
            "turn too; use one of them"
        )
    if not recipe.content_layers and recipe.style_layers == ():
        raise JaxstyleError(
            "content_layers and style_layers are both empty; name at least one layer"
        )
