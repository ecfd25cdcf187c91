"""The table of style losses by the name that recipes use."""

from jaxstyle.losses.base import StyleLoss
from jaxstyle.losses.covariance import covariance_distance
from jaxstyle.losses.gram import gram_matrix, style_loss
from jaxstyle.losses.moments import channel_moments, moments, moments_distance
from jaxstyle.losses.patches import concatenate_patches, patches, patches_distance
from jaxstyle.losses.sliced_wasserstein import (
    barycenter,
    sliced_wasserstein_distance,
    sorted_projections,
)
from jaxstyle.losses.wasserstein import wasserstein_distance

STYLE_LOSSES: dict[str, StyleLoss] = {
    "gram": StyleLoss(gram_matrix, style_loss),
    "covariance": StyleLoss(moments, covariance_distance),
    "moments": StyleLoss(channel_moments, moments_distance),
    "wasserstein": StyleLoss(moments, wasserstein_distance),
    "sliced-wasserstein": StyleLoss(
        sorted_projections,
        sliced_wasserstein_distance,
        is_mean_over_positions=False,
        blend=barycenter,
    ),
    "patches": StyleLoss(
        patches, patches_distance, is_mean_over_positions=False, blend=concatenate_patches
    ),
}
"""Style losses by the value of `Recipe.style_loss`."""
