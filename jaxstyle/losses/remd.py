"""The style loss of STROTSS: relaxed earth mover's distance, moments and palette."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxstyle.losses.base import StyleDefaults, StyleLoss, concatenating_blend
from jaxstyle.losses.columns import average_cells, bounded_columns, spaced_rows, unit
from jaxstyle.losses.nearest import most_similar

MOST_STYLE = 1024
"""Largest number of style positions, as many as the paper samples."""
PALETTE = 0.5
"""Weight of the palette term: 1 / alpha at the largest scale of the paper."""


class RemdStatistics(NamedTuple):
    """The statistics of an image: hypercolumns and colors."""

    columns: jax.Array
    """Hypercolumns `[n, d]`."""
    colors: jax.Array
    """Mean RGB colors of cells, `[k, 3]`."""


def remd_statistics(
    maps: Mapping[str, jax.Array], weights: Mapping[str, float], image: jax.Array
) -> RemdStatistics:
    """Return hypercolumns and mean colors of the cells of an image.

    The paper samples 1024 positions anew in each step. Here the objective is the same function in
    every step: it compares all cells of the image with 1024 evenly spaced ones of the style. Cells
    are larger in large images.

    Args:
      maps: features by layer, `[h, w, c]`.
      weights: a factor for each layer.
      image: RGB `[h, w, 3]`.
    """
    columns = bounded_columns(maps, weights)
    # Cells of the same size, but without the mirrored margin.
    side = max(1, round(image.shape[0] / columns.shape[0]))
    colors = average_cells(image, min(side, *image.shape[:2]))
    return RemdStatistics(columns.reshape(-1, columns.shape[-1]), colors.reshape(-1, 3))


class RemdTarget(NamedTuple):
    """The target of the style, computed once per run."""

    columns: jax.Array
    """Hypercolumns as unit vectors, `[m, d]`."""
    mean: jax.Array
    """Mean of the hypercolumns before normalization, `[d]`."""
    covariance: jax.Array
    """Covariance matrix of the hypercolumns before normalization, `[d, d]`."""
    colors: jax.Array
    """Mean RGB colors of cells, `[k, 3]`."""


def remd_target(style: RemdStatistics) -> RemdTarget:
    """Return the target of `remd_distance` for the statistics of a style."""
    columns = spaced_rows(unit(style.columns), MOST_STYLE)
    return RemdTarget(columns, *_moments(style.columns), style.colors)


def remd_distance(image: RemdStatistics, style: RemdTarget) -> jax.Array:
    """Compute the relaxed earth mover's distance, plus moment matching, plus 0.5 times a palette
    term.

    Kolkin, Salavon & Shakhnarovich, Style Transfer by Relaxed Optimal Transport and
    Self-Similarity, 2019 (arXiv:1904.12785, equations 3 to 7). The distance of hypercolumns is 1 -
    cosine. The palette term is the relaxed earth mover's distance of colors under the Euclidean
    distance, which is invariant to orthonormal changes of the color space.
    """
    features = _relaxed_earth_mover(unit(image.columns), style.columns, _cosine)
    palette = _relaxed_earth_mover(*_extended(image.colors, style.colors), _euclidean)
    mean, covariance = _moments(image.columns)
    # Divided by d and by d², as in the paper.
    moments = jnp.mean(jnp.abs(mean - style.mean))
    moments += jnp.mean(jnp.abs(covariance - style.covariance))
    return features + moments + PALETTE * palette


def _moments(columns: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return mean `[d]` and covariance `[d, d]` of vectors `[n, d]`."""
    mean = jnp.mean(columns, 0, keepdims=True)
    centered = columns - mean
    return mean[0], jnp.matmul(centered.T, centered, precision="highest") / len(columns)


def _relaxed_earth_mover(
    image: jax.Array, style: jax.Array, distance: Callable[[jax.Array, jax.Array], jax.Array]
) -> jax.Array:
    """Compute max(mean over i of min over j, mean over j of min over i) of pairwise distances.

    Args:
      image: `[n, d]`; products with `style` decrease as the distance grows.
      style: `[m, d]`.
      distance: differentiable distance of pairs, `([k, d], [k, d]) -> [k]`.
    """
    of_image, of_style = most_similar(image, style)
    return jnp.maximum(
        jnp.mean(distance(image, style[of_image])), jnp.mean(distance(image[of_style], style))
    )


def _cosine(a: jax.Array, b: jax.Array) -> jax.Array:
    return 1 - jnp.sum(a * b, -1)


def _extended(image: jax.Array, style: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Append two coordinates to colors `[n, 3]` and `[m, 3]`, for `_relaxed_earth_mover`.

    Colors a of the image become (a, 1, -|a|² / 2), colors b of the style (b, -|b|² / 2, 1): the
    product of the two is -|a - b|² / 2, which is largest for the nearest colors.
    """

    def negative_half_square(colors: jax.Array) -> jax.Array:
        return -jnp.sum(jnp.square(colors), -1, keepdims=True) / 2

    of_image, of_style = negative_half_square(image), negative_half_square(style)
    return (
        jnp.concatenate([image, jnp.ones_like(of_image), of_image], -1),
        jnp.concatenate([style, of_style, jnp.ones_like(of_style)], -1),
    )


def _euclidean(a: jax.Array, b: jax.Array) -> jax.Array:
    """Compute the distances of pairs of colors from `_extended`."""
    # The root has no derivative at 0.
    return jnp.sqrt(jnp.sum(jnp.square(a[:, :3] - b[:, :3]), -1) + 1e-8)


_NAMES = ("1_1", "1_2", "2_1", "2_2", "3_1", "3_2", "3_3", "4_3", "5_1")
LAYERS = tuple((f"relu{name}", 1.0) for name in _NAMES)
REMD = StyleLoss(
    remd_statistics,
    remd_distance,
    normalized=StyleDefaults(10.0, LAYERS),
    unnormalized=StyleDefaults(10.0, LAYERS),
    is_mean_over_positions=False,
    blend=concatenating_blend("remd"),
    target=remd_target,
    is_joint=True,
)
