"""Reading image files: allow-listed formats, by content, with limits checked before decoding."""

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

# 64 megapixels are more than the 48 and 50 of phones, and are decoded within 2.4 GB.
MAX_PIXELS = 64_000_000
# Pillow reads forty other formats; some (EPS, FITS, WMF) start other programs or are rarely tested.
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

# Pillow logs some irregularities of a file as errors, which Python prints by default; our errors
# are one line instead.
logging.getLogger("PIL").addHandler(logging.NullHandler())


def load_image(
    path: StrPath,
    *,
    argument: str = "image",
    max_pixels: int = MAX_PIXELS,
    first_frame: bool = False,
) -> Array:
    """Return an image file as sRGB.

    The EXIF orientation is applied. Pixels with an embedded ICC profile are converted to sRGB; a
    profile that is damaged or does not fit the pixels is ignored. CMYK, palette and grayscale
    images become RGB. 16-bit grayscale and RGB, also with alpha, keep their precision, except RGB
    with another profile than sRGB, which is converted at 8 bits; a grayscale profile is
    interpolated. 12-bit grayscale is supported. Transparent pixels are composited over white; see
    `load_with_alpha`.

    Args:
      path: a JPEG, PNG, TIFF, WebP, AVIF or BMP file.
      argument: name of the file in error messages, such as `content`.
      max_pixels: largest width × height; checked before decoding.
      first_frame: whether to read the first image of an animated or multi-page file instead of
        raising. Additional images that some cameras append to a JPEG are ignored.

    Returns:
      Array `[height, width, 3]`, float32 in [0, 1], with sides of at least `MIN_SIDE`.

    Raises:
      JaxstyleError: the file is missing, unreadable, damaged or not an image of these formats, or
        the image has too many pixels, too few, or several frames.
    """
    image, _ = load_with_alpha(
        path, argument=argument, max_pixels=max_pixels, first_frame=first_frame
    )
    return image


def load_with_alpha(
    path: StrPath,
    *,
    argument: str = "image",
    max_pixels: int = MAX_PIXELS,
    first_frame: bool = False,
) -> tuple[Array, Array | None]:
    """Return an image like `load_image`, and its alpha channel.

    Returns:
      The image over white `[height, width, 3]`, and alpha `[height, width]` from 0, transparent, to
      1; None if the image is opaque.
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
    except tiff.UnsupportedDepthError as error:
        raise JaxstyleError(f"{named}: {error}; save it as one of these, or with 8 bits") from None
    except Exception as error:
        # For damaged files decoders raise OSError, SyntaxError, struct.error, IndexError and
        # others, which mean the same to users.
        reason = files.reason(error)
        if not any(c.isalpha() for c in reason):  # a code of libtiff, as in OSError(-2)
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
    """Return the height and width of the result of `load_image`, from the file's header.

    An orientation that follows the pixels, as is possible in a PNG, is not applied.

    Raises:
      JaxstyleError: as in `load_image`, for a header that is not valid.
    """
    named = f"{argument} {files.shown(path)}"
    files.check_readable(path, named, kind="image file")
    with open(path, "rb") as file:
        image = _open(_without_text(file), named)
        _check_header(image, named, max_pixels, first_frame)
        width, height = image.size
        # Metadata that is often broken.
        with contextlib.suppress(Exception):
            if image.getexif().get(_ORIENTATION, 1) in _ON_ITS_SIDE:
                return width, height
    return height, width


def from_pil(image: Image.Image, *, argument: str = "image") -> Array:
    """Return a Pillow image as an array like that of `load_image`.

    Raises:
      JaxstyleError: the pixels have no fixed range, or the file is damaged.
    """
    try:
        # Decoded, so that its samples have the bits of its mode.
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
    """Return an image composited over white, and its alpha, None if it is 1 everywhere."""
    if alpha is not None:
        # In place: 40 megapixels are half a gigabyte. rgb·a + 1 − a = (rgb − 1)·a + 1.
        rgb -= 1
        rgb *= alpha[..., None]
        rgb += 1
        if (alpha == 1).all():
            alpha = None
    return rgb, alpha


def read_text(path: StrPath, keyword: str, *, argument: str = "image") -> str | None:
    """Return the text of a PNG by its keyword (`save_image`); None if there is none.

    Only the header is read; no pixel is decoded.

    Args:
      path: file to read.
      keyword: keyword of the text chunk.
      argument: name of the file in error messages.

    Raises:
      JaxstyleError: the file cannot be read or is not a PNG.
    """
    named = f"{argument}: {path}"
    files.check_readable(path, named, kind="image file")
    try:
        with open(path, "rb") as stream:
            text = PngImagePlugin.PngImageFile(stream).info.get(keyword)
    # The exceptions of Pillow for a damaged header.
    except (OSError, ValueError, SyntaxError, IndexError, TypeError, struct.error) as error:
        raise JaxstyleError(f"{named} is not a whole PNG file; name one") from error
    return text if isinstance(text, str) else None


def _without_text(file: io.BufferedReader) -> BinaryIO:
    """Return a PNG without its text chunks, as Pillow refuses large ones.

    XMP, which may contain the orientation, is kept. Data after a damaged chunk is unchanged.
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
    """Return the image opened by the first format that accepts its header.

    Like `Image.open`, but without the limit of pixels of the process (`Image.MAX_IMAGE_PIXELS`);
    `_check_header` checks another one.
    """
    stream.seek(0)
    head = stream.read(16)
    for format in READ_FORMATS:
        factory, accept = Image.OPEN[format]
        # A text names what this installation of Pillow lacks.
        if accept is not None and accept(head) is not True:
            continue
        stream.seek(0)
        with contextlib.suppress(SyntaxError, IndexError, TypeError, struct.error):
            return factory(stream, "")
    return None


def _open(stream: BinaryIO, named: str) -> Image.Image:
    """Return an opened image, of which only the header has been read."""
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
    """Raise for too many or too few pixels, or several frames, before decoding."""
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
    """Raise for a PNG whose cICP chunk (ITU-T H.273) specifies other colors than sRGB."""
    stream.seek(8)
    while len(head := stream.read(8)) == 8 and head[4:] != b"IDAT":
        length = int.from_bytes(head[:4], "big")
        if head[4:] == b"cICP":
            primaries, transfer = (*stream.read(2), 0, 0)[:2]
            # BT.709 has the primaries of sRGB, and nearly the same curve.
            if primaries != 1 or transfer not in (1, 13):
                raise JaxstyleError(
                    f"{named} has colors that are not those of sRGB (cICP: primaries {primaries}, "
                    f"transfer {transfer}); convert it to sRGB"
                )
            return
        stream.seek(length + 4, io.SEEK_CUR)


def _frames(image: Image.Image) -> str | None:
    """Return the number of frames of a file, as text, if it has more than one."""
    # MPO is a JPEG with previews or depth maps after the image.
    if image.format == "MPO":
        return None
    if image.format != "TIFF":
        count = getattr(image, "n_frames", 1)
        return f"{count} frames" if count > 1 else None
    # Counting the linked list of pages would read all of them.
    try:
        image.seek(1)
    except EOFError:
        return None
    return "several pages"
