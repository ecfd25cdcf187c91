"""Keeping a photograph's colors: luminance and chroma, and colors matched to another image's.

Images are RGB `[h, w, 3]`, sRGB values in [0, 1] as files have them. All functions are pure.

Reference:
  Gatys, Bethge, Hertzmann & Shechtman, Preserving Color in Neural Artistic Style Transfer, 2016
  (arXiv:1606.05897): section 3 (matching the style's colors, by Cholesky factors or histograms),
  section 4 (style transfer of the luminance alone).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.linalg import solve_triangular

LUMA = (0.299, 0.587, 0.114)
"""Shares of red, green and blue in the luminance Y of YIQ (Rec. 601); their sum is 1."""
_EXACT = lax.Precision.HIGHEST


def luminance(image: Any) -> Any:
    """Compute the luminance Y of YIQ, `[h, w]`, from RGB `[h, w, 3]`."""
    red, green, blue = (image[..., k] * share for k, share in enumerate(LUMA))
    return red + green + blue


def gray(image: jax.Array) -> jax.Array:
    """Return the luminance of an image in all three channels, `[h, w, 3]`."""
    return jnp.repeat(luminance(image)[..., None], 3, axis=-1)


def with_chroma(image: jax.Array, content: jax.Array) -> jax.Array:
    """Return an image with its own luminance and the chroma of another.

    Y + k (C - Y_C), with k = 1 where that is a color and else the largest that gives one: the
    luminance stays what it is, the color pales.

    Args:
      image: its luminance Y is used, clipped to [0, 1].
      content: C, of the same shape.
    """
    y = jnp.clip(luminance(image), 0, 1)[..., None]
    chroma = content - luminance(content)[..., None]
    room = jnp.where(chroma > 0, 1 - y, y)
    # Where a channel has no chroma there is room for any. What rounding makes counts as none: the
    # smallest floats are 0 to a division and not to a comparison.
    none = jnp.abs(chroma) < 1e-7
    k = jnp.where(none, 1, room / jnp.where(none, 1, jnp.abs(chroma)))
    return jnp.clip(y + jnp.minimum(1, jnp.min(k, -1, keepdims=True)) * chroma, 0, 1)


def match_luminance(style: jax.Array, content: jax.Array) -> jax.Array:
    """Make a style gray, with the mean and standard deviation of the content's luminance.

    Equation 10: sigma_C / sigma_S (Y_S - mu_S) + mu_C; not clipped.
    """
    mine, theirs = gray(style), luminance(content)
    spread = jnp.maximum(jnp.std(mine), 1e-5)
    return (mine - jnp.mean(mine)) * (jnp.std(theirs) / spread) + jnp.mean(theirs)


def match_cholesky(style: jax.Array, content: jax.Array) -> jax.Array:
    """Transform a style's colors linearly so that mean and covariance are the content's.

    Equations 3 to 6: A = L_C L_S^-1 with L the Cholesky factors of the covariances, of which each
    has 1e-5 added to its diagonal; clipped to [0, 1].
    """

    def of(image: jax.Array) -> tuple[jax.Array, jax.Array]:
        flat = image.reshape(-1, 3)
        mean = jnp.mean(flat, 0)
        centred = flat - mean
        covariance = jnp.matmul(centred.T, centred, precision=_EXACT) / len(flat)
        return mean, jnp.linalg.cholesky(covariance + 1e-5 * jnp.eye(3))

    (mean_s, factor_s), (mean_c, factor_c) = of(style), of(content)
    # (L_C L_S^-1)ᵀ = L_S^-ᵀ L_Cᵀ, for rows of colors.
    transposed = solve_triangular(factor_s, factor_c.T, trans=1, lower=True)
    return jnp.clip(jnp.matmul(style - mean_s, transposed, precision=_EXACT) + mean_c, 0, 1)


def match_histogram(style: jax.Array, content: jax.Array) -> jax.Array:
    """Map each channel of a style so that its histogram is the content's.

    A value goes to the content's quantile at its own mean rank, so equal values stay equal.
    """

    def channel(mine: jax.Array, theirs: jax.Array) -> jax.Array:
        values = mine.reshape(-1)
        ordered = jnp.sort(values)
        ranks = sum(jnp.searchsorted(ordered, values, side=s) for s in ("left", "right"))
        wanted = jnp.sort(theirs.reshape(-1))
        at = (jnp.arange(wanted.size) + 0.5) / wanted.size
        return jnp.interp(ranks / (2 * values.size), at, wanted).reshape(mine.shape)

    return jnp.stack([channel(style[..., k], content[..., k]) for k in range(3)], -1)


MATCHES: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "none": lambda style, content: style,
    "luminance": match_luminance,
    "cholesky": match_cholesky,
    "histogram": match_histogram,
}
"""What becomes of a style `(style, content) -> style`, by the name that a recipe gives."""
