"""Metrics of the quality of a stylized image, from features and pixels.

They do not depend on the objective. `docs/metrics.md` has formulas and sources. Some metrics are
best for the photograph or the painting itself, so they are compared with those of both.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxstyle.errors import JaxstyleError
from jaxstyle.images.color_transfer import luminance
from jaxstyle.losses.columns import average_to, sample_positions, unit
from jaxstyle.losses.gram import gram_matrix
from jaxstyle.losses.nearest import most_similar
from jaxstyle.losses.patches import patches
from jaxstyle.nn.network import Network
from jaxstyle.nn.vgg import features

PATCH_LAYERS = ("relu3_1", "relu4_1")
STRUCTURE_LAYER = "relu3_1"
MOST_PATCHES = 4096
BINS = 32
SSIM_WINDOW = 11


class Metrics(NamedTuple):
    """The metrics of one image, floats."""

    content_fidelity: float
    """Cosine of the features and those of the content image, -1 to 1; higher for more content."""
    global_effects: float
    """Mean of `colors` and `textures`, 0 to 1; higher for more style."""
    local_patterns: float
    """Mean of `nearest` and `variety`, 0 to 1; higher for more style."""
    cfsd: float
    """Divergence of the self-similarity from that of the content image, ≥ 0; lower for more
    content."""
    ssim: float
    """Structural similarity of the luminance and that of the content image, -1 to 1."""
    colors: float
    """Cosine of the color histograms and those of the style."""
    textures: float
    """Cosine of the Gram matrices and those of the style."""
    nearest: float
    """Mean cosine of the 3x3 patches of features and the nearest patches of the style."""
    variety: float
    """Fraction of the style's patches that are nearest to a patch of the image, divided by the same
    fraction for the style itself."""


def compute_metrics(
    network: Network,
    image: jax.Array,
    content: jax.Array,
    styles: Sequence[jax.Array],
    *,
    content_layers: Sequence[str] = ("relu4_2",),
) -> Metrics:
    """Compute the metrics of an image.

    Args:
      network: weights; layers that it lacks are left out.
      image: RGB `[h, w, 3]` in [0, 1], with sides of at least 32 pixels.
      content: RGB `[h, w, 3]` in [0, 1], of the same size.
      styles: RGB `[h', w', 3]` in [0, 1], of any size, with sides of at least 32 pixels.
      content_layers: layers of `content_fidelity`.

    Raises:
      JaxstyleError: an image or a style image is too small.
    """
    least = min(side for x in (image, *styles) for side in x.shape[:2])
    if least < 32:
        raise JaxstyleError(
            f"metrics: an image of {least} pixels on a side is too small; give at least 32"
        )
    available = [name.replace("conv", "relu") for name in network.layers]
    blocks = [layer for layer in available if layer.endswith("_1")]
    structure = STRUCTURE_LAYER if STRUCTURE_LAYER in available else blocks[-1]
    local = [layer for layer in PATCH_LAYERS if layer in available] or blocks[-1:]
    layers = tuple(dict.fromkeys((*content_layers, *blocks, structure, *local)))
    of_image, of_content = (_features(network, x, layers) for x in (image, content))
    of_styles = [_features(network, style, layers) for style in styles]
    colors = _cosine(_histograms(image), sum(map(_histograms, styles)))
    textures = [
        _cosine(gram_matrix(of_image[l]), sum(gram_matrix(f[l]) for f in of_styles)) for l in blocks
    ]
    patterns = [_local_patterns(of_image[l], [f[l] for f in of_styles]) for l in local]
    nearest, variety = (sum(values) / len(values) for values in zip(*patterns, strict=True))
    parts = (float(colors), float(sum(textures) / len(textures)), float(nearest), float(variety))
    fidelity = [_cosine(of_image[l], of_content[l]) for l in content_layers]
    return Metrics(
        float(sum(fidelity) / len(fidelity)), (parts[0] + parts[1]) / 2, (parts[2] + parts[3]) / 2,
        float(_structure_divergence(of_image[structure], of_content[structure])),
        float(_ssim(luminance(image), luminance(content))), *parts,
    )  # fmt: skip


@jax.jit
def _cosine(a: jax.Array, b: jax.Array) -> jax.Array:
    """Compute the cosine of two arrays as vectors."""
    return jnp.sum(unit(a.reshape(-1)) * unit(b.reshape(-1)))


_features = jax.jit(features, static_argnames=("layers", "pooling"))


@jax.jit
def _histograms(image: jax.Array) -> jax.Array:
    """Compute the normalized histogram of each channel, `[3, 32]`."""
    bins = jnp.clip(jnp.floor(image * BINS), 0, BINS - 1).reshape(-1, 3)
    return jnp.mean(bins[..., None] == jnp.arange(BINS)[None, None], 0)


@jax.jit
def _local_patterns(act: jax.Array, styles: Sequence[jax.Array]) -> tuple[jax.Array, jax.Array]:
    """Compute `Metrics.nearest` and `Metrics.variety` at one layer."""

    def unit_patches(act: jax.Array) -> jax.Array:
        cells = patches(act).reshape(act.shape[0] - 2, act.shape[1] - 2, -1)
        return unit(sample_positions(cells, MOST_PATCHES))

    image, style = unit_patches(act), jnp.concatenate([unit_patches(style) for style in styles])
    index, _ = most_similar(image, style)
    own_index, _ = most_similar(style, style)
    used, possible = (
        jnp.zeros(len(style), bool).at[places].set(True).sum() for places in (index, own_index)
    )
    return jnp.mean(jnp.sum(image * style[index], -1)), used / possible


@jax.jit
def _structure_divergence(act: jax.Array, original: jax.Array) -> jax.Array:
    """Compute the mean over positions of KL(original ‖ image) of softmaxed self-similarities."""

    def logs(act: jax.Array) -> jax.Array:
        flat = average_to(act, MOST_PATCHES).reshape(-1, act.shape[-1])
        flat = flat * jax.lax.rsqrt(jnp.mean(jnp.square(flat)) + 1e-12)
        products = jnp.matmul(flat, flat.T, precision="highest") / jnp.sqrt(float(flat.shape[-1]))
        return jax.nn.log_softmax(products, -1)

    log_p, log_q = logs(original), logs(act)
    return jnp.mean(jnp.sum(jnp.exp(log_p) * (log_p - log_q), -1))


@jax.jit
def _ssim(image: jax.Array, content: jax.Array) -> jax.Array:
    """Compute the mean structural similarity of two gray images `[h, w]` in [0, 1]."""
    at = jnp.arange(SSIM_WINDOW) - SSIM_WINDOW // 2
    window = jnp.exp(-jnp.square(at) / (2 * 1.5**2))
    window /= jnp.sum(window)

    def local_mean(x: jax.Array) -> jax.Array:
        for axis in (0, 1):
            count = x.shape[axis] - SSIM_WINDOW + 1
            parts = (
                share * jax.lax.slice_in_dim(x, k, k + count, axis=axis)
                for k, share in enumerate(window)
            )
            x = sum(parts, jnp.zeros(()))
        return x

    mean, mean_c = local_mean(image), local_mean(content)
    variance, variance_c, covariance = (
        local_mean(a * b) - m * n
        for a, b, m, n in (
            (image, image, mean, mean),
            (content, content, mean_c, mean_c),
            (image, content, mean, mean_c),
        )
    )
    c1, c2 = 0.01**2, 0.03**2
    return jnp.mean(
        (2 * mean * mean_c + c1)
        * (2 * covariance + c2)
        / ((mean**2 + mean_c**2 + c1) * (variance + variance_c + c2))
    )
