"""Masks: where the content is kept, and which region of the image takes which style.

A mask is a gray image, white in the selected region. Average pooling reduces it to the resolution
of a layer, so that the weight of a position is the mean over its pixels. Receptive fields extend
beyond these pixels: features near the edge of a mask also depend on pixels outside of it.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jax.typing import ArrayLike

from jaxstyle import images
from jaxstyle.config.layers import stride
from jaxstyle.errors import JaxstyleError
from jaxstyle.images.color_transfer import luminance

MIN_POSITIONS = 0.5
"""Least sum of a mask's weights over the positions of a layer."""


class Masks(NamedTuple):
    """The masks of a run: gray `[h, w]` or RGB `[h, w, 3]` in [0, 1], from black to white.

    Each mask has the aspect ratio of its image and is resized to it.
    """

    content: ArrayLike | None = None
    """Weights of the content loss by pixel; 1 everywhere if not given."""
    regions: Sequence[tuple[ArrayLike | None, ArrayLike | None]] = ()
    """For each style image, in order, the region of the output that takes the style and the region
    of the style image that it is taken from; None is the whole image. If empty, all styles are
    blended everywhere."""


def resize_mask(mask: ArrayLike, height: int, width: int, *, argument: str) -> np.ndarray:
    """Return a mask resized to its image, `[height, width]` float32.

    Args:
      mask: gray `[h, w]` or RGB `[h, w, 3]` of floats in [0, 1].
      height: height of the image in pixels.
      width: width of the image in pixels.
      argument: name of the mask in error messages.

    Raises:
      JaxstyleError: not a mask, of another aspect ratio than the image, or black everywhere.
    """
    values = np.asarray(mask)
    if values.ndim == 3 and values.shape[-1] == 3:
        values = np.asarray(luminance(values))
    if values.ndim != 2 or 0 in values.shape or not np.issubdtype(values.dtype, np.floating):
        raise JaxstyleError(
            f"{argument}: an array of shape {values.shape} and type {values.dtype} is not a mask; "
            "give gray [h, w] of floats in [0, 1]"
        )
    if not np.isfinite(values).all() or values.min() < 0 or values.max() > 1:
        raise JaxstyleError(f"{argument}: the mask has values outside [0, 1]; mend them")
    rows, columns = values.shape
    # Within one pixel or one percent, as sizes are rounded.
    if abs(columns * height / rows - width) > max(1, width / 100):
        raise JaxstyleError(
            f"{argument}: a mask of {columns}x{rows} has other proportions than its image of "
            f"{width}x{height}; give one that lies on the image"
        )
    if values.max() == 0:
        raise JaxstyleError(f"{argument}: the mask is black everywhere; white is what counts")
    return images.resize(values[..., None], height, width)[..., 0]


def halve_mask(mask: np.ndarray, level: int) -> np.ndarray:
    """Return a mask `[h, w]` halved `level` times, as `pyramid.halve` halves images."""
    for _ in range(level):
        mask = _halved(mask, round_up=True)
    return mask


def _halved(mask: np.ndarray, *, round_up: bool) -> np.ndarray:
    """Return the mean of each 2x2 cell of a mask, with an odd last row or column or without it."""
    if round_up:
        mask = np.pad(mask, [(0, side % 2) for side in mask.shape], mode="edge")
    rows, columns = (side // 2 for side in mask.shape)
    return mask[: 2 * rows, : 2 * columns].reshape(rows, 2, columns, 2).mean((1, 3))


def downsample_mask(
    mask: np.ndarray, layers: Sequence[str], *, pooling: str, argument: str
) -> dict[str, np.ndarray]:
    """Return a mask `[h, w]` at the resolution of some layers, `{layer: [h', w', 1]}`.

    Args:
      mask: values in [0, 1].
      layers: names such as `"relu4_2"`.
      pooling: pooling of the network; `"max-ceil"` rounds sizes up.
      argument: name of the mask in error messages.

    Raises:
      JaxstyleError: its weights at a layer sum to less than `MIN_POSITIONS`.
    """
    # In NumPy, as the values of masks are checked and cannot be traced.
    at_layers, by_stride = {}, {1: mask}
    for layer in layers:
        while (deepest := max(by_stride)) < stride(layer):
            by_stride[2 * deepest] = _halved(by_stride[deepest], round_up=pooling == "max-ceil")
        at_layers[layer] = by_stride[stride(layer)][..., None]
        if (left := float(at_layers[layer].sum())) < MIN_POSITIONS:
            height, width = at_layers[layer].shape[:2]
            raise JaxstyleError(
                f"{argument}: the mask shrinks to nothing at {layer}, where it covers {left:.2g} "
                f"of {width}x{height} positions; use a larger region or image, or shallower "
                "layers"
            )
    return at_layers
