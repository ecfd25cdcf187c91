"""A style loss on nearest patches, after Li and Wand (2016)."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from jaxstyle.errors import JaxstyleError
from jaxstyle.losses.base import EXACT, StyleDefaults, StyleLoss


def concatenate_patches(targets: Sequence[jax.Array], shares: Sequence[float]) -> jax.Array:
    """Return the patches of several style images as one list, `[n, 9 · c]`.

    Raises:
      JaxstyleError: weights that differ: a nearest patch comes from one image.
    """
    if any(share != shares[0] for share in shares):
        raise JaxstyleError(
            f"style_blend: {[float(f'{share:.3g}') for share in shares]} cannot weigh the style "
            "loss 'patches', which takes each patch from one image; give equal weights"
        )
    return jnp.concatenate(targets)


def patches(features: jax.Array) -> jax.Array:
    """Return every 3x3 patch of a feature map `[h, w, c]`, `[(h - 2) · (w - 2), 9 · c]`.

    Raises:
      JaxstyleError: a map with fewer than 3 rows or columns.
    """
    h, w, c = features.shape
    if min(h, w) < 3:
        raise JaxstyleError(
            f"style_layers: a map of {w}x{h} positions has no 3x3 patches, which the style loss "
            "'patches' compares; use larger images or shallower layers"
        )
    shifts = [features[i : i + h - 2, j : j + w - 2] for i in range(3) for j in range(3)]
    return jnp.stack(shifts, -2).reshape(-1, 9 * c)


BLOCK = 1024
"""Style patches compared at a time, which bounds the memory."""


def patches_distance(image: jax.Array, style: jax.Array) -> jax.Array:
    """Compute the mean squared difference of patches and their nearest style patches.

    Li & Wand, Combining Markov Random Fields and Convolutional Neural Networks for Image
    Synthesis, 2016 (equations 2 and 3: the best has the largest normalized
    cross-correlation; it is chosen, not differentiated).
    """
    count, size = style.shape
    blocks = -(-count // BLOCK)
    # Patches of zeros, which fill the last block, correlate with nothing.
    filled = jnp.pad(style, ((0, blocks * BLOCK - count), (0, 0)))
    norms = jnp.sqrt(jnp.sum(jnp.square(filled), 1, keepdims=True))
    unit = (filled / jnp.maximum(norms, 1e-12)).reshape(blocks, BLOCK, size)
    fixed = lax.stop_gradient(image)

    def best_of(
        best: tuple[jax.Array, jax.Array], block: tuple[jax.Array, jax.Array]
    ) -> tuple[tuple[jax.Array, jax.Array], None]:
        first, some = block
        scores = jnp.matmul(fixed, some.T, precision=EXACT)
        index = jnp.argmax(scores, 1)
        score = jnp.take_along_axis(scores, index[:, None], 1)[:, 0]
        better = score > best[0]
        return (
            jnp.where(better, score, best[0]),
            jnp.where(better, first + index, best[1]),
        ), None

    start = (jnp.full(len(image), -jnp.inf), jnp.zeros(len(image), int))
    (_, nearest), _ = lax.scan(best_of, start, (jnp.arange(blocks) * BLOCK, unit))
    return jnp.mean(jnp.square(image - style[jnp.minimum(nearest, count - 1)]))


LAYERS = (("relu3_1", 1.0), ("relu4_1", 1.0))
PATCHES = StyleLoss(
    patches,
    patches_distance,
    normalized=StyleDefaults(4.0, LAYERS),
    unnormalized=StyleDefaults(1.0, LAYERS),
    is_mean_over_positions=False,
    blend=concatenate_patches,
)
