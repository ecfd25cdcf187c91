"""What "the same style" may mean: statistics of a feature map, and distances between them.

A `StyleLoss` is a pair of pure functions on one layer's unbatched feature map
`[h, w, c]` (positions x channels, n = h · w positions, F the matrix):

    statistics(features) -> S, any pytree
    distance(S of the picture, S of the style) -> float32 scalar, at least 0

Where S holds means over positions it may be gathered tile by tile and averaged over several
style pictures; where it holds the positions themselves it may not.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxstyle.losses import gram_matrix, style_loss

EXACT = lax.Precision.HIGHEST


class StyleLoss(NamedTuple):
    """One notion of style."""

    statistics: Callable[[jax.Array], Any]
    distance: Callable[[Any, Any], jax.Array]
    of_means: bool
    """Whether the statistics are means over positions."""


class Moments(NamedTuple):
    """First and second moments of the channels over positions."""

    mean: jax.Array
    """mu, `[c]`."""
    second: jax.Array
    """FᵀF / n, `[c, c]`, or its diagonal `[c]` where no more is needed."""


def moments(features: jax.Array) -> Moments:
    """Give mu and FᵀF / n."""
    return Moments(_mean(features), gram_matrix(features) * features.shape[-1])


def covariance(of: Moments) -> jax.Array:
    """Sigma = FᵀF / n - mu muᵀ, `[c, c]`."""
    return of.second - jnp.outer(of.mean, of.mean)


def covariance_distance(picture: Moments, style: Moments) -> jax.Array:
    """mean((Sigma / c - Sigma_t / c)²): the Gram loss of features whose mean is taken off.

    Blind to the channels' means. Li, Wang, Liu & Hou, Demystifying Neural Style Transfer, 2017
    (arXiv:1701.01036), put both in one family, of maximum mean discrepancies.
    """
    channels = picture.mean.shape[0]
    return style_loss(covariance(picture) / channels, covariance(style) / channels)


def channel_moments(features: jax.Array) -> Moments:
    """Give mu and the mean square of each channel."""
    return Moments(_mean(features), _mean(jnp.square(features)))


def moments_distance(picture: Moments, style: Moments) -> jax.Array:
    """mean over channels of (mu - mu_t)² + (sigma - sigma_t)².

    The "BN statistics" of Li et al., 2017 (arXiv:1701.01036, equation 16).
    """
    deviations = [jnp.sqrt(jnp.maximum(m.second - m.mean**2, 0) + 1e-6) for m in (picture, style)]
    return jnp.mean(
        jnp.square(picture.mean - style.mean) + jnp.square(deviations[0] - deviations[1])
    )


def wasserstein_distance(picture: Moments, style: Moments) -> jax.Array:
    """Squared 2-Wasserstein distance of two normal distributions, over the channels' number.

    (|mu - mu_t|² + tr(Sigma + Sigma_t - 2 (Sigma_t^½ Sigma Sigma_t^½)^½)) / c, with 1e-4 added
    to the diagonals of both; as crowsonkb/style-transfer-pytorch (style_transfer.py:149-180).
    """
    channels = picture.mean.shape[0]
    ridge = 1e-4 * jnp.eye(channels)
    mine, theirs = covariance(picture) + ridge, covariance(style) + ridge
    values, vectors = jnp.linalg.eigh(theirs)
    root = jnp.matmul(vectors * jnp.sqrt(jnp.maximum(values, 1e-4)), vectors.T, precision=EXACT)
    between = jnp.matmul(jnp.matmul(root, mine, precision=EXACT), root, precision=EXACT)
    # Only the eigenvalues are differentiated: their derivative has no differences of
    # eigenvalues in a denominator. No value can be below the product of both ridges.
    overlap = jnp.sqrt(jnp.maximum(jnp.linalg.eigvalsh(between), 1e-8))
    spread = jnp.trace(mine) + jnp.trace(theirs) - 2 * jnp.sum(overlap)
    return (jnp.sum(jnp.square(picture.mean - style.mean)) + spread) / channels


def positions(features: jax.Array) -> jax.Array:
    """Give F, `[n, c]`."""
    return features.reshape(-1, features.shape[-1])


def sliced_wasserstein_distance(picture: jax.Array, style: jax.Array) -> jax.Array:
    """Mean squared difference of sorted projections, over c directions.

    Heitz, Vanhoey, Chambon & Belcour, A Sliced Wasserstein Loss for Neural Texture Synthesis,
    2021 (equation 2). The directions are the same in every step, orthogonal to each other;
    where the numbers of positions differ, the style's quantiles are interpolated.
    """
    count, channels = picture.shape
    normal = jax.random.normal(jax.random.key(channels), (channels, channels))
    directions = jnp.linalg.qr(normal)[0]
    mine, theirs = (
        jnp.sort(jnp.matmul(x, directions, precision=EXACT), axis=0) for x in (picture, style)
    )
    if len(theirs) != count:
        at = (jnp.arange(count) + 0.5) / count * len(theirs) - 0.5
        low = jnp.clip(jnp.floor(at).astype(int), 0, len(theirs) - 1)
        high = jnp.minimum(low + 1, len(theirs) - 1)
        part = jnp.clip(at - low, 0, 1)[:, None]
        theirs = theirs[low] * (1 - part) + theirs[high] * part
    return jnp.mean(jnp.square(mine - theirs))


def patches(features: jax.Array) -> jax.Array:
    """Give every 3x3 patch of a map, `[(h - 2) · (w - 2), 9 · c]`."""
    h, w, c = features.shape
    shifts = [features[i : i + h - 2, j : j + w - 2] for i in range(3) for j in range(3)]
    return jnp.stack(shifts, -2).reshape(-1, 9 * c)


BLOCK = 1024
"""Style patches compared at a time: what bounds the memory."""


def patches_distance(picture: jax.Array, style: jax.Array) -> jax.Array:
    """Mean squared difference of each patch and the style's patch that correlates best with it.

    Li & Wand, Combining Markov Random Fields and Convolutional Neural Networks for Image
    Synthesis, 2016 (equations 2 and 3: the best has the largest normalised
    cross-correlation; it is chosen, not differentiated).
    """
    count, size = style.shape
    blocks = -(-count // BLOCK)
    # Patches of zeros, which fill the last block, correlate with nothing.
    filled = jnp.pad(style, ((0, blocks * BLOCK - count), (0, 0)))
    norms = jnp.sqrt(jnp.sum(jnp.square(filled), 1, keepdims=True))
    unit = (filled / jnp.maximum(norms, 1e-12)).reshape(blocks, BLOCK, size)
    fixed = lax.stop_gradient(picture)

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

    start = (jnp.full(len(picture), -jnp.inf), jnp.zeros(len(picture), int))
    (_, nearest), _ = lax.scan(best_of, start, (jnp.arange(blocks) * BLOCK, unit))
    return jnp.mean(jnp.square(picture - style[jnp.minimum(nearest, count - 1)]))


def _mean(features: jax.Array) -> jax.Array:
    return jnp.mean(features, (0, 1), dtype=jnp.float32)


STYLE_LOSSES: dict[str, StyleLoss] = {
    "gram": StyleLoss(gram_matrix, style_loss, True),
    "covariance": StyleLoss(moments, covariance_distance, True),
    "moments": StyleLoss(channel_moments, moments_distance, True),
    "wasserstein": StyleLoss(moments, wasserstein_distance, True),
    "sliced-wasserstein": StyleLoss(positions, sliced_wasserstein_distance, False),
    "patches": StyleLoss(patches, patches_distance, False),
}
"""By the name that a recipe gives."""
