"""Picture files to and from arrays: RGB float32 in [0, 1], shape [height, width, 3].

Only an allow-list of formats is ever opened, whatever a file's ending says, and
the number of pixels is checked from the header before anything is decoded.
Arrays hold sRGB values as files do (not linear light), as the networks expect.
"""

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import (
    Image,
    ImageCms,
    ImageOps,
    PngImagePlugin,
    UnidentifiedImageError,
)

from jaxstyle import files, png16
from jaxstyle.errors import JaxstyleError
from jaxstyle.files import StrPath

Array = npt.NDArray[np.float32]

# 40 megapixels is twice an A3 scan at 300 dpi and more than most cameras write, and
# decodes within 1.3 GB; a 50-megapixel bomb is refused.
MAX_PIXELS = 40_000_000
# Four poolings halve 16 px to 1: a smaller picture has no feature left in block 5.
MIN_SIDE = 16

# Pillow reads forty more formats; some (EPS, FITS, WMF) start other programs or are rarely tested.
READ_FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "AVIF", "BMP")
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
ALPHA_FORMATS = ("PNG", "TIFF", "WEBP", "AVIF")
"""What keeps an alpha channel."""
BIT_DEPTHS = (8, 16)
_LONGEST_SIDE = {"JPEG": 65_535, "WEBP": 16_383}
_SAVE_OPTIONS: dict[str, dict[str, object]] = {
    "PNG": {},
    # 4:4:4: halving the colour's resolution blurs the edges of brush strokes.
    "JPEG": {"quality": 95, "subsampling": 0, "optimize": True},
    "WEBP": {"quality": 95, "method": 4},
    "TIFF": {"compression": "tiff_deflate"},
    "BMP": {},
    # One thread: the bytes depend on how many there are.
    "AVIF": {"quality": 95, "subsampling": "4:4:4", "max_threads": 1},
}

# Pillow logs some oddities of a file as errors, which Python prints when nobody
# has set up logging; a person gets one line from us instead.
logging.getLogger("PIL").addHandler(logging.NullHandler())


