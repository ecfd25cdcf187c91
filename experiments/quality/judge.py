"""Measures of a stylized image by a network that no optimizer used.

The network is the exact VGG-16, conv1_1 to conv3_3 (Simonyan & Zisserman). The embedded networks
were distilled from VGG-19, so that no run minimizes a loss of this network. All images are RGB
`[h, w, 3]`, float, in [0, 1].
"""

from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.ndimage import convolve

import jaxstyle
from jaxstyle import images
from jaxstyle.nn.network import Network
from jaxstyle.nn.preprocessing import CONVENTIONS

FILE = "vgg16_caffe_bgr_conv1_1-conv3_3.npz"
MOST_POSITIONS = 4096
"""Patches of the result that are compared; those of the painting are four times as many."""
UNPAINTED = 0.9
"""Distance from the painting, relative to the photograph's, from which a position counts as
unpainted."""
BAND = 8
"""Width in pixels of the band along the edges that `Measures.fringe` examines."""
LUMA = np.array([0.299, 0.587, 0.114])
# Immerkaer, Fast noise variance estimation, 1996: zero on everything that is locally a parabola.
_FINEST = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], float)


class Measures(NamedTuple):
    """The measures of one stylized image; lower is better."""

    patch: float
    """Mean distance of the result's patches from the painting, divided by that of the photograph's.
    The distance of a 3x3 patch of relu3_1 is 1 - cosine to the most similar one of the painting."""
    worst: float
    """As `patch`, but the mean over the tenth of the result's patches with the largest distances,
    such as unpainted skies; divided by the same mean."""
    content: float
    """Mean over positions of 1 - cosine between relu3_3 of the result and of the photograph, both
    minus the photograph's mean over positions."""
    grain: float
    """Standard deviation of the finest detail of the luminance, on the scale 0-255, minus that of
    the painting; 0 if it is smaller."""
    grain_chroma: float
    """The same for chroma."""
    fringe: float
    """Mean over the `BAND` outermost rings of pixels of |log(detail of the ring / detail inside)|.
    It is 0 without a frame along the edges, which may be flatter or rougher than the inside."""
    unpainted: float
    """Share of positions whose patch is more than `UNPAINTED` times as far from the painting as
    that of the photograph."""


def read_judge(folder: Path) -> Network:
    """Load the exact VGG-16 blocks from the folder that holds `FILE`."""
    with np.load(folder / FILE) as arrays:
        names = sorted({key.split(".")[0] for key in arrays})
        params = {
            name: {
                "kernel": jnp.asarray(arrays[f"{name}.weight"].transpose(2, 3, 1, 0)),
                "bias": jnp.asarray(arrays[f"{name}.bias"]),
            }
            for name in names
        }
    return Network(params, "vgg16", CONVENTIONS["caffe"], name="judge")


@jax.jit
def _features(network: Network, image: jax.Array) -> tuple[jax.Array, jax.Array]:
    maps = jaxstyle.features(network, image, ("relu3_1", "relu3_3"))
    return maps["relu3_1"], maps["relu3_3"]


def _patches(features: np.ndarray, count: int) -> np.ndarray:
    """Return unit 3x3 patches `[n, 9 c]` at every position, or at every second, third ... one."""
    h, w, _ = features.shape
    stride = max(1, int(np.ceil(np.sqrt((h - 2) * (w - 2) / count))))
    views = np.lib.stride_tricks.sliding_window_view(features, (3, 3), (0, 1))[::stride, ::stride]
    flat = views.reshape(-1, 9 * features.shape[-1]).astype(np.float32)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-12)


@jax.jit
def _nearest(patches: jax.Array, style: jax.Array) -> jax.Array:
    return 1 - jnp.max(patches @ style.T, axis=1)


def _distances(features: np.ndarray, style: np.ndarray) -> np.ndarray:
    patches = _patches(features, MOST_POSITIONS)
    nearest = partial(_nearest, style=jnp.asarray(style))
    return np.concatenate(
        [np.asarray(nearest(jnp.asarray(part))) for part in np.array_split(patches, 8)]
    )


def _finest(image: np.ndarray) -> tuple[float, float]:
    """Return the standard deviation of the finest detail of luminance and of chroma, 0-255."""
    luma = image @ LUMA
    chroma = image - luma[..., None]

    def level(channel: np.ndarray) -> float:
        detail = np.abs(convolve(channel, _FINEST, mode="reflect"))[BAND:-BAND, BAND:-BAND]
        return 255 * float(detail.mean()) * np.sqrt(np.pi / 2) / 6

    return level(luma), float(np.mean([level(chroma[..., c]) for c in range(3)]))


def _fringe(image: np.ndarray) -> float:
    """Return how far the detail of the `BAND` outermost rings is from that inside of them."""
    down = np.abs(np.diff(image, axis=0))[:, :-1].sum(-1)
    right = np.abs(np.diff(image, axis=1))[:-1].sum(-1)
    detail = down + right
    h, w = detail.shape
    rows, columns = np.arange(h)[:, None], np.arange(w)
    depth = np.minimum(np.minimum(rows, h - 1 - rows), np.minimum(columns, w - 1 - columns))
    rings = np.array([detail[depth == ring].mean() for ring in range(BAND)])
    inside = detail[(depth >= BAND) & (depth < 5 * BAND)].mean()
    return float(np.abs(np.log(np.maximum(rings, 1e-12) / np.maximum(inside, 1e-12))).mean())


def measure(
    network: Network, image: np.ndarray, content: np.ndarray, style: np.ndarray
) -> Measures:
    """Compute all measures of one image.

    Args:
      network: of `read_judge`.
      image: the result.
      content: the photograph, of any size; it is resized to the result's.
      style: the painting; its longest side is brought to the result's.
    """
    image = np.asarray(image, np.float32)
    content = images.resize(content, *image.shape[:2])
    style = images.fit(style, max(image.shape[:2]), upscale=True)
    (x3, x), (p3, p), (s3, _) = (
        jax.device_get(_features(network, jnp.asarray(i))) for i in (image, content, style)
    )
    of_style = _patches(s3, 4 * MOST_POSITIONS)
    mine, photograph = _distances(x3, of_style), _distances(p3, of_style)
    unit = photograph.mean()
    farthest = np.sort(mine)[-max(1, len(mine) // 10) :]
    mean = p.mean((0, 1))
    x, p = x - mean, p - mean
    norms = np.linalg.norm(x, axis=-1) * np.linalg.norm(p, axis=-1)
    cosines = (x * p).sum(-1) / np.maximum(norms, 1e-12)
    fine, fine_style = _finest(image), _finest(style)
    return Measures(
        patch=float(mine.mean() / unit),
        worst=float(farthest.mean() / unit),
        content=float(1 - cosines.mean()),
        grain=max(0.0, fine[0] - fine_style[0]),
        grain_chroma=max(0.0, fine[1] - fine_style[1]),
        fringe=_fringe(image),
        unpainted=float((mine > UNPAINTED * photograph).mean()),
    )
