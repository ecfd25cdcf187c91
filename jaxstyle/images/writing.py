"""Writing image files: equal arrays give equal bytes, and files are written atomically."""

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, PngImagePlugin

from jaxstyle import files
from jaxstyle.errors import JaxstyleError
from jaxstyle.files import StrPath
from jaxstyle.images import png16, tiff
from jaxstyle.images.array import Array
from jaxstyle.images.color_profile import srgb_bytes

WRITE_FORMATS: dict[str, str] = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".bmp": "BMP",
    ".avif": "AVIF",
}
SUFFIXES = tuple(WRITE_FORMATS)
"""Suffixes of image files, by which they are found in a folder."""
ALPHA_FORMATS = ("PNG", "TIFF", "WEBP", "AVIF")
"""Formats with an alpha channel."""
DEEP_FORMATS = ("PNG", "TIFF")
"""Formats that can be written with 16 bits per channel."""
BIT_DEPTHS = (8, 16)
_LONGEST_SIDE = {"JPEG": 65_535, "WEBP": 16_383}
_SAVE_OPTIONS: dict[str, dict[str, object]] = {
    "PNG": {},
    # 4:4:4, as chroma subsampling blurs the edges of brush strokes. No optimized tables: their
    # buffer in Pillow is too small for strong noise.
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"quality": 95, "method": 4},
    "TIFF": {"compression": "tiff_deflate"},
    "BMP": {},
    # One thread, as the bytes depend on the number of threads.
    "AVIF": {"quality": 95, "subsampling": "4:4:4", "max_threads": 1},
}


def encode_image(
    array: npt.ArrayLike,
    format: str,
    *,
    text: Mapping[str, str] | None = None,
    alpha: npt.ArrayLike | None = None,
    bit_depth: int = 8,
) -> bytes:
    """Return an array as the bytes of an image file; equal arrays give equal bytes.

    Values are clipped to [0, 1] and rounded to 8 bits, or to 16 bits in a PNG or TIFF. An sRGB
    profile is embedded, except in BMP. JPEG and AVIF are written at quality 95 without chroma
    subsampling, WebP at quality 95.

    Args:
      array: RGB `[h, w, 3]`, floats.
      format: a value of `WRITE_FORMATS`, as from `format_of`.
      text: values of a PNG's text chunks by keyword; ignored for other formats.
      alpha: `[h, w]` floats from 0, transparent, to 1; ignored for formats outside `ALPHA_FORMATS`.
      bit_depth: bits per channel, 8 or 16.

    Raises:
      ValueError: the array has another shape or type, or contains NaN or infinity.
      JaxstyleError: the format does not support sides of this length, or 16 bits.
    """
    values = np.asarray(array)
    if values.ndim != 3 or values.shape[-1] != 3 or 0 in values.shape:
        raise ValueError(f"an image has shape [h, w, 3], got {values.shape}")
    if not np.issubdtype(values.dtype, np.floating):
        raise ValueError(f"an image holds floats in [0, 1], got {values.dtype}")
    if not np.isfinite(values).all():
        raise ValueError("the image holds NaN or infinity")
    height, width = values.shape[:2]
    longest = _LONGEST_SIDE.get(format)
    if longest is not None and max(height, width) > longest:
        raise JaxstyleError(
            f"a {format} file holds at most {longest} pixels a side, this image is "
            f"{width}x{height}; write a .png"
        )
    options = dict(_SAVE_OPTIONS[format])
    if format != "BMP":
        options["icc_profile"] = srgb_bytes()
    if format == "PNG" and text:
        info = PngImagePlugin.PngInfo()
        for keyword, value in text.items():
            info.add_text(keyword, value)
        options["pnginfo"] = info
    check_bit_depth(bit_depth, format)
    if alpha is not None and format in ALPHA_FORMATS:
        values = np.concatenate([values, np.asarray(alpha, values.dtype)[..., None]], axis=-1)
    values = np.clip(values, 0, 1)
    if bit_depth == 16:
        deep = np.rint(values.astype(np.float64) * 65535).astype(np.uint16)
        if format == "TIFF":
            return tiff.encode(deep, profile=srgb_bytes())
        return png16.encode(deep, profile=srgb_bytes(), text=text or {})
    pixels = np.rint(values * 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format, **options)
    return buffer.getvalue()


def save_image(
    path: StrPath,
    array: npt.ArrayLike,
    *,
    argument: str = "output",
    text: Mapping[str, str] | None = None,
    alpha: npt.ArrayLike | None = None,
    bit_depth: int = 8,
) -> None:
    """Write an image atomically, in the format of the path's ending.

    Args:
      path: file to write.
      array: RGB `[h, w, 3]` in [0, 1]; see `encode_image`.
      argument: name of the file in error messages.
      text: as in `encode_image`.
      alpha: as in `encode_image`.
      bit_depth: as in `encode_image`.

    Raises:
      JaxstyleError: the ending is unknown, or the file cannot be written.
      ValueError: the array is not an image.
    """
    format = format_of(path, argument=argument)
    data = encode_image(array, format, text=text, alpha=alpha, bit_depth=bit_depth)
    files.write_atomically(path, data, argument=argument)


def format_of(path: StrPath, *, argument: str = "output") -> str:
    """Return the format of a path's ending, e.g. `"PNG"`.

    Raises:
      JaxstyleError: the ending is not in `WRITE_FORMATS`.

    Example:
      >>> format_of("out.jpg")
      'JPEG'
    """
    ending = Path(path).suffix
    try:
        return WRITE_FORMATS[ending.lower()]
    except KeyError:
        problem = f"the ending {ending!r}, which is not written" if ending else "no ending"
        choices = ", ".join(WRITE_FORMATS)
        raise JaxstyleError(
            f"{argument} {files.shown(path)} has {problem}; choose one of {choices}"
        ) from None


def remove_white_background(image: npt.ArrayLike, alpha: npt.ArrayLike) -> Array:
    """Return the colors whose composite over white with `alpha` is `image`.

    The stylized image of a transparent one is over white (`load_with_alpha`). If it were written
    with the same alpha, edges would be too light.

    Args:
      image: RGB `[h, w, 3]` in [0, 1], over white.
      alpha: `[h, w]` in [0, 1]; where it is 0, the color is unchanged.
    """
    rgb, share = np.asarray(image, np.float32), np.asarray(alpha, np.float32)[..., None]
    colors = (rgb - (1 - share)) / np.maximum(share, 1e-6)
    return np.where(share > 0, np.clip(colors, 0, 1), rgb)


def check_bit_depth(bit_depth: int, format: str, *, argument: str = "bit_depth") -> None:
    """Raise a `JaxstyleError` if a format cannot have this number of bits per channel."""
    if bit_depth not in BIT_DEPTHS:
        raise JaxstyleError(
            f"{argument}: {bit_depth} bits per channel are not written; give 8 or 16"
        )
    if bit_depth == 16 and format not in DEEP_FORMATS:
        raise JaxstyleError(
            f"{argument}: 16 bits per channel are not written as {format}; write a .png or .tiff"
        )


def check_output(path: StrPath, *, argument: str = "output") -> None:
    """Raise, before a run, if `save_image` could not write to `path`.

    Raises:
      JaxstyleError: the ending is unknown, the folder is missing or not writable, or `path` is a
        folder.
    """
    # The folder first: the error for `-o results` is that it is a folder, not its missing ending.
    files.check_writable(path, argument=argument)
    format_of(path, argument=argument)
