"""The sliced Wasserstein style loss, on sorted projections."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxstyle.losses.base import EQUAL_LAYERS, StyleDefaults, StyleLoss, weighted_mean


def sorted_projections(features: jax.Array) -> jax.Array:
    """Compute the projections of features `[h, w, c]` onto c fixed orthogonal directions, sorted.

    Returns:
      `[h · w, c]`, with a column per direction.
    """
    channels = features.shape[-1]
    normal = jax.random.normal(
        jax.random.key(channels, impl="threefry2x32"), (channels, channels), features.dtype
    )
    directions = jnp.linalg.qr(normal)[0]
    flat = features.reshape(-1, channels)
    return jnp.sort(jnp.matmul(flat, directions, precision="highest"), axis=0)


def quantiles(ordered: jax.Array, count: int) -> jax.Array:
    """Return `[count, c]`, evenly spaced quantiles of sorted columns `[n, c]`, interpolated."""
    size = ordered.shape[0]
    if size == count:
        return ordered
    at = jnp.clip((jnp.arange(count) + 0.5) * (size / count) - 0.5, 0, size - 1)
    low = jnp.floor(at).astype(jnp.int32)
    part = (at - low)[:, None]
    return ordered[low] * (1 - part) + ordered[jnp.minimum(low + 1, size - 1)] * part


def sliced_wasserstein_distance(image: jax.Array, style: jax.Array) -> jax.Array:
    """Compute the mean squared difference of sorted projections over c directions.

    Heitz, Vanhoey, Chambon & Belcour, A Sliced Wasserstein Loss for Neural Texture Synthesis,
    2021 (equation 2). The directions are the same in every step, and so is the objective. If the
    numbers of positions differ, the style's quantiles are interpolated.

    Args:
      image: sorted projections of the image, `[n, c]`.
      style: sorted projections of the style, `[m, c]`.
    """
    target = quantiles(style, image.shape[0])
    return jnp.mean(jnp.square(image - target), dtype=jnp.float32)


def barycenter(targets: Sequence[jax.Array], shares: Sequence[float]) -> jax.Array:
    """Return the Wasserstein barycenter of sorted projections: the mean of their quantiles."""
    count = max(len(target) for target in targets)
    return weighted_mean([quantiles(target, count) for target in targets], shares)


SLICED_WASSERSTEIN = StyleLoss(
    sorted_projections,
    sliced_wasserstein_distance,
    normalized=StyleDefaults(100.0, EQUAL_LAYERS),
    unnormalized=StyleDefaults(1.0, EQUAL_LAYERS),
    balance=50.0,
    is_mean_over_positions=False,
    blend=barycenter,
)
