"""Conversion of an opened image to arrays: orientation, color modes, precision, alpha."""

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from jaxstyle.images.array import Array
from jaxstyle.images.color_profile import is_srgb, to_srgb
from jaxstyle.images.deep import is_deep, is_deep_gray, name_of, select_all_bytes, select_low_bytes

# TIFF 6.0, section 8.
_BITS_PER_SAMPLE, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0


class Unsupported(ValueError):
    """An undamaged image of an unsupported kind."""


def decode(image: Image.Image, open_again: Callable[[], Image.Image]) -> tuple[Array, Array | None]:
    """Return sRGB `[h, w, 3]` and alpha `[h, w]` in [0, 1]; alpha is None if there is none.

    Args:
      image: opened image, not decoded yet.
      open_again: opens the same image again, after `image` has been decoded.
    """
    gamma = _gamma(image)
    if gamma is None:
        return _decode(image, open_again, image.info.get("icc_profile"))
    rgb, alpha = _decode(image, open_again, None)
    return _encoded(rgb, gamma), alpha


def decode_samples(samples: np.ndarray, profile: bytes | None) -> tuple[Array, Array | None]:
    """Return upright 16-bit samples `[h, w, 1 to 4]` (`tiff.read`) as `decode` does."""
    values = _unit(samples, 65_535)
    alpha = np.ascontiguousarray(values[..., -1]) if values.shape[-1] in (2, 4) else None
    if values.shape[-1] < 3:
        return _in_srgb(values[..., 0], profile), alpha
    rgb = np.ascontiguousarray(values[..., :3])
    if not is_srgb(profile):
        # The color engine works with 8 bits.
        low = Image.fromarray(np.rint(rgb * 255).astype(np.uint8))
        converted = to_srgb(low, profile)
        rgb = rgb if converted is None else _unit(converted)
    return rgb, alpha


def _gamma(image: Image.Image) -> float | None:
    """Return the exponent of a PNG's gAMA chunk, or None if it is that of sRGB."""
    gamma = image.info.get("gamma")
    # By the specification iCCP and sRGB override gAMA.
    if image.format != "PNG" or not gamma or {"icc_profile", "srgb"} & set(image.info):
        return None
    # sRGB files have 0.45455.
    return gamma if abs(gamma * 2.2 - 1) > 0.05 and 0.1 < gamma < 10 else None


def _encoded(rgb: Array, gamma: float) -> Array:
    """Return sRGB values (IEC 61966-2-1) of values that are light to the power of `gamma`."""
    light = rgb ** np.float32(1 / gamma)
    curve = 1.055 * np.power(light, 1 / 2.4, dtype=np.float32) - 0.055
    return np.where(light <= 0.0031308, 12.92 * light, curve).astype(np.float32)


def _decode(
    image: Image.Image, open_again: Callable[[], Image.Image], profile: bytes | None
) -> tuple[Array, Array | None]:
    if is_deep_gray(image):
        select_all_bytes(image)
        pairs = _unit(np.asarray(_upright(image)).view(">u2"), 65_535)
        return _in_srgb(pairs[..., 0], profile), np.ascontiguousarray(pairs[..., 1])
    deep, key = is_deep(image), image.info.get("transparency")
    _scale_key(image)
    # Before the rotation, which drops the tags.
    tags = getattr(image, "tag_v2", {})
    image = _upright(image)
    # The color engine works with 8 bits, in which a transparent color of 16 bits is not unique.
    if deep and (is_srgb(profile) or key is not None):
        low = open_again()
        select_low_bytes(low)
        rgb, alpha = _joined(image, _upright(low))
        if key is not None:
            alpha = (np.rint(rgb * 65_535) != key).any(-1).astype(np.float32)
        if is_srgb(profile):
            return rgb, alpha
        image.info.pop("transparency", None)
        return _unit(to_srgb(image, profile) or image), alpha
    if image.mode.startswith(("I", "F")):
        opaque = (np.asarray(image) != key).astype(np.float32) if isinstance(key, int) else None
        return _gray(image, tags, profile), opaque

    alpha = None
    if image.has_transparency_data:
        image = image.convert("LA" if image.mode in ("L", "LA", "La") else "RGBA")
        alpha = _unit(image.getchannel("A"))
        image = image.convert(image.mode.removesuffix("A"))
    elif image.mode not in ("RGB", "L", "CMYK"):
        image = image.convert("L" if image.mode in ("1", "LA", "La") else "RGB")
    converted = to_srgb(image, profile)
    return _unit(converted or image.convert("RGB")), alpha


def _scale_key(image: Image.Image) -> None:
    """Scale a transparent gray of 2 or 4 bits to the 8 bits of decoded pixels."""
    key, tiles = image.info.get("transparency"), getattr(image, "tile", [])
    factor = {"L;2": 85, "L;4": 17}.get(name_of(tiles[0]) if tiles else "")
    if isinstance(key, int) and factor:
        image.info["transparency"] = key * factor


def _upright(image: Image.Image) -> Image.Image:
    """Return the decoded image, rotated as its EXIF orientation says."""
    image.load()
    # The orientation is in metadata that is often broken, which must not prevent reading.
    with contextlib.suppress(SyntaxError, ValueError, TypeError, KeyError, IndexError, OSError):
        image = ImageOps.exif_transpose(image)
    return image


def _joined(high: Image.Image, low: Image.Image) -> tuple[Array, Array | None]:
    """Return RGB and alpha from the high and the low bytes of 16-bit samples."""
    values = np.asarray(high).astype(np.float32)
    # In place: 40 megapixels are half a gigabyte. float32 represents 16 bits exactly.
    values *= 256
    values += np.asarray(low)
    values /= 65_535
    if values.shape[-1] == 3:
        return values, None
    return np.ascontiguousarray(values[..., :3]), np.ascontiguousarray(values[..., 3])


def _gray(image: Image.Image, tags: Mapping[int, Any], profile: bytes | None) -> Array:
    """Return gray of more than 8 bits as `[h, w, 3]` in [0, 1]."""
    # float32 represents 16 bits exactly.
    values = np.asarray(image).astype(np.float32)
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        bits = min(16, *tags.get(_BITS_PER_SAMPLE, (16,)))
        gray: Array = values / np.float32(2**bits - 1)
        if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
            gray = 1 - gray
    elif image.mode == "F" and values.min() >= 0 and values.max() <= 1:
        gray = values
    else:
        raise Unsupported("pixels of 32 bits or with a sign have no fixed range")
    return _in_srgb(gray, profile)


def _in_srgb(gray: Array, profile: bytes | None) -> Array:
    """Return gray `[h, w]` of any precision as sRGB `[h, w, 3]`."""
    ramp = Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    curve = to_srgb(ramp, profile)
    if curve is None:
        return np.repeat(gray[..., None], 3, axis=-1)
    # The color engine works with 8 bits: convert a ramp and interpolate.
    levels = _unit(curve)[0]
    knots = np.linspace(0, 1, 256)
    rgb = np.empty((*gray.shape, 3), np.float32)
    for c in range(3):
        rgb[..., c] = np.interp(gray, knots, levels[:, c])
    return rgb


def _unit(samples: Any, most: int = 255) -> Array:
    """Return samples from 0 to `most`, of up to 16 bits, as float32 in [0, 1]."""
    values = np.asarray(samples).astype(np.float32)
    values /= most
    return values
