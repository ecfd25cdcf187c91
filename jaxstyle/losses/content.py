"""Content losses: the mean squared difference of feature maps, and the others by name."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxstyle.config.content_terms import split_content_losses
from jaxstyle.losses.laplacian import laplacian_distance, pooled_laplacian
from jaxstyle.losses.self_similarity import self_similarity, self_similarity_distance


def content_loss(
    features: jax.Array, target: jax.Array, *, weights: jax.Array | None = None
) -> jax.Array:
    """Compute the mean squared difference of two feature maps.

    L = mean over (y, x, c) of (F − P)². Gatys et al. (2016, eq. 1) take half the sum
    instead of the mean.

    Args:
      features: F, `[h, w, c]`, activations of the image.
      target: P, `[h, w, c]`, activations of the content image.
      weights: factors of the squares at each position, `[h, w, 1]`; 1 if not given.

    Returns:
      Float32 scalar, ≥ 0.

    Example:
      >>> import jax.numpy as jnp
      >>> float(content_loss(jnp.full((2, 2, 3), 3.0), jnp.ones((2, 2, 3))))
      4.0
    """
    squares = jnp.square(features - target)
    return jnp.mean(squares if weights is None else weights * squares, dtype=jnp.float32)


class ContentLoss(NamedTuple):
    """A descriptor of an image and the distance between two descriptors."""

    describe: Callable[[Mapping[str, jax.Array], Mapping[str, float], jax.Array], jax.Array]
    """`(features by layer [h, w, c], weights of the layers, RGB image [h, w, 3]) -> array`."""
    distance: Callable[[jax.Array, jax.Array], jax.Array]
    """`(descriptor of the image, of the content image) -> float32 scalar, ≥ 0`."""
    weight: float
    """Default weight. With it the loss preserves about as much of a photograph as `features` with
    its weight of 1 does."""
    needs_network: bool
    """Whether the descriptor depends on features."""


DESCRIPTOR_LOSSES: dict[str, ContentLoss] = {
    "self-similarity": ContentLoss(self_similarity, self_similarity_distance, 10.0, True),
    "laplacian": ContentLoss(pooled_laplacian, laplacian_distance, 1000.0, False),
}
"""Content losses by name, without `features`, which has no descriptor: it compares the features
of each layer (`content_loss`)."""


def content_loss_weights(content_loss: str) -> dict[str, float]:
    """Return the weight of each content loss in the value of `Recipe.content_loss`.

    Example:
      >>> content_loss_weights("features:2,laplacian")
      {'features': 2.0, 'laplacian': 1000.0}
    """

    def default(name: str) -> float:
        return DESCRIPTOR_LOSSES[name].weight if name in DESCRIPTOR_LOSSES else 1.0

    return {
        name: default(name) if weight is None else weight
        for name, weight in split_content_losses(content_loss).items()
    }
