"""TIFF files by `tifffile`: reading gray and RGB of 8 or 16 bits in every layout, writing 16 bits.

`tifffile` is imported where it is used, as most commands read no TIFF.
"""

import io
import logging
import math
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

# Damaged files raise an exception; `tifffile` would also log them.
logging.getLogger("tifffile").addHandler(logging.NullHandler())
# Photometric interpretations.
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB = 0, 1, 2
_GRAY = (_WHITE_IS_ZERO, _BLACK_IS_ZERO)
_SEPARATE = 2
"""Planar configuration with one plane per channel."""
_LOSSY = (6, 7, 34712, 50001)
"""JPEG, JPEG 2000 and WebP, which Pillow reads."""
_PREMULTIPLIED, _STRAIGHT = 1, 2
_ORIENTATION, _PROFILE = 274, 34675
# TIFF 6.0, page 36: whether it is mirrored, and quarter turns counterclockwise after that.
_TURNS = {
    1: (False, 0), 2: (True, 0), 3: (False, 2), 4: (True, 2),
    5: (True, 1), 6: (False, 3), 7: (True, 3), 8: (False, 1),
}  # fmt: skip


class UnsupportedDepthError(ValueError):
    """More than 8 bits per channel in a color space that is read at 8 bits only."""


def read(stream: BinaryIO, size: tuple[int, int]) -> tuple[np.ndarray, bytes | None] | None:
    """Return the first page of a TIFF file, upright, and its ICC profile.

    Args:
      stream: the file.
      size: width and height from the header, whose number of pixels has been checked.

    Returns:
      Samples `[h, w, 1 to 4]` of type uint8 or uint16, and the ICC profile or None. The samples are
      gray or RGB, with unassociated alpha if there are 2 or 4 channels. None for files that Pillow
      reads: 8-bit palettes, CMYK, JPEG and others, and gray of other bit depths.

    Raises:
      UnsupportedDepthError: 16 bits in a color space that Pillow reads.
      Exception: any exception, for a damaged file.
    """
    import tifffile

    stream.seek(0, io.SEEK_END)
    length = stream.tell()
    stream.seek(0)
    with tifffile.TiffFile(stream) as file:
        page = file.pages.first
        assert isinstance(page, tifffile.TiffPage)
        kind = page.photometric
        has_bytes = page.dtype in (np.uint8, np.uint16) and page.bitspersample in (8, 16)
        readable = kind in _GRAY or kind == _RGB
        if not has_bytes or not readable or page.compression in _LOSSY:
            if page.bitspersample == 16 and not readable:
                raise UnsupportedDepthError("16 bits a channel are read of gray and RGB only")
            return None
        colors = 1 if kind in _GRAY else 3
        width, height = page.imagewidth, page.imagelength
        count = width * height * page.samplesperpixel
        # Pillow's size is that of the upright image.
        if {width, height} != set(size) or page.imagedepth != 1:
            raise ValueError("its tags contradict each other")
        # The memory of a decoded segment is allocated before its bytes are read.
        if math.prod(page.chunks) > 2 * count + 2**22:
            raise ValueError("a strip or tile is larger than the image")
        segments = list(zip(page.dataoffsets, page.databytecounts, strict=True))
        if len(segments) < math.prod(page.chunked) or any(o + n > length for o, n in segments):
            raise ValueError("its end is missing")
        samples = page.asarray(maxworkers=1)
        if page.planarconfig == _SEPARATE and page.samplesperpixel > 1:
            samples = np.moveaxis(samples.reshape(-1, height, width), 0, -1)
        samples = samples.reshape(height, width, -1)
        if samples.shape[-1] < colors or samples.size != count:
            raise ValueError("it has fewer samples than its tags say")
        if kind == _WHITE_IS_ZERO:
            samples = np.concatenate(
                [np.iinfo(samples.dtype).max - samples[..., :1], samples[..., 1:]], -1
            )
        extra = int(page.extrasamples[0]) if page.extrasamples else 0
        with_alpha = extra in (_PREMULTIPLIED, _STRAIGHT) and samples.shape[-1] > colors
        samples = samples[..., : colors + with_alpha]
        if with_alpha and extra == _PREMULTIPLIED:
            samples = _unpremultiplied(samples)
        mirrored, turns = _TURNS.get(_tag(page, _ORIENTATION), (False, 0))
        if mirrored:
            samples = samples[:, ::-1]
        profile = _tag(page, _PROFILE)
        samples = np.ascontiguousarray(np.rot90(samples, turns))
        return samples, profile if isinstance(profile, bytes) else None


def encode(pixels: np.ndarray, *, profile: bytes) -> bytes:
    """Return the bytes of a TIFF compressed by deflate; equal pixels give equal bytes.

    Args:
      pixels: RGB or RGBA `[h, w, 3 or 4]`, uint16.
      profile: ICC profile.
    """
    import tifffile

    buffer = io.BytesIO()
    tifffile.imwrite(
        buffer,
        pixels,
        photometric="rgb",
        extrasamples=["unassalpha"] if pixels.shape[-1] == 4 else None,
        compression="zlib",
        predictor=True,
        rowsperstrip=max(1, 2**18 // pixels[0].nbytes),
        iccprofile=profile,
        resolution=(72, 72),
        resolutionunit="inch",
        metadata=None,
        software=False,
        byteorder="<",
        # One thread, so that the bytes do not depend on the machine.
        maxworkers=1,
    )
    return buffer.getvalue()


def as_image(samples: np.ndarray, profile: bytes | None) -> Image.Image:
    """Return 8-bit samples as a Pillow image."""
    image = Image.fromarray(samples[..., 0] if samples.shape[-1] == 1 else samples)
    if profile:
        image.info["icc_profile"] = profile
    return image


def _unpremultiplied(samples: np.ndarray) -> np.ndarray:
    """Return samples with premultiplied colors divided by alpha."""
    most = np.iinfo(samples.dtype).max
    alpha = samples[..., -1:].astype(np.float64)
    colors = np.rint(np.minimum(samples[..., :-1] * (most / np.maximum(alpha, 1)), most))
    return np.concatenate([colors.astype(samples.dtype), samples[..., -1:]], -1)


def _tag(page: Any, code: int) -> Any:
    tag = page.tags.get(code)
    return None if tag is None else tag.value