def load_image(
    path: StrPath,
    *,
    argument: str = "image",
    max_pixels: int = MAX_PIXELS,
    first_frame: bool = False,
) -> Array:
    """Read a picture file as sRGB.

    EXIF orientation is applied. An embedded ICC profile is converted to sRGB; a
    broken one, or one that does not fit the pixels, is ignored. CMYK, palette and
    grayscale become RGB; 16-bit grayscale keeps its precision, 16-bit colour is read
    at 8 bit. Transparent pixels are laid over white, as on paper; see `load_with_alpha`.

    Args:
      path: a JPEG, PNG, TIFF, WebP, AVIF or BMP file.
      argument: how messages name the file, as in `content`.
      max_pixels: largest width × height accepted; checked before decoding.
      first_frame: take the first picture of an animated or multi-page file instead
        of refusing it. The further pictures some cameras append to a JPEG never count.

    Returns:
      Array [height, width, 3] float32 in [0, 1], both sides at least `MIN_SIDE`.

    Raises:
      JaxstyleError: missing, unreadable, not a picture of these formats, damaged,
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
    """Read a picture as `load_image` does, and its alpha channel.

    Returns:
      The picture over white [height, width, 3], and alpha [height, width] in [0, 1] (0 is
      transparent), None if the file has none or is opaque throughout.
    """
    named = f"{argument} {files.shown(path)}"
    files.check_readable(path, named, kind="picture file")
    with _quiet_pillow(max_pixels):
        try:
            with open(path, "rb") as stream:
                image = _open(stream, named)
                _check_header(image, named, max_pixels, first_frame)
                rgb, alpha = _decode(image)
        except (JaxstyleError, MemoryError):
            raise
        except Image.DecompressionBombError:
            raise JaxstyleError(
                f"{named} has far more than the {max_pixels} pixels accepted; make it smaller "
                "or raise --max-pixels"
            ) from None
        except Exception as error:
            # Decoders raise whatever a damaged file leads them to: OSError, SyntaxError,
            # struct.error, IndexError. All of them mean the same to the person.
            reason = files.reason(error)
            if not any(c.isalpha() for c in reason):  # libtiff's codes, as in OSError(-2)
                reason = f"decoder error {reason}".strip()
            raise JaxstyleError(
                f"{named} is damaged or cut short and cannot be decoded ({reason}); "
                f"get a fresh copy"
            ) from error
    if alpha is not None:
        # In place: a copy of 40 megapixels is half a gigabyte. rgb·a + 1 − a = (rgb − 1)·a + 1.
        rgb -= 1
        rgb *= alpha[..., None]
        rgb += 1
        if (alpha == 1).all():
            alpha = None
    return rgb, alpha


def read_text(path: StrPath, keyword: str, *, argument: str = "image") -> str | None:
    """Read what `save_image` wrote under a keyword of its `text`; None if there is no such thing.

    Only the head of a PNG file is read, no pixel is decoded.

    Raises:
      JaxstyleError: the file cannot be read or is not a PNG.
    """
    named = f"{argument}: {path}"
    files.check_readable(path, named, kind="picture file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=("PNG",)) as image:
                text = image.info.get(keyword)
    # The list of what Pillow raises on a damaged head.
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise JaxstyleError(f"{named} is not a whole PNG file; name one") from error
    return text if isinstance(text, str) else None


def fit(
    image: Array, longest_side: int, *, upscale: bool = False, min_side: int = MIN_SIDE
) -> Array:
    """Resize so that the longest side has `longest_side` pixels, keeping the aspect ratio.

    Args:
      image: [h, w, 3] in [0, 1].
      longest_side: pixels of the longer side of the result.
      upscale: enlarge a smaller picture too; without it such a picture is returned as it is.
      min_side: shortest side a resized picture may have.

    Returns:
      [h', w', 3] float32 in [0, 1]; each side within half a pixel of the exact ratio.

    Raises:
      JaxstyleError: the shorter side would fall under `min_side`.
    """
    new = fitted(image.shape[0], image.shape[1], longest_side, upscale=upscale, min_side=min_side)
    return image if new == image.shape[:2] else resize(image, *new)


def fitted(
    height: int, width: int, longest_side: int, *, upscale: bool = False, min_side: int = MIN_SIDE
) -> tuple[int, int]:
    """Give the height and width that `fit` makes of a picture's."""
    scale = longest_side / max(height, width)
    if scale == 1 or (scale > 1 and not upscale):
        return height, width
    new_height, new_width = max(1, round(height * scale)), max(1, round(width * scale))
    if min(new_height, new_width) < min_side:
        enough = -(-min_side * max(height, width) // min(height, width))
        raise JaxstyleError(
            f"size {longest_side} would make the {width}x{height} picture "
            f"{new_width}x{new_height}, and both sides need {min_side} pixels; "
            f"choose a size of {enough} or more"
        )
    return new_height, new_width


def resize(image: Array, height: int, width: int) -> Array:
    """Resample with a Lanczos filter in float precision, averaging when it shrinks.

    Args:
      image: [h, w, 3] in [0, 1].
      height: rows of the result, at least 1.
      width: columns of the result, at least 1.

    Returns:
      [height, width, 3] float32, clipped to [0, 1] as Lanczos overshoots at edges.

    Raises:
      ValueError: a side is below 1.
    """
    if height < 1 or width < 1:
        raise ValueError(f"cannot resize to {width}x{height}; both sides must be at least 1")
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
    return np.asarray(np.clip(np.stack(channels, axis=-1), 0, 1), np.float32)


def encode_image(
    array: npt.ArrayLike,
    format: str,
    *,
    text: Mapping[str, str] | None = None,
    alpha: npt.ArrayLike | None = None,
    bit_depth: int = 8,
) -> bytes:
    """Turn an array into the bytes of a picture file; the same array gives the same bytes.

    Values are clipped to [0, 1] and rounded to 8 bit, or 16 in a PNG. An sRGB profile is embedded
    except in BMP, which has no place for it. JPEG is written at quality 95 without
    chroma subsampling, so is AVIF, WebP at quality 95.

    Args:
      array: [h, w, 3] floats.
      format: a value of `WRITE_FORMATS`, as `format_of` returns it.
      text: keywords and values kept in a PNG's text chunks; other formats leave it out.
      alpha: [h, w] floats, 0 transparent and 1 opaque; formats outside `ALPHA_FORMATS` leave it
        out.
      bit_depth: bits a channel, 8 or 16.

    Raises:
      ValueError: the array has another shape or type, or holds NaN or infinity.
      JaxstyleError: the format cannot hold a side as long as this, or 16 bit.
    """
    values = np.asarray(array)
    if values.ndim != 3 or values.shape[-1] != 3 or 0 in values.shape:
        raise ValueError(f"a picture has shape [h, w, 3], got {values.shape}")
    if not np.issubdtype(values.dtype, np.floating):
        raise ValueError(f"a picture holds floats in [0, 1], got {values.dtype}")
    if not np.isfinite(values).all():
        raise ValueError("the picture holds NaN or infinity")
    height, width = values.shape[:2]
    longest = _LONGEST_SIDE.get(format)
    if longest is not None and max(height, width) > longest:
        raise JaxstyleError(
            f"a {format} file holds at most {longest} pixels a side, this picture is "
            f"{width}x{height}; write a .png"
        )
    options = dict(_SAVE_OPTIONS[format])
    if format != "BMP":
        options["icc_profile"] = _srgb_bytes()
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
        return png16.encode(
            np.rint(values.astype(np.float64) * 65535).astype(np.uint16),
            profile=_srgb_bytes(),
            text=text or {},
        )
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
    """Write `array` ([h, w, 3] in [0, 1]) whole or not at all, in the format of the path's ending.

    See `encode_image` for what is written and `files.write_atomically` for how.

    Raises:
      JaxstyleError: unknown ending, or the file cannot be written.
      ValueError: the array is not a picture.
    """
    format = format_of(path, argument=argument)
    data = encode_image(array, format, text=text, alpha=alpha, bit_depth=bit_depth)
    files.write_atomically(path, data, argument=argument)


def format_of(path: StrPath, *, argument: str = "output") -> str:
    """Name the format that a path's ending stands for, as in `"PNG"`.

    Raises:
      JaxstyleError: the ending is not in `WRITE_FORMATS`.
    """
    ending = Path(path).suffix
    try:
        return WRITE_FORMATS[ending.lower()]
    except KeyError:
        found = f"the ending {ending!r}, which is not written" if ending else "no ending"
        raise JaxstyleError(
            f"{argument} {files.shown(path)} has {found}; choose one of {', '.join(WRITE_FORMATS)}"
        ) from None


def check_bit_depth(bit_depth: int, format: str, *, argument: str = "bit_depth") -> None:
    """Raise if a format is not written with so many bits a channel.

    Raises:
      JaxstyleError: names `argument` and what is possible.
    """
    if bit_depth not in BIT_DEPTHS:
        raise JaxstyleError(f"{argument}: {bit_depth} bits a channel are not written; give 8 or 16")
    if bit_depth == 16 and format != "PNG":
        raise JaxstyleError(
            f"{argument}: 16 bits a channel are not written as {format}; write a .png"
        )


def check_output(path: StrPath, *, argument: str = "output") -> None:
    """Raise, before any long work, if `save_image` could not write to `path`.

    Raises:
      JaxstyleError: unknown ending, missing or unwritable folder, or a folder itself.
    """
    # The folder first: of `-o results` the person wants to hear that it is a folder.
    files.check_writable(path, argument=argument)
    format_of(path, argument=argument)


@contextlib.contextmanager
def _quiet_pillow(max_pixels: int) -> Iterator[None]:
    """Silence Pillow's warnings, and let its own bomb check follow `max_pixels`.

    Pillow's check stays on as a second one: it also covers what a decoder finds
    to be larger than the header said.
    """
    before = Image.MAX_IMAGE_PIXELS
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        Image.MAX_IMAGE_PIXELS = max_pixels
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


@contextlib.contextmanager
def _quiet_libtiff() -> Iterator[None]:
    """Drop what libtiff itself prints on standard error about a damaged file.

    It has no switch in Pillow. The descriptor is the whole process's, so this
    holds only while one TIFF decodes.
    """
    try:
        kept = os.dup(2)
    except OSError:  # closed, as under some servers: nothing to silence
        yield
        return
    try:
        sink = os.open(os.devnull, os.O_WRONLY)
        os.dup2(sink, 2)
        os.close(sink)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _open(stream: io.BufferedReader, named: str) -> Image.Image:
    """Read the header only."""
    try:
        return Image.open(stream, formats=READ_FORMATS)
    except UnidentifiedImageError:
        empty = os.fstat(stream.fileno()).st_size == 0
        what = "is an empty file" if empty else "is not a picture that can be read"
        raise JaxstyleError(
            f"{named} {what}; give a JPEG, PNG, TIFF, WebP, AVIF or BMP file"
        ) from None


def _check_header(image: Image.Image, named: str, max_pixels: int, first_frame: bool) -> None:
    """Refuse by size and number of frames, before any pixel is decoded."""
    width, height = image.size
    if width * height > max_pixels:
        raise JaxstyleError(
            f"{named} is {width}x{height}, {width * height / 1e6:.1f} megapixels, and at most "
            f"{max_pixels / 1e6:g} are accepted; make it smaller or raise --max-pixels"
        )
    if min(width, height) < MIN_SIDE:
        raise JaxstyleError(
            f"{named} is too small: {width}x{height} pixels, and both sides need {MIN_SIDE}"
        )
    # MPO is a JPEG with previews or depth maps behind the picture.
    frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
    if frames > 1 and not first_frame:
        raise JaxstyleError(
            f"{named} holds {frames} frames or pages; save the one you want as its own file "
            "or take the first with --first-frame"
        )


def _decode(image: Image.Image) -> tuple[Array, Array | None]:
    """Decode to sRGB [h, w, 3] and, where the file has one, alpha [h, w], in [0, 1]."""
    profile = image.info.get("icc_profile")
    with _quiet_libtiff() if image.format == "TIFF" else contextlib.nullcontext():
        image.load()
    # Orientation is a hint in metadata that is often broken; the picture is what counts.
    with contextlib.suppress(SyntaxError, ValueError, TypeError, KeyError, IndexError, OSError):
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith(("I", "F")):
        return _decode_deep(image, profile), None

    alpha: Array | None = None
    if image.has_transparency_data:
        image = image.convert("LA" if image.mode in ("L", "LA", "La") else "RGBA")
        alpha = _unit(image.getchannel("A"))
        image = image.convert(image.mode.removesuffix("A"))
    elif image.mode not in ("RGB", "L", "CMYK"):
        image = image.convert("L" if image.mode in ("1", "LA", "La") else "RGB")
    converted = _to_srgb(image, profile)
    return _unit(converted or image.convert("RGB")), alpha


def _decode_deep(image: Image.Image, profile: bytes | None) -> Array:
    """Decode grayscale of more than 8 bit, [h, w, 3] in [0, 1]."""
    # float32 holds 16 bit exactly.
    values = np.asarray(image).astype(np.float32)
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        gray: Array = values / np.float32(65_535)
    elif image.mode == "F" and values.min() >= 0 and values.max() <= 1:
        gray = values
    else:
        raise ValueError("32-bit pixels have no fixed range, save it with 8 or 16 bit")
    ramp = Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    curve = _to_srgb(ramp, profile)
    if curve is None:
        return np.repeat(gray[..., None], 3, axis=-1)
    # The colour engine takes 8 bit here: convert a ramp and interpolate in it.
    levels = _unit(curve)[0]
    knots = np.linspace(0, 1, 256)
    rgb = np.empty((*gray.shape, 3), np.float32)
    for c in range(3):
        rgb[..., c] = np.interp(gray, knots, levels[:, c])
    return rgb


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image | None:
    """Convert L, RGB or CMYK pixels to sRGB; None where the profile is absent, sRGB or unfit."""
    if not profile or _undated(profile) == _srgb_bytes():
        return None
    try:
        return ImageCms.profileToProfile(
            image,
            ImageCms.ImageCmsProfile(io.BytesIO(profile)),
            ImageCms.ImageCmsProfile(io.BytesIO(_srgb_bytes())),
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            outputMode="RGB",
            # Without it the shadows of a CMYK picture all clip to one black.
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None


def _srgb_bytes() -> bytes:
    """The sRGB profile, without the date at which it was made."""
    return _undated(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())


def _undated(profile: bytes) -> bytes:
    """Set the creation date (header bytes 24 to 35) to 1 January 2000, for equal bytes."""
    date = b"".join(part.to_bytes(2, "big") for part in (2000, 1, 1, 0, 0, 0))
    return profile[:24] + date + profile[36:]


def _unit(image: Image.Image) -> Array:
    """8-bit pixels as float32 in [0, 1]."""
    values = np.asarray(image).astype(np.float32)
    values /= 255
    return values
