"""The table of content losses by the name that recipes use."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax

from jaxstyle.config.content_terms import split_content_losses
from jaxstyle.losses.laplacian import laplacian_distance, pooled_laplacian
from jaxstyle.losses.self_similarity import self_similarity, self_similarity_distance


class ContentLoss(NamedTuple):
    """A description of an image and the distance between two of them."""

    describe: Callable[[Mapping[str, jax.Array], Mapping[str, float], jax.Array], jax.Array]
    """`(features by layer [h, w, c], weights of the layers, RGB image [h, w, 3]) -> array`."""
    distance: Callable[[jax.Array, jax.Array], jax.Array]
    """`(of the image, of the content image) -> float32 scalar, ≥ 0`."""
    weight: float
    """Weight where the recipe gives none: about as much of a photograph is kept as by
    `features`."""
    needs_network: bool
    """Whether features are used."""


STRUCTURE_LOSSES: dict[str, ContentLoss] = {
    "self-similarity": ContentLoss(self_similarity, self_similarity_distance, 10.0, True),
    "laplacian": ContentLoss(pooled_laplacian, laplacian_distance, 1000.0, False),
}
"""Content losses but `features`, which compares layer by layer (`content.content_loss`)."""


def content_loss_weights(content_loss: str) -> dict[str, float]:
    """Return the weight of each content loss in the value of `Recipe.content_loss`.

    Example:
      >>> content_loss_weights("features:2,laplacian")
      {'features': 2.0, 'laplacian': 1000.0}
    """

    def usual(name: str) -> float:
        return STRUCTURE_LOSSES[name].weight if name in STRUCTURE_LOSSES else 1.0

    return {
        name: usual(name) if weight is None else weight
        for name, weight in split_content_losses(content_loss).items()
    }
