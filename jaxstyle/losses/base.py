"""The type of a style loss: statistics of a feature map and a distance between them."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxstyle.config.layers import LayerWeights, first_of_blocks
from jaxstyle.errors import JaxstyleError


def weighted_mean(targets: Sequence[Any], shares: Sequence[float]) -> Any:
    """Return the weighted mean of statistics that are means over positions.

    Args:
      targets: the statistics of each style image, pytrees of the same structure.
      shares: the weight of each style image; they sum to 1.
    """
    if len(targets) == 1:
        # Saves a compilation for the shape of each layer.
        return targets[0]
    return jax.tree.map(
        lambda *leaves: sum(share * leaf for share, leaf in zip(shares, leaves, strict=True)),
        *targets,
    )


def concatenating_blend(name: str) -> Callable[[Sequence[Any], Sequence[float]], Any]:
    """Return a `StyleLoss.blend` that concatenates statistics which are lists of vectors.

    The blend raises a `JaxstyleError` for unequal weights, which have no meaning where each vector
    of the image is compared with a single vector of one style image.

    Args:
      name: name of the loss.
    """

    def blend(targets: Sequence[Any], shares: Sequence[float]) -> Any:
        if any(share != shares[0] for share in shares):
            raise JaxstyleError(
                f"style_blend: {[float(f'{share:.3g}') for share in shares]} cannot weigh the "
                f"style loss {name!r}, which takes each vector from one image; give equal weights"
            )
        return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *targets)

    return blend


class StyleDefaults(NamedTuple):
    """Default weight and layers of a style loss."""

    weight: float
    """Default of `Recipe.style_weight`, unless the images determine it (`StyleLoss.balance`)."""
    layers: LayerWeights
    """Default of `Recipe.style_layers`."""


EQUAL_LAYERS = first_of_blocks(1.0, 1.0, 1.0, 1.0, 1.0)
"""The first layer of each block, with equal weights."""


class StyleLoss(NamedTuple):
    """A style loss: statistics of feature maps, and the distance between those of two images."""

    statistics: Callable[..., Any]
    """`(features [h, w, c], weights=[h, w, 1]) -> pytree of arrays`; only losses whose statistics
    are means over positions take `weights`."""
    distance: Callable[[Any, Any], jax.Array]
    """`(statistics of the image, target of the style) -> float32 scalar, ≥ 0`."""
    normalized: StyleDefaults
    """Defaults for networks normalized to a mean activation of 1."""
    unnormalized: StyleDefaults
    """Defaults for other networks; only those of the Gram loss were tried on images."""
    balance: float | None = None
    """Determines the default weight from the images of a run (`losses.balance`); None for losses
    whose scale does not depend on the images, which have the default weight above."""
    is_mean_over_positions: bool = True
    """Whether the statistics are means over positions, which tiles, regions and devices can
    compute in parts."""
    blend: Callable[[Sequence[Any], Sequence[float]], Any] = weighted_mean
    """`(statistics of several styles, their weights, which sum to 1) -> statistics`."""
    target: Callable[[Any], Any] = lambda statistics: statistics
    """`(statistics of the style) -> second argument of distance`, computed once per run."""
    is_joint: bool = False
    """Whether the loss takes the layers together: `statistics` is then a function of `(features by
    layer, weights of the layers, RGB image [h, w, 3])`."""


def mean_over_positions(features: jax.Array, weights: jax.Array | None) -> jax.Array:
    """Return the float32 mean over positions, `[c]`, of features `[h, w, c]`.

    Args:
      features: feature map `[h, w, c]`.
      weights: factors of the positions, `[h, w, 1]`; 1 if not given.
    """
    weighted = features if weights is None else weights * features
    return jnp.mean(weighted, (0, 1), dtype=jnp.float32)
