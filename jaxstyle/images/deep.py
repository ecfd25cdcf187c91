"""16-bit channels, of which Pillow decodes 8 bits: both bytes are read.

Pillow's decoders pass every sample to an unpacker, selected by a name in the image's tiles, which
keeps the high byte. The unpacker of the other byte order keeps the low byte, so that opening and
decoding an image twice gives both bytes. Gray with alpha has four bytes per pixel, as 8-bit RGBA
has, and is unpacked as such.
"""

import re
import sys
from typing import Any

from PIL import Image, ImageFile

# Not premultiplied colors, which are divided by the high byte while they are unpacked.
_RAW = re.compile(r"(RGBA?);16([BLN])")
_OTHER = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}


def is_deep(image: Image.Image) -> bool:
    """Return whether an opened image, not decoded yet, is RGB or RGBA with 16 bits per channel."""
    tiles = getattr(image, "tile", [])
    return image.mode in ("RGB", "RGBA") and bool(tiles) and all(map(_raw_mode, tiles))


def select_low_bytes(image: Image.Image) -> None:
    """Set an opened image (`is_deep`) to decode to the low bytes of its samples."""
    assert isinstance(image, ImageFile.ImageFile)
    image.tile = [_other_byte(tile) for tile in image.tile]


def is_deep_gray(image: Image.Image) -> bool:
    """Return whether an opened image, not decoded yet, is gray with alpha, both with 16 bits."""
    tiles = getattr(image, "tile", [])
    return image.mode == "RGBA" and [name_of(tile) for tile in tiles] == ["LA;16B"]


def select_all_bytes(image: Image.Image) -> None:
    """Set an opened image (`is_deep_gray`) to decode to gray and alpha, two bytes each."""
    assert isinstance(image, ImageFile.ImageFile)
    image.tile = [_renamed(tile, "RGBA") for tile in image.tile]


def name_of(tile: ImageFile._Tile) -> Any:
    """Return the name of a tile's unpacker."""
    return tile.args[0] if isinstance(tile.args, tuple) and tile.args else tile.args


def _renamed(tile: ImageFile._Tile, name: str) -> ImageFile._Tile:
    return tile._replace(args=(name, *tile.args[1:]) if isinstance(tile.args, tuple) else name)


def _raw_mode(tile: ImageFile._Tile) -> re.Match[str] | None:
    name = name_of(tile)
    return _RAW.fullmatch(name) if isinstance(name, str) else None


def _other_byte(tile: ImageFile._Tile) -> ImageFile._Tile:
    mode = _raw_mode(tile)
    assert mode is not None
    return _renamed(tile, f"{mode[1]};16{_OTHER[mode[2]]}")
