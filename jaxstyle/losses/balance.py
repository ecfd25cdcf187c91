"""The default style weight, from the images of a run.

Style losses grow with a power of the activations: between a photograph and a dark, soft painting
they are a tenth of those between the same photograph and a bright painting with strong contrasts.
With one weight for all paintings the former would hardly change the image. By default the weight is
such that at the content image

    style term = balance · content_weight · Σ_l w_l · mean(P_l²)

with P_l the content features, `balance` a constant of the style loss (`StyleLoss.balance`) and
`content_weight` the default content weight. The right-hand side is the content term of an image
whose features are 0. `LEAST` bounds the weight for styles similar to the content.
"""

from functools import partial

import jax
import jax.numpy as jnp

from jaxstyle.config.defaults import TERM_DEFAULTS, style_factor
from jaxstyle.config.numbers import Numbers, static_part
from jaxstyle.config.recipe import Recipe
from jaxstyle.losses.objective import make_objective
from jaxstyle.losses.style_losses import STYLE_LOSSES
from jaxstyle.losses.targets import Targets
from jaxstyle.nn.network import Network
from jaxstyle.nn.sharding import SpatialSharding

LEAST = 0.25
"""Least style loss at the content image, relative to that at a gray image; it bounds the weight for
styles similar to the content."""
LARGEST = 1e4
"""Largest weight, relative to the default without images. A larger one would mean that the style
loss at both images is nothing but rounding."""


def balance_recipe(
    unresolved: Recipe,
    recipe: Recipe,
    network: Network,
    targets: Targets,
    content: jax.Array,
    *,
    rows: SpatialSharding | None = None,
) -> Recipe:
    """Return a recipe with the default style weight for its images, if it was None.

    Args:
      unresolved: settings before `resolve_recipe`.
      recipe: resolved settings.
      network: weights.
      targets: targets of the recipe.
      content: RGB `[h, w, 3]` in [0, 1], from which the targets were computed.
      rows: sharding of its rows over devices.

    Returns:
      The recipe, whose style weight has four significant digits. The recipe is returned unchanged
      if it compares no content features, if these are 0, or if the style loss is 0, up to
      rounding, for both the content image and a gray image.
    """
    style_loss = STYLE_LOSSES[recipe.style_loss]
    balance = style_loss.balance
    if unresolved.style_weight is not None or balance is None or not recipe.style_layers:
        return recipe
    if not targets.content:
        # As in texture synthesis.
        return recipe
    values = _style_loss_and_content_scale(
        network, targets._replace(coarse=()), Numbers.of(recipe), content,
        recipe=static_part(recipe), rows=rows,
    )  # fmt: skip
    initial, scale = map(float, jax.device_get(values))
    if not (initial > 0 and scale > 0):
        # Images of one color may have features of 0, or equal statistics.
        return recipe
    weight = balance * TERM_DEFAULTS[network.normalized].content_weight * scale / initial
    usual = style_loss.normalized if network.normalized else style_loss.unnormalized
    if weight > LARGEST * usual.weight:
        return recipe
    if unresolved.strength is not None:
        weight *= style_factor(unresolved.strength)
    return recipe.updated({"style_weight": float(f"{weight:.4g}")})


@partial(jax.jit, static_argnames=("recipe", "rows"))
def _style_loss_and_content_scale(
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
    # With targets of 0 the content term is the mean square of the features.
    zeros = targets._replace(content=jax.tree.map(jnp.zeros_like, targets.content))
    objective = make_objective(network, zeros, recipe, numbers=numbers, rows=rows)
    at_content = objective(content)[1]
    at_gray = objective(jnp.full_like(content, 0.5))[1]
    least = LEAST * jnp.asarray(at_gray.style)
    # Not `maximum`, which is no number where the loss of the gray image is none.
    return jnp.fmax(at_content.style, least), jnp.asarray(at_content.content)
