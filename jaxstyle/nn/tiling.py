"""Means over the positions of feature maps, of the whole image or exactly in tiles.

The objective depends on a layer only through means over positions: Gram matrices and mean squared
differences. A mean is a sum over tiles, so an image too large for memory is computed tile by tile,
each with a margin as wide as the network's receptive field. The backward pass recomputes the tiles,
given the derivatives with respect to the means. Values and gradients are those of the whole image,
up to the order of summation.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxstyle.config.layers import smallest_side, stride
from jaxstyle.nn.geometry import Window, check_image_size, receptive_margin
from jaxstyle.nn.network import Network
from jaxstyle.nn.vgg import activations, map_layers

# Dynamic slices need starts of the same type, that of `_Tile`.
_ZERO = np.int32(0)
Statistic = Callable[[str, jax.Array, Any], Any]
"""`(layer, activations [h, w, c], maps of the layer or None) -> pytree of means over positions`."""


def mean_statistics(
    network: Network,
    x: jax.Array,
    layers: tuple[str, ...],
    statistic: Statistic,
    maps: Mapping[str, Any],
    *,
    pooling: str,
    tile: int = 0,
    height: int | None = None,
    remat: bool = False,
) -> dict[str, Any]:
    """Compute the mean of a statistic over the positions of each layer.

    Args:
      network: weights.
      x: the network's input, `[h, w, 3]`.
      layers: names without duplicates.
      statistic: returns means over positions; positions whose activations and maps are 0 must
        contribute 0.
      maps: further inputs of the statistic, for each layer a pytree of `[h', w', n]`.
      pooling: as in `vgg.features`.
      tile: side of the tiles in pixels, rounded down to whole cells of the deepest layer. With 0,
        or for a smaller image, the whole image is computed at once.
      height: rows of the image, if `x` is padded below (`sharding.SpatialSharding`); tiles are then
        vertical strips.
      remat: as in `vgg.map_layers`; tiles are always recomputed.

    Returns:
      `{layer: mean of the statistic}`.
    """
    if not layers:
        return {}
    whole = _is_whole(tile, *x.shape[:2])
    if whole and height in (None, x.shape[0]):

        def of_layer(layer: str, act: jax.Array, maps: Mapping[str, Any]) -> Any:
            return statistic(layer, act, maps.get(layer))

        return map_layers(network, x, layers, of_layer, maps, pooling=pooling, remat=remat)
    grid = _Grid.of_tiles(network, layers, x.shape[0], x.shape[1], tile, height)
    x = grid.padded(x)

    def share_of(x: jax.Array, maps: Mapping[str, Any], at: _Tile) -> dict[str, Any]:
        def share(layer: str, act: jax.Array, others: tuple[Mapping[str, Any], _Tile]) -> Any:
            maps, at = others
            place = grid.place(at, layer)
            tile_act = jnp.where(place.is_own, place.slice_of_window(act), 0)
            tile_maps = jax.tree.map(
                lambda values: jnp.where(place.is_own, place.slice_of_image(values), 0),
                maps.get(layer),
            )
            means = statistic(layer, tile_act, tile_maps)
            return jax.tree.map(lambda mean: place.share * mean, means)

        part, window = grid.window(x, at)
        return map_layers(
            network, part, layers, share, (maps, at),
            pooling=pooling, window=window, remat=remat and whole,
        )  # fmt: skip

    tiles = grid.tiles()
    if whole:
        return share_of(x, maps, _first(tiles))
    # The backward pass recomputes each tile from the arguments.
    remat_share = jax.checkpoint(share_of, prevent_cse=False)

    def add(total: dict[str, Any], at: _Tile) -> tuple[dict[str, Any], None]:
        return jax.tree.map(jnp.add, total, remat_share(x, maps, at)), None

    shapes = jax.eval_shape(share_of, x, maps, _first(tiles))
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    return lax.scan(add, zeros, tiles)[0]


def window_size(
    network: Network, layers: tuple[str, ...], height: int, width: int, *, tile: int
) -> tuple[int, int]:
    """Return the rows and columns that `mean_statistics` computes at once.

    These are those of a tile with its margin, or of the whole image.

    Args:
      network: weights.
      layers: as in `mean_statistics`.
      height: height of the image in pixels.
      width: width of the image in pixels.
      tile: as in `mean_statistics`.
    """
    if not layers or _is_whole(tile, height, width):
        return height, width
    rows, columns = _Grid.of_tiles(network, layers, height, width, tile, None).axes
    return rows.window, columns.window


def _is_whole(tile: int, height: int, width: int) -> bool:
    """Return whether one tile covers the image."""
    return not tile or tile >= max(height, width)


def feature_maps(
    network: Network,
    x: jax.Array,
    layers: tuple[str, ...],
    *,
    pooling: str,
    tile: int = 0,
    height: int | None = None,
) -> dict[str, jax.Array]:
    """Compute the activations of the network's input `[h, w, 3]` in tiles.

    The arguments are as in `mean_statistics`. If the input is padded below, the maps include the
    positions of the padding.
    """
    if not layers:
        return {}
    whole = _is_whole(tile, *x.shape[:2])
    if whole and height in (None, x.shape[0]):
        return activations(network, x, layers, pooling=pooling)
    grid = _Grid.of_tiles(network, layers, x.shape[0], x.shape[1], tile, height)
    x = grid.padded(x)

    def of_window(x: jax.Array, at: _Tile) -> dict[str, jax.Array]:
        part, window = grid.window(x, at)
        return activations(network, part, layers, pooling=pooling, window=window)

    tiles = grid.tiles()
    if whole:
        return of_window(x, _first(tiles))

    def fill(maps: dict[str, jax.Array], at: _Tile) -> tuple[dict[str, jax.Array], None]:
        acts = of_window(x, at)
        filled = {}
        for layer in layers:
            place = grid.place(at, layer)
            old, new = place.slice_of_image(maps[layer]), place.slice_of_window(acts[layer])
            part = jnp.where(place.is_own, new, old)
            filled[layer] = lax.dynamic_update_slice(maps[layer], part, place.in_image)
        return filled, None

    window = jax.eval_shape(of_window, x, _first(tiles))
    empty = {}
    for layer in layers:
        height, width = (axis.extent // stride(layer) for axis in grid.axes)
        empty[layer] = jnp.zeros((height, width, window[layer].shape[-1]), window[layer].dtype)
    return lax.scan(fill, empty, tiles)[0]


class _Tile(NamedTuple):
    """Position of a tile, in pixels along both axes, int32 `[2]`."""

    own_start: jax.Array
    """First row and column that no earlier tile covers."""
    start: jax.Array
    """First row and column of the tile."""
    window_start: jax.Array
    """First row and column of the tile with its margin."""


def _first(tiles: _Tile) -> _Tile:
    """Return the first of several tiles."""
    return jax.tree.map(lambda positions: positions[0], tiles)


@dataclass(frozen=True)
class _Axis:
    """Tiles along one axis, in pixels; all but `size` are multiples of the deepest layer's
    stride."""

    size: int
    """Side of the image."""
    extent: int
    """Side that the feature maps cover: `size`, or `padded` if maps include the padding."""
    padded: int
    """Side of the padded image."""
    tile: int
    """Side of a tile without its margins."""
    window: int
    """Side of a tile with its margins. At an edge the window is moved inside instead of cut."""
    margin: int
    """Width of a margin, at least that of the receptive field (`receptive_margin`)."""

    @classmethod
    def of_tiles(cls, size: int, side: int, cell: int, margin: int) -> "_Axis":
        """Return an axis of tiles of about `side` pixels."""
        padded = -(-size // cell) * cell
        count = -(-padded // max(cell, side // cell * cell))
        tile = -(-padded // (count * cell)) * cell
        margin = -(-margin // cell) * cell
        return cls(size, size, padded, tile, min(tile + 2 * margin, padded), margin)

    @classmethod
    def of_one_tile(cls, size: int, padded: int) -> "_Axis":
        """Return an axis with one tile."""
        return cls(size, padded, padded, padded, padded, 0)

    def starts(self) -> list[tuple[int, int, int]]:
        """Return `own_start`, `start` and `window_start` of each `_Tile` along this axis."""
        starts = []
        for own_start in range(0, self.padded, self.tile):
            start = min(own_start, self.padded - self.tile)
            window_start = min(max(start - self.margin, 0), self.padded - self.window)
            starts.append((own_start, start, window_start))
        return starts


@dataclass(frozen=True)
class _Grid:
    """The tiles of an image, by rows and columns."""

    axes: tuple[_Axis, _Axis]

    @classmethod
    def of_tiles(
        cls,
        network: Network,
        layers: tuple[str, ...],
        height: int,
        width: int,
        side: int,
        image_height: int | None,
    ) -> "_Grid":
        """Return the tiles of an image.

        Args:
          network: weights.
          layers: as in `mean_statistics`.
          height: rows of the input.
          width: columns of the input.
          side: side of the tiles in pixels; 0 for one tile.
          image_height: rows that are not padding; all if None.
        """
        check_image_size(network, image_height or height, width, layers)
        cell = smallest_side(layers)
        margin = receptive_margin(network.topology, layers)
        rows = (
            _Axis.of_one_tile(image_height, height)
            if image_height
            else _Axis.of_tiles(height, side, cell, margin)
        )
        columns = (
            _Axis.of_tiles(width, side, cell, margin) if side else _Axis.of_one_tile(width, width)
        )
        return cls((rows, columns))

    def tiles(self) -> _Tile:
        """Return all tiles, row by row, as arrays `[tiles, 2]`."""
        rows, columns = (axis.starts() for axis in self.axes)
        pairs = jnp.array([(row, column) for row in rows for column in columns], jnp.int32)
        return _Tile(pairs[..., 0], pairs[..., 1], pairs[..., 2])

    def padded(self, x: jax.Array) -> jax.Array:
        """Return the input padded with zeros to whole cells."""
        ends = [(0, axis.padded - size) for axis, size in zip(self.axes, x.shape, strict=False)]
        return jnp.pad(x, (*ends, (0, 0))) if any(after for _, after in ends) else x

    def window(self, x: jax.Array, at: _Tile) -> tuple[jax.Array, Window | None]:
        """Return a tile with its margin, cut from the padded image."""
        rows, columns = self.axes
        part = _slice(x, tuple(at.window_start), (rows.window, columns.window))
        whole = rows.padded == rows.size and columns.padded == columns.size
        top, left = at.window_start
        return part, None if whole else Window(top, left, rows.size, columns.size)

    def place(self, at: _Tile, layer: str) -> "_Place":
        """Return the positions of a layer that belong to a tile."""
        cell = stride(layer)
        sizes = [min(axis.tile, axis.extent) // cell for axis in self.axes]
        ends = [axis.extent // cell for axis in self.axes]
        counts = [axis.size // cell for axis in self.axes]
        # If the tile extends beyond the image, the slice is moved inside.
        starts = [
            jnp.minimum(at.start[i] // cell, end - size) if size < end else _ZERO
            for i, (end, size) in enumerate(zip(ends, sizes, strict=True))
        ]
        indices = [start + jnp.arange(size) for start, size in zip(starts, sizes, strict=True)]
        rows, columns = (
            (index >= at.own_start[i] // cell) & (index < counts[i])
            for i, index in enumerate(indices)
        )
        return _Place(
            in_image=(*starts, _ZERO),
            in_window=(
                *(start - at.window_start[i] // cell for i, start in enumerate(starts)),
                _ZERO,
            ),
            sizes=tuple(sizes),
            is_own=(rows[:, None] & columns[None])[..., None],
            share=sizes[0] * sizes[1] / (counts[0] * counts[1]),
        )


class _Place(NamedTuple):
    """The positions of one layer that belong to a tile."""

    in_image: tuple[Any, ...]
    """Start indices in the maps of the whole image."""
    in_window: tuple[Any, ...]
    """Start indices in the maps of the tile with its margin."""
    sizes: tuple[int, ...]
    """Numbers of rows and columns."""
    is_own: jax.Array
    """Whether a position is in the image and in no earlier tile, bool `[h, w, 1]`."""
    share: float
    """Number of positions of the tile divided by that of the layer."""

    def slice_of_window(self, act: jax.Array) -> jax.Array:
        """Return the tile's part of the maps of the tile with its margin."""
        return _slice(act, self.in_window, self.sizes)

    def slice_of_image(self, act: jax.Array) -> jax.Array:
        """Return the tile's part of the maps of the whole image."""
        return _slice(act, self.in_image, self.sizes)


def _slice(x: jax.Array, start: tuple[Any, ...], sizes: tuple[int, ...]) -> jax.Array:
    """Return a slice of `[h, w, c]`; an axis that is not cut may be sharded over devices."""
    at = [
        start if size < whole else _ZERO
        for start, size, whole in zip(start, sizes, x.shape, strict=False)
    ]
    return lax.dynamic_slice(x, (*at, _ZERO), (*sizes, x.shape[2]))
