"""Sizes of feature maps and of receptive fields."""

from collections.abc import Sequence
from typing import NamedTuple

import jax

from jaxstyle.config.layers import convolution_of, convolutions, smallest_side, stride
from jaxstyle.errors import JaxstyleError
from jaxstyle.nn.network import Network


def check_image_size(network: Network, height: int, width: int, layers: Sequence[str]) -> None:
    """Raise a `JaxstyleError` unless an image is large enough for every layer."""
    # Reflection needs a second pixel.
    least = smallest_side(layers) * (2 if network.convention.padding == "reflect" else 1)
    if min(height, width) < least:
        raise JaxstyleError(
            f"an image of {width}x{height} pixels is too small for layer "
            f"{max(layers, key=convolution_of)!r}, which needs {least} pixels a side; use a "
            "larger image or shallower layers"
        )


def receptive_margin(topology: str, layers: Sequence[str]) -> int:
    """Return the margin of the receptive field of the deepest of `layers`, in pixels.

    An activation depends on the pixels of its cell and on this many pixels around it.
    """
    deepest = max(map(convolution_of, layers))
    margin, block = 0, deepest[4]
    for name in reversed(convolutions(topology)):
        if name > deepest:
            continue
        if name[4] != block:  # A cell has two cells of the preceding block along each axis.
            margin, block = 2 * margin, name[4]
        margin += 1
    return margin


def map_size(layer: str, height: int, width: int, *, pooling: str) -> tuple[int, int]:
    """Return the rows and columns of a layer's map for an image of `height` x `width`."""
    cell = stride(layer)
    if pooling == "max-ceil":
        return -(-height // cell), -(-width // cell)
    return height // cell, width // cell


class Window(NamedTuple):
    """Position of a part of an image, which may extend beyond the lower and right edges."""

    top: jax.Array
    """First row, an int32 scalar; a multiple of the deepest layer's stride."""
    left: jax.Array
    """First column, an int32 scalar; a multiple of the deepest layer's stride."""
    height: int
    """Rows of the whole image."""
    width: int
    """Columns of the whole image."""
