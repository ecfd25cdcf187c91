"""Color transfer: luminance and chroma, and matching the colors of one image to another.

Images are RGB `[h, w, 3]`, sRGB values in [0, 1] as in files. All functions are pure.

Reference:
  Gatys, Bethge, Hertzmann & Shechtman, Preserving Color in Neural Artistic Style Transfer, 2016
  (arXiv:1606.05897): section 3 (matching the style's colors, by Cholesky factors or histograms),
  section 4 (style transfer of the luminance alone).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in the luminance Y of YIQ (Rec. 601); they sum to 1."""


def luminance(image: Any) -> Any:
    """Compute the luminance Y of YIQ, `[h, w]`, from RGB `[h, w, 3]`."""
    red, green, blue = (image[..., k] * share for k, share in enumerate(LUMA))
    return red + green + blue


def gray(image: jax.Array) -> jax.Array:
    """Return the luminance of an image in all three channels, `[h, w, 3]`."""
    return jnp.repeat(luminance(image)[..., None], 3, axis=-1)


def with_chroma(image: jax.Array, content: jax.Array) -> jax.Array:
    """Return an image with its own luminance and the chroma of another.

    Y + k (C - Y_C), with k the largest number up to 1 that gives values in [0, 1]. The luminance is
    preserved, and the saturation is reduced where necessary.

    Args:
      image: RGB `[h, w, 3]`, of which the luminance Y, clipped to [0, 1], is used.
      content: C, RGB `[h, w, 3]`.
    """
    y = jnp.clip(luminance(image), 0, 1)[..., None]
    chroma = content - luminance(content)[..., None]
    room = jnp.where(chroma > 0, 1 - y, y)
    # A channel without chroma does not limit k. Rounding errors count as no chroma, as division
    # treats the smallest floats as 0, but comparison does not.
    is_zero = jnp.abs(chroma) < 1e-7
    k = jnp.where(is_zero, 1, room / jnp.where(is_zero, 1, jnp.abs(chroma)))
    return jnp.clip(y + jnp.minimum(1, jnp.min(k, -1, keepdims=True)) * chroma, 0, 1)


def match_luminance(style: jax.Array, content: jax.Array) -> jax.Array:
    """Return a gray style with the mean and standard deviation of the content's luminance.

    Equation 10: sigma_C / sigma_S (Y_S - mu_S) + mu_C, not clipped.
    """
    of_style, of_content = gray(style), luminance(content)
    deviation = jnp.maximum(jnp.std(of_style), 1e-5)
    ratio = jnp.std(of_content) / deviation
    return (of_style - jnp.mean(of_style)) * ratio + jnp.mean(of_content)


def match_cholesky(style: jax.Array, content: jax.Array) -> jax.Array:
    """Return a style with the mean and covariance of the content's colors, by a linear map.

    Equations 3 to 6: A = L_C L_S^-1, with L the Cholesky factors of the covariance matrices, to
    whose diagonals 1e-5 is added; clipped to [0, 1].
    """

    def statistics(image: jax.Array) -> tuple[jax.Array, jax.Array]:
        mean = jnp.mean(image.reshape(-1, 3), 0)[None, None]
        centered = (image - mean).reshape(-1, 3)
        covariance = jnp.matmul(centered.T, centered, precision="highest") / len(centered)
        return mean, jnp.linalg.cholesky(covariance + 1e-5 * jnp.eye(3))

    (mean_s, factor_s), (mean_c, factor_c) = statistics(style), statistics(content)
    # (L_C L_S^-1)ᵀ = L_S^-ᵀ L_Cᵀ, for rows of colors.
    transposed = solve_triangular(factor_s, factor_c.T, trans=1, lower=True)
    return jnp.clip(jnp.matmul(style - mean_s, transposed, precision="highest") + mean_c, 0, 1)


def match_histogram(style: jax.Array, content: jax.Array) -> jax.Array:
    """Return a style with the histogram of the content in each channel.

    A value is mapped to the content's quantile at the value's mean rank, so that equal values
    remain equal.
    """

    def channel(style: jax.Array, content: jax.Array) -> jax.Array:
        values = style.reshape(-1)
        ordered = jnp.sort(values)
        ranks = sum(jnp.searchsorted(ordered, values, side=s) for s in ("left", "right"))
        quantiles = jnp.sort(content.reshape(-1))
        at = (jnp.arange(quantiles.size) + 0.5) / quantiles.size
        return jnp.interp(ranks / (2 * values.size), at, quantiles).reshape(style.shape)

    return jnp.stack([channel(style[..., k], content[..., k]) for k in range(3)], -1)


MATCHES: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "none": lambda style, content: style,
    "luminance": match_luminance,
    "cholesky": match_cholesky,
    "histogram": match_histogram,
}
"""Color matches `(style, content) -> style`, by the value of `Recipe.preserve_color`."""
