"""Masks: where the content is kept, and which region of the image takes which style.

A mask is a gray image, white where it counts. Down to a layer it goes as the network's
poolings do, by averages: a position counts as much as the pixels of its cell do on average. What
its receptive field sees beyond the mask's edge bleeds in.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jax.typing import ArrayLike

from jaxstyle import images
from jaxstyle.config.layers import split_layer
from jaxstyle.errors import JaxstyleError
from jaxstyle.images.color_transfer import luminance

MIN_POSITIONS = 0.5
"""Positions that a mask must leave at a layer, in all."""


class Masks(NamedTuple):
    """The masks of a run: gray `[h, w]` or RGB `[h, w, 3]` in [0, 1], black to white.

    Each has the proportions of its image and is resized to it.
    """

    content: ArrayLike | None = None
    """How much each place of the content counts; everywhere alike if not given."""
    regions: Sequence[tuple[ArrayLike | None, ArrayLike | None]] = ()
    """One pair a style, in order: the region of the image that takes the style, and the region
    of the style image that it is taken from; None is the whole. Empty: every style everywhere."""


def resize_mask(mask: ArrayLike, height: int, width: int, *, argument: str) -> np.ndarray:
    """Bring a mask to its image's size, `[height, width]` float32.

    Raises:
      JaxstyleError: not a mask, of other proportions than the image, or black everywhere.
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
    # One pixel or one percent: sizes are rounded.
    if abs(columns * height / rows - width) > max(1, width / 100):
        raise JaxstyleError(
            f"{argument}: a mask of {columns}x{rows} has other proportions than its image of "
            f"{width}x{height}; give one that lies on the image"
        )
    if values.max() == 0:
        raise JaxstyleError(f"{argument}: the mask is black everywhere; white is what counts")
    return images.resize(values[..., None], height, width)[..., 0]


def halve_mask(mask: np.ndarray, level: int) -> np.ndarray:
    """Return a mask `[h, w]` halved `level` times, as `objective.halve` does with images."""
    for _ in range(level):
        mask = np.pad(mask, [(0, side % 2) for side in mask.shape], mode="edge")
        rows, columns = (side // 2 for side in mask.shape)
        mask = mask.reshape(rows, 2, columns, 2).mean((1, 3))
    return mask


def downsample_mask(
    mask: np.ndarray, layers: Sequence[str], *, pooling: str, argument: str
) -> dict[str, np.ndarray]:
    """Average a mask `[h, w]` down to layers: `{layer: [h', w', 1]}`.

    Raises:
      JaxstyleError: it leaves nothing at a layer.
    """
    # In NumPy: targets may be traced, masks are not.
    found, level = {}, {1: np.asarray(mask)[..., None]}
    for layer in layers:
        block = int(split_layer(layer)[0][4])
        for deeper in range(max(level) + 1, block + 1):
            above = level[deeper - 1]
            if pooling == "max-ceil":
                odd = [(0, side % 2) for side in above.shape[:2]]
                above = np.pad(above, (*odd, (0, 0)), mode="edge")
            rows, columns = (side // 2 for side in above.shape[:2])
            cells = above[: 2 * rows, : 2 * columns].reshape(rows, 2, columns, 2, 1)
            level[deeper] = cells.mean((1, 3))
        found[layer] = level[block]
        if (left := float(found[layer].sum())) < MIN_POSITIONS:
            height, width = found[layer].shape[:2]
            raise JaxstyleError(
                f"{argument}: the mask shrinks to nothing at {layer}, where it covers {left:.2g} "
                f"of {width}x{height} positions; use a larger region or image, or shallower "
                "layers"
            )
    return found


def normalize_weights(weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Scale weights of positions to a mean of 1."""
    return {layer: values / values.mean() for layer, values in weights.items()}
