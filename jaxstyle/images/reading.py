"""Read images: formats of an allow-list, told by content, and bounded before they are decoded."""

import contextlib
import io
import logging
import struct
from typing import BinaryIO

import numpy as np
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from jaxstyle import files
from jaxstyle.errors import JaxstyleError
from jaxstyle.files import StrPath
from jaxstyle.images import tiff
from jaxstyle.images.array import Array
from jaxstyle.images.decoding import Unsupported, decode, decode_samples
from jaxstyle.images.resizing import MIN_SIDE

# 64 megapixels is more than the 48 and 50 of telephones, and
# decodes within 2.4 GB.
MAX_PIXELS = 64_000_000
# Pillow reads forty more formats; some (EPS, FITS, WMF) start other programs or are rarely tested.
_PLUGINS = (
    JpegImagePlugin.JpegImageFile,
    PngImagePlugin.PngImageFile,
    TiffImagePlugin.TiffImageFile,
    WebPImagePlugin.WebPImageFile,
    AvifImagePlugin.AvifImageFile,
    BmpImagePlugin.BmpImageFile,
)
_ORIENTATION, _ON_ITS_SIDE = 0x0112, range(5, 9)
READ_FORMATS = tuple(plugin.format for plugin in _PLUGINS)

# Pillow logs some oddities of a file as errors, which Python prints when nobody
# has set up logging; users get one line from us instead.
logging.getLogger("PIL").addHandler(logging.NullHandler())


def load_image(
    path: StrPath,
    *,
    argument: str = "image",
    max_pixels: int = MAX_PIXELS,
    first_frame: bool = False,
) -> Array:
    """Read an image file as sRGB.

    EXIF orientation is applied. An embedded ICC profile is converted to sRGB; a
    broken one, or one that does not fit the pixels, is ignored. CMYK, palette and
    grayscale become RGB. Grayscale and RGB of 16 bit keep their precision, with alpha too, but
    for RGB with a profile other than sRGB, which is converted at 8 bit; a grayscale profile is
    interpolated. Grayscale of 12 bit is read as well. Transparent pixels are
    laid over white, as on paper; see `load_with_alpha`.

    Args:
      path: a JPEG, PNG, TIFF, WebP, AVIF or BMP file.
      argument: how messages name the file, as in `content`.
      max_pixels: largest width × height accepted; checked before decoding.
      first_frame: take the first image of an animated or multi-page file instead
        of refusing it. The further images some cameras append to a JPEG never count.

    Returns:
      Array [height, width, 3] float32 in [0, 1], both sides at least `MIN_SIDE`.

    Raises:
      JaxstyleError: missing, unreadable, not an image of these formats, damaged,
        too many pixels, too small, or several frames.
    """
    return load_with_alpha(path, argument=argument, max_pixels=max_pixels, first_frame=first_frame)[
        0
    ]


def load_with_alpha(
    path: StrPath,
    *,
    argument: str = "image",
    max_pixels: int = MAX_PIXELS,
    first_frame: bool = False,
) -> tuple[Array, Array | None]:
    """Read an image as `load_image` does, and its alpha channel.

    Returns:
      The image over white [height, width, 3], and alpha [height, width] in [0, 1] (0 is
      transparent), None if the file has none or is opaque throughout.
    """
    named = f"{argument} {files.shown(path)}"
    files.check_readable(path, named, kind="image file")
    try:
        with open(path, "rb") as file:
            stream = _without_text(file)
            image = _open(stream, named)
            _check_header(image, named, max_pixels, first_frame)

            if image.format == "PNG" and "icc_profile" not in image.info:
                _check_coding(stream, named)

            def open_again() -> Image.Image:
                stream.seek(0)
                return _open(stream, named)

            samples = tiff.read(stream, image.size) if image.format == "TIFF" else None
            if samples is None:
                rgb, alpha = decode(open_again(), open_again)
            elif samples[0].dtype == np.uint16:
                rgb, alpha = decode_samples(*samples)
            else:
                rgb, alpha = decode(tiff.as_image(*samples), open_again)
    except (JaxstyleError, MemoryError):
        raise
    except Unsupported as error:
        raise JaxstyleError(f"{named}: {error}; save it with 8 or 16 bits") from None
    except Image.DecompressionBombError:
        # Pillow's own bound, in WebP and TIFF.
        raise JaxstyleError(
            f"{named} has more pixels than Pillow decodes of this format; make it smaller"
        ) from None
    except tiff.Deep as error:
        raise JaxstyleError(f"{named}: {error}; save it as one of these, or with 8 bits") from None
    except Exception as error:
        # Decoders raise whatever a damaged file leads them to: OSError, SyntaxError,
        # struct.error, IndexError. All of them mean the same to users.
        reason = files.reason(error)
        if not any(c.isalpha() for c in reason):  # libtiff's codes, as in OSError(-2)
            reason = f"decoder error {reason}".strip()
        raise JaxstyleError(
            f"{named} is damaged or cut short and cannot be decoded ({reason}); get a fresh copy"
        ) from error
    return _over_white(rgb, alpha)


