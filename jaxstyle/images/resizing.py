"""Sizes of images by their longest side, and resampling."""

import numpy as np
from PIL import Image

from jaxstyle.errors import JaxstyleError
from jaxstyle.images.array import Array

# Four poolings reduce 16 pixels to 1: block 5 has no position for smaller images.
MIN_SIDE = 16


def fit(
    image: Array, longest_side: int, *, upscale: bool = False, min_side: int = MIN_SIDE
) -> Array:
    """Return an image resized to a longest side, with its aspect ratio preserved.

    Args:
      image: RGB `[h, w, 3]` in [0, 1].
      longest_side: longest side of the result in pixels.
      upscale: whether to enlarge a smaller image, which is otherwise returned unchanged.
      min_side: least shorter side of a resized image in pixels.

    Returns:
      RGB `[h', w', 3]`, float32 in [0, 1]; each side is within half a pixel of the exact one.

    Raises:
      JaxstyleError: the shorter side would be below `min_side`.
    """
    new = fitted(image.shape[0], image.shape[1], longest_side, upscale=upscale, min_side=min_side)
    return image if new == image.shape[:2] else resize(image, *new)


def fitted(
    height: int, width: int, longest_side: int, *, upscale: bool = False, min_side: int = MIN_SIDE
) -> tuple[int, int]:
    """Return the height and width of the result of `fit`.

    Example:
      >>> fitted(300, 600, 200)
      (100, 200)
    """
    scale = longest_side / max(height, width)
    if scale == 1 or (scale > 1 and not upscale):
        return height, width
    new_height, new_width = max(1, round(height * scale)), max(1, round(width * scale))
    if min(new_height, new_width) < min_side:
        enough = -(-min_side * max(height, width) // min(height, width))
        raise JaxstyleError(
            f"size {longest_side} would make the {width}x{height} image "
            f"{new_width}x{new_height}, and both sides need {min_side} pixels; "
            f"choose a size of {enough} or more"
        )
    return new_height, new_width


def resize(image: Array, height: int, width: int, *, clip: bool = True) -> Array:
    """Return an image resampled by a Lanczos filter in float32, antialiased when reduced.

    Args:
      image: RGB `[h, w, 3]` in [0, 1].
      height: height of the result in pixels, at least 1.
      width: width of the result in pixels, at least 1.
      clip: whether to clip the result to [0, 1], as the filter overshoots at edges.

    Returns:
      RGB `[height, width, 3]`, float32.

    Raises:
      ValueError: a side is below 1.
    """
    image = np.asarray(image, np.float32)
    if image.shape[:2] == (height, width):
        return image
    channels = [
        np.asarray(
            Image.fromarray(np.ascontiguousarray(image[..., c])).resize(
                (width, height), Image.Resampling.LANCZOS
            )
        )
        for c in range(image.shape[-1])
    ]
    resized = np.stack(channels, axis=-1)
    return np.asarray(np.clip(resized, 0, 1) if clip else resized, np.float32)
