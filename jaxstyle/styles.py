"""What "the same style" may mean: statistics of a feature map, and distances between them.

A `StyleLoss` is a pair of pure functions on one layer's unbatched feature map
`[h, w, c]` (positions x channels, n = h · w positions, F the matrix):

    statistics(features, weights=None) -> S, any pytree
    distance(S of the picture, S of the style) -> float32 scalar, at least 0

Where S holds means over positions, `weights` `[h, w, 1]` with a mean of 1 say how much each
position counts: those of a region give the region's S. Such an S may be gathered tile by tile and
averaged over several style pictures. Where it holds the positions themselves it needs the whole
picture and blends in a way of its own.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxstyle.errors import JaxstyleError
from jaxstyle.losses import gram_matrix, style_loss

EXACT = lax.Precision.HIGHEST


def weighted_mean(targets: Sequence[Any], shares: Sequence[float]) -> Any:
    """Blend statistics that are means over positions."""
    if len(targets) == 1:
        # Its share is 1: nothing to compile, for every shape of a layer, at the start of a run.
        return targets[0]
    return jax.tree.map(
        lambda *leaves: sum(share * leaf for share, leaf in zip(shares, leaves, strict=True)),
        *targets,
    )


class StyleLoss(NamedTuple):
    """One notion of style."""

    statistics: Callable[..., Any]
    distance: Callable[[Any, Any], jax.Array]
    of_means: bool = True
    """Whether the statistics are means over positions."""
    blend: Callable[[Sequence[Any], Sequence[float]], Any] = weighted_mean
    """`(statistics of several styles, their shares, which sum to 1) -> statistics`."""


class Moments(NamedTuple):
    """First and second moments of the channels over positions."""

    mean: jax.Array
    """mu, `[c]`."""
    second: jax.Array
    """FᵀF / n, `[c, c]`, or its diagonal `[c]` where no more is needed."""


def moments(features: jax.Array, *, weights: jax.Array | None = None) -> Moments:
    """Give mu and FᵀF / n."""
    second = gram_matrix(features, weights=weights) * features.shape[-1]
    return Moments(_mean(features, weights), second)


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


def channel_moments(features: jax.Array, *, weights: jax.Array | None = None) -> Moments:
    """Give mu and the mean square of each channel."""
    return Moments(_mean(features, weights), _mean(jnp.square(features), weights))


def moments_distance(picture: Moments, style: Moments) -> jax.Array:
    """mean over channels of (mu - mu_t)² + (sigma - sigma_t)².

    The "BN statistics" of Li et al., 2017 (arXiv:1701.01036, equation 16).
    """
    deviations = [jnp.sqrt(jnp.maximum(m.second - m.mean**2, 0) + 1e-6) for m in (picture, style)]
    return jnp.mean(
        jnp.square(picture.mean - style.mean) + jnp.square(deviations[0] - deviations[1])
    )


RIDGE = 1e-4
"""Added to variances before the square root of their matrix is taken."""


def wasserstein_distance(picture: Moments, style: Moments) -> jax.Array:
    """Squared 2-Wasserstein distance of two normal distributions, over the channels' number.

    (|mu - mu_t|² + tr(Sigma + Sigma_t - 2 (Sigma_t^½ Sigma Sigma_t^½)^½)) / c, with 1e-4 added
    to the diagonals of both (Olkin & Pukelsheim, 1982, The distance between two random vectors
    with given dispersion matrices); as crowsonkb/style-transfer-pytorch
    (style_transfer.py:149-180).
    """
    ridge = RIDGE * jnp.eye(picture.mean.shape[0])
    mine, theirs = covariance(picture) + ridge, covariance(style) + ridge
    spread = jnp.trace(mine) + jnp.trace(theirs) - 2 * root_trace(mine, theirs)
    distance = jnp.sum(jnp.square(picture.mean - style.mean)) + spread
    return distance / picture.mean.shape[0]


@jax.custom_vjp
def root_trace(a: jax.Array, b: jax.Array) -> jax.Array:
    """Trace of (b^½ a b^½)^½ of two covariance matrices.

    It is the sum of the singular values of b^½ a^½. Float32 holds these better than
    the eigenvalues of b^½ a b^½, which are their squares: its derivative, ½ b^½ (b^½ a b^½)^-½ b^½,
    divides by them. There is no derivative by b, which is a target.

    Args:
      a: `[c, c]`, symmetric, eigenvalues of at least `RIDGE` (smaller ones count as that).
      b: likewise.
    """
    return _root_trace(a, b)[0]


def _root_trace(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Give the trace and its derivative by `a`."""
    root = _root(b)
    left, values, _ = jnp.linalg.svd(jnp.matmul(root, _root(a), precision=EXACT))
    spread = jnp.matmul(root, left, precision=EXACT)
    slope = jnp.matmul(spread / jnp.maximum(values, RIDGE), spread.T, precision=EXACT) / 2
    return jnp.sum(values), slope