def image_size(
    path: StrPath,
    *,
    argument: str = "image",
    max_pixels: int = MAX_PIXELS,
    first_frame: bool = False,
) -> tuple[int, int]:
    """Return the height and width that `load_image` would give, from the head of the file.

    An orientation that stands behind the pixels, as a PNG may have it, is not found.

    Raises:
      JaxstyleError: what `load_image` raises for a file that is no such image.
    """
    named = f"{argument} {files.shown(path)}"
    files.check_readable(path, named, kind="image file")
    with open(path, "rb") as file:
        image = _open(_without_text(file), named)
        _check_header(image, named, max_pixels, first_frame)
        width, height = image.size
        # A hint that is often broken.
        with contextlib.suppress(Exception):
            if image.getexif().get(_ORIENTATION, 1) in _ON_ITS_SIDE:
                return width, height
    return height, width


def from_pil(image: Image.Image, *, argument: str = "image") -> Array:
    """Return an image of Pillow's as `load_image` returns its file.

    Raises:
      JaxstyleError: pixels without a fixed range, or of a damaged file.
    """
    try:
        # Decoded, so that it is what it says it is: 8 bits where its mode has 8.
        copy = image.copy()
        return _over_white(*decode(copy, copy.copy))[0]
    except MemoryError:
        raise
    except Exception as error:
        raise JaxstyleError(
            f"{argument}: the image of mode {image.mode!r} cannot be used ({files.reason(error)}); "
            "convert it to RGB"
        ) from error


def _over_white(rgb: Array, alpha: Array | None) -> tuple[Array, Array | None]:
    """Return an image composited over white, with its alpha unless that is 1 everywhere."""
    if alpha is not None:
        # In place: a copy of 40 megapixels is half a gigabyte. rgb·a + 1 − a = (rgb − 1)·a + 1.
        rgb -= 1
        rgb *= alpha[..., None]
        rgb += 1
        if (alpha == 1).all():
            alpha = None
    return rgb, alpha


def read_text(path: StrPath, keyword: str, *, argument: str = "image") -> str | None:
    """Read a text of `save_image` by its keyword; None if there is none.

    Only the head of a PNG file is read, no pixel is decoded.

    Raises:
      JaxstyleError: the file cannot be read or is not a PNG.
    """
    named = f"{argument}: {path}"
    files.check_readable(path, named, kind="image file")
    try:
        with open(path, "rb") as stream:
            text = PngImagePlugin.PngImageFile(stream).info.get(keyword)
    # The list of what Pillow raises on a damaged head.
    except (OSError, ValueError, SyntaxError, IndexError, TypeError, struct.error) as error:
        raise JaxstyleError(f"{named} is not a whole PNG file; name one") from error
    return text if isinstance(text, str) else None


