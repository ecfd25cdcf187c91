"""Color profiles: images in memory and in written files are sRGB."""

import io

from PIL import Image, ImageCms


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image | None:
    """Return L, RGB or CMYK pixels converted to sRGB.

    None if there is no profile, or it is sRGB's or does not fit the pixels.
    """
    if not profile or is_srgb(profile):
        return None
    try:
        return ImageCms.profileToProfile(
            image,
            ImageCms.ImageCmsProfile(io.BytesIO(profile)),
            ImageCms.ImageCmsProfile(io.BytesIO(srgb_bytes())),
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            outputMode="RGB",
            # Otherwise the shadows of a CMYK image are clipped to black.
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None


def is_srgb(profile: bytes | None) -> bool:
    """Return whether pixels with this profile are sRGB; without a profile they are."""
    return not profile or _undated(profile) == srgb_bytes()


def srgb_bytes() -> bytes:
    """Return the sRGB profile without its date, so that equal images are equal files."""
    return _undated(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())


def _undated(profile: bytes) -> bytes:
    """Return a profile with the creation date (header bytes 24 to 35) set to 1 January 2000."""
    date = b"".join(part.to_bytes(2, "big") for part in (2000, 1, 1, 0, 0, 0))
    return profile[:24] + date + profile[36:]