def _root(matrix: jax.Array) -> jax.Array:
    values, vectors = jnp.linalg.eigh(matrix)
    return jnp.matmul(vectors * jnp.sqrt(jnp.maximum(values, RIDGE)), vectors.T, precision=EXACT)


root_trace.defvjp(_root_trace, lambda slope, cotangent: (cotangent * slope, jnp.zeros_like(slope)))


def sorted_projections(features: jax.Array) -> jax.Array:
    """Project F on c fixed orthogonal directions and sort each projection: `[n, c]`."""
    channels = features.shape[-1]
    normal = jax.random.normal(jax.random.key(channels), (channels, channels), features.dtype)
    directions = jnp.linalg.qr(normal)[0]
    flat = features.reshape(-1, channels)
    return jnp.sort(jnp.matmul(flat, directions, precision=EXACT), axis=0)


def quantiles(ordered: jax.Array, count: int) -> jax.Array:
    """Bring sorted columns `[n, c]` to `[count, c]` by linear interpolation."""
    size = ordered.shape[0]
    if size == count:
        return ordered
    at = jnp.clip((jnp.arange(count) + 0.5) * (size / count) - 0.5, 0, size - 1)
    low = jnp.floor(at).astype(jnp.int32)
    part = (at - low)[:, None]
    return ordered[low] * (1 - part) + ordered[jnp.minimum(low + 1, size - 1)] * part


def sliced_wasserstein_distance(picture: jax.Array, style: jax.Array) -> jax.Array:
    """Mean squared difference of sorted projections, over c directions.

    Heitz, Vanhoey, Chambon & Belcour, A Sliced Wasserstein Loss for Neural Texture Synthesis,
    2021 (equation 2). The directions are the same in every step, so that the objective is one
    function; where the numbers of positions differ, the style's quantiles are interpolated.
    """
    wanted = quantiles(style, picture.shape[0])
    return jnp.mean(jnp.square(picture - wanted), dtype=jnp.float32)


def barycentre(targets: Sequence[jax.Array], shares: Sequence[float]) -> jax.Array:
    """Blend sorted projections: on a line the mean of quantiles is that of distributions."""
    count = max(len(target) for target in targets)
    return weighted_mean([quantiles(target, count) for target in targets], shares)


def all_patches(targets: Sequence[jax.Array], shares: Sequence[float]) -> jax.Array:
    """Put the patches of several pictures together, to choose from them all."""
    if any(share != shares[0] for share in shares):
        raise JaxstyleError(
            f"style_blend: {[float(f'{share:.3g}') for share in shares]} cannot weigh the style "
            "loss 'patches', which takes each patch from one picture; give equal weights"
        )
    return jnp.concatenate(targets)


def patches(features: jax.Array) -> jax.Array:
    """Give every 3x3 patch of a map, `[(h - 2) · (w - 2), 9 · c]`."""
    h, w, c = features.shape
    if min(h, w) < 3:
        raise JaxstyleError(
            f"style_layers: a map of {w}x{h} positions has no 3x3 patches, which the style loss "
            "'patches' compares; use larger pictures or shallower layers"
        )
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


def _mean(features: jax.Array, weights: jax.Array | None) -> jax.Array:
    weighted = features if weights is None else weights * features
    return jnp.mean(weighted, (0, 1), dtype=jnp.float32)


STYLE_LOSSES: dict[str, StyleLoss] = {
    "gram": StyleLoss(gram_matrix, style_loss),
    "covariance": StyleLoss(moments, covariance_distance),
    "moments": StyleLoss(channel_moments, moments_distance),
    "wasserstein": StyleLoss(moments, wasserstein_distance),
    "sliced-wasserstein": StyleLoss(
        sorted_projections, sliced_wasserstein_distance, of_means=False, blend=barycentre
    ),
    "patches": StyleLoss(patches, patches_distance, of_means=False, blend=all_patches),
}
"""By the name that a recipe gives."""