def _without_text(file: io.BufferedReader) -> BinaryIO:
    """Return a PNG without its text chunks, since Pillow refuses large ones.

    Not XMP, which may hold the orientation. What follows on a damaged chunk stays as it is.
    """
    if file.read(8) != b"\x89PNG\r\n\x1a\n":
        return file
    kept, dropped = [(0, 8)], False
    while len(head := file.read(8)) == 8:
        start, length = file.tell() - 8, int.from_bytes(head[:4], "big") + 12
        keyword = file.read(17) if head[4:] == b"iTXt" else b""
        if head[4:] in (b"tEXt", b"zTXt", b"iTXt") and keyword != b"XML:com.adobe.xmp":
            dropped = True
        else:
            kept.append((start, length))
        file.seek(start + length)
    if not dropped:
        return file
    lean = io.BytesIO()
    for start, length in kept:
        file.seek(start)
        lean.write(file.read(length))
    return lean


def _identify(stream: BinaryIO) -> Image.Image | None:
    """Read the header with the first format that accepts it.

    As `Image.open` does, but without its bound on the number of pixels: that is the whole process's
    (`Image.MAX_IMAGE_PIXELS`), and `_check_header` has its own.
    """
    stream.seek(0)
    head = stream.read(16)
    for format in READ_FORMATS:
        factory, accept = Image.OPEN[format]
        # A text says what this Pillow lacks.
        if accept is not None and accept(head) is not True:
            continue
        stream.seek(0)
        with contextlib.suppress(SyntaxError, IndexError, TypeError, struct.error):
            return factory(stream, "")
    return None


def _open(stream: BinaryIO, named: str) -> Image.Image:
    """Read the header only."""
    image = _identify(stream)
    if image is None:
        stream.seek(0)
        head = stream.read(4)
        if head in (b"II*\0", b"MM\0*"):
            raise JaxstyleError(
                f"{named} is a TIFF of a kind that is not read, or damaged; save it as PNG, or as "
                "TIFF of 8 or 16 bits"
            )
        if head[:3] == b"\xff\xd8\xff":
            raise JaxstyleError(
                f"{named} is a JPEG of a kind that is not read (12 bits, lossless), or damaged; "
                "save it with 8 bits"
            )
        what = "is not an image that can be read" if head else "is an empty file"
        raise JaxstyleError(f"{named} {what}; give a JPEG, PNG, TIFF, WebP, AVIF or BMP file")
    return image


def _check_header(image: Image.Image, named: str, max_pixels: int, first_frame: bool) -> None:
    """Raise for too many pixels or frames, before any pixel is decoded."""
    width, height = image.size
    if width * height > max_pixels:
        raise JaxstyleError(
            f"{named} is {width}x{height}, {width * height / 1e6:.1f} megapixels, and at most "
            f"{max_pixels / 1e6:g} are accepted; make it smaller or raise --max-pixels"
        )
    if min(width, height) < MIN_SIDE:
        raise JaxstyleError(
            f"{named} is too small: {width}x{height} pixels, and both sides need {MIN_SIDE}; "
            "use a larger image"
        )
    if not first_frame and (frames := _frames(image)):
        raise JaxstyleError(
            f"{named} holds {frames}; save the one you want as its own file or take the first with "
            "--first-frame"
        )


def _check_coding(stream: BinaryIO, named: str) -> None:
    """Raise for a PNG whose cICP chunk (ITU-T H.273) names other colors than sRGB's."""
    stream.seek(8)
    while len(head := stream.read(8)) == 8 and head[4:] != b"IDAT":
        length = int.from_bytes(head[:4], "big")
        if head[4:] == b"cICP":
            primaries, transfer = (*stream.read(2), 0, 0)[:2]
            # BT.709's and sRGB's primaries are the same, their curves nearly so.
            if primaries != 1 or transfer not in (1, 13):
                raise JaxstyleError(
                    f"{named} has colors that are not those of sRGB (cICP: primaries {primaries}, "
                    f"transfer {transfer}); convert it to sRGB"
                )
            return
        stream.seek(length + 4, io.SEEK_CUR)


def _frames(image: Image.Image) -> str | None:
    """Return the number of frames of a file, as text, if it has more than one."""
    # MPO is a JPEG with previews or depth maps behind the image.
    if image.format == "MPO":
        return None
    if image.format != "TIFF":
        count = getattr(image, "n_frames", 1)
        return f"{count} frames" if count > 1 else None
    # Pages are a chain, which to count is to follow to its end.
    try:
        image.seek(1)
    except EOFError:
        return None
    return "several pages"
