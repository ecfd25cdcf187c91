"""The default style weight, from the images of a run.

Style losses grow with a power of the activations: between a photograph and a dark, soft painting
they are a tenth of those between the same photograph and a bright one with hard contrasts, so that
one weight for all would hardly stylize the first. By default the weight is such that at the content
image

    style term = balance · content_weight · Σ_l w_l · mean(P_l²)

with P_l the content features, `balance` a constant of the style loss (`StyleLoss.balance`), and the
default content weight; the right side is the content term of an image without any features.
For a style much like the content see `LEAST`.
"""

from functools import partial

import jax
import jax.numpy as jnp

from jaxstyle.config.defaults import TERM_DEFAULTS, style_factor
from jaxstyle.config.numbers import Numbers, static_part
from jaxstyle.config.recipe import Recipe
from jaxstyle.losses.objective import Targets, make_objective
from jaxstyle.losses.style_losses import STYLE_LOSSES
from jaxstyle.nn.network import Network
from jaxstyle.nn.sharding import SpatialSharding

LEAST = 0.25
"""Least style loss at the content image, over that at a gray image: a style much like the
content gets no larger weight."""


def balance_recipe(
    asked: Recipe,
    recipe: Recipe,
    network: Network,
    targets: Targets,
    content: jax.Array,
    *,
    rows: SpatialSharding | None = None,
) -> Recipe:
    """Return a recipe with the style weight for its images, if none was asked for.

    Args:
      asked: the settings before they were resolved.
      recipe: resolved.
      network: weights.
      targets: of the recipe.
      content: RGB `[h, w, 3]`, as the targets were computed from.
      rows: how its rows are sharded over devices.

    Returns:
      The recipe; its style weight has four significant digits. As it is where no content features
      are compared or they are 0, or neither the content nor a gray image has any style loss.
    """
    balance = STYLE_LOSSES[recipe.style_loss].balance
    if asked.style_weight is not None or balance is None or not recipe.style_layers:
        return recipe
    if not targets.content:
        # There is nothing to balance the style with, as in textures.
        return recipe
    values = _scales(
        network, targets._replace(coarse=()), Numbers.of(recipe), content,
        recipe=static_part(recipe), rows=rows,
    )  # fmt: skip
    initial, scale = map(float, jax.device_get(values))
    if not (initial > 0 and scale > 0):
        # Images of one color may have no features, or no style that differs.
        return recipe
    weight = balance * TERM_DEFAULTS[network.normalized].content_weight * scale / initial
    if asked.strength is not None:
        weight *= style_factor(asked.strength)
    return recipe.updated({"style_weight": float(f"{weight:.4g}")})


@partial(jax.jit, static_argnames=("recipe", "rows"))
def _scales(
    network: Network,
    targets: Targets,
    numbers: Numbers,
    content: jax.Array,
    *,
    recipe: Recipe,
    rows: SpatialSharding | None,
) -> tuple[jax.Array, jax.Array]:
    """Compute the style loss at the content image and the mean square of the content features."""
    numbers = numbers._replace(content_weight=1.0, style_weight=1.0)
    # Against features of 0 the content term is the mean square.
    nothing = targets._replace(content=jax.tree.map(jnp.zeros_like, targets.content))
    objective = make_objective(network, nothing, recipe, numbers=numbers, rows=rows)
    at_content = objective(content)[1]
    at_gray = objective(jnp.full_like(content, 0.5))[1]
    least = LEAST * jnp.asarray(at_gray.style)
    return jnp.maximum(at_content.style, least), jnp.asarray(at_content.content)
