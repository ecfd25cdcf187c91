"""Hypercolumns: the features of several layers at one position, concatenated to one vector.

Hariharan, Arbelaez, Girshick & Malik, Hypercolumns for Object Segmentation and Fine-grained
Localization, 2015. STROTSS and NNST compare them.
"""

import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from jaxstyle.config.layers import stride

CELL = 4
"""Least side of a hypercolumn's cell in pixels: a quarter of the image's resolution (Kolkin et al.,
Neural Neighbor Style Transfer, 2022, section 3.1)."""


def hypercolumns(maps: Mapping[str, jax.Array], weights: Mapping[str, float]) -> jax.Array:
    """Return the features of all layers at one resolution, concatenated.

    The resolution is that of the finest layer, but at most a quarter of the image's: finer maps
    are averaged over cells, coarser maps are interpolated linearly.

    Args:
      maps: feature maps of one image, `{layer: [h, w, c]}`.
      weights: a factor for each layer.

    Returns:
      `[h', w', sum of all c]`.
    """
    cell = max(CELL, min(map(stride, maps)))
    finest = min(maps, key=stride)
    ratio = cell // stride(finest)
    rows, columns = (side // ratio for side in maps[finest].shape[:2])
    joined = []
    for layer, act in maps.items():
        side = stride(layer)
        if side <= cell:
            act = average_cells(act, cell // side)
        else:
            h, w, c = act.shape
            act = jax.image.resize(act, (h * side // cell, w * side // cell, c), "linear")
        joined.append(weights[layer] * _cropped(act, rows, columns))
    return jnp.concatenate(joined, -1)


def average_cells(x: jax.Array, side: int) -> jax.Array:
    """Return the mean of each cell of `side` x `side` positions of a map `[h, w, c]`.

    Rows and columns that do not fill a cell are dropped.
    """
    if side == 1:
        return x
    rows, columns = x.shape[0] // side, x.shape[1] // side
    cells = x[: rows * side, : columns * side].reshape(rows, side, columns, side, x.shape[-1])
    return cells.mean((1, 3))


def _cropped(x: jax.Array, rows: int, columns: int) -> jax.Array:
    """Return a map cropped to `[rows, columns, c]`, or padded to it by its edge."""
    x = x[:rows, :columns]
    missing = rows - x.shape[0], columns - x.shape[1]
    return jnp.pad(x, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="edge")


def sample_positions(x: jax.Array, most: int) -> jax.Array:
    """Return at most `most` evenly spaced positions of a map `[h, w, c]`, as `[n, c]`.

    The spacings of rows and columns are about equal. The choice depends on the shape only.
    """
    h, w, c = x.shape
    rows = min(h, max(1, math.isqrt(most * h // w)))
    columns = min(w, max(1, most // rows))
    rows = min(h, max(1, most // columns))
    at = [(jnp.arange(n) * size + size // 2) // n for n, size in ((rows, h), (columns, w))]
    return x[at[0]][:, at[1]].reshape(-1, c)


def unit(x: jax.Array) -> jax.Array:
    """Return vectors `[..., c]` divided by their lengths; zero vectors stay zero."""
    return x * jax.lax.rsqrt(jnp.sum(jnp.square(x), -1, keepdims=True) + 1e-12)


def cosine_distances(a: jax.Array, b: jax.Array) -> jax.Array:
    """Compute 1 - cosine of each pair of vectors of `[n, c]` and `[m, c]`, as `[n, m]`."""
    return 1 - jnp.matmul(unit(a), unit(b).T, precision="highest")


MOST_POSITIONS = 4900
"""Largest number of positions that nearest-neighbor losses compare. A square image of 512 pixels
has 66 x 66 with its margin, at an eighth of its resolution."""


def bounded_columns(maps: Mapping[str, jax.Array], weights: Mapping[str, float]) -> jax.Array:
    """Return `hypercolumns`, averaged over larger cells if there are more than `MOST_POSITIONS`."""
    return average_to(hypercolumns(maps, weights), MOST_POSITIONS)


def average_to(x: jax.Array, most: int) -> jax.Array:
    """Return a map `[h, w, c]` averaged over cells, the smallest that leave at most `most`."""
    h, w, _ = x.shape
    side = 1
    while (h // side) * (w // side) > most:
        side += 1
    return average_cells(x, side)


def spaced_rows(x: jax.Array, most: int) -> jax.Array:
    """Return the rows of `[n, c]`, or `most` evenly spaced rows if there are more."""
    count = min(len(x), most)
    return x[(jnp.arange(count) * len(x) + len(x) // 2) // count] if count < len(x) else x
