"""Color profiles: images in memory and in written files are sRGB."""

import io

from PIL import Image, ImageCms


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image | None:
    """Convert L, RGB or CMYK pixels to sRGB; None where the profile is absent, sRGB or unfit."""
    if not profile or is_srgb(profile):
        return None
    try:
        return ImageCms.profileToProfile(
            image,
            ImageCms.ImageCmsProfile(io.BytesIO(profile)),
            ImageCms.ImageCmsProfile(io.BytesIO(srgb_bytes())),
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            outputMode="RGB",
            # Without it the shadows of a CMYK image all clip to one black.
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None


def is_srgb(profile: bytes | None) -> bool:
    """Whether pixels with this profile, or with none, are sRGB as they stand."""
    return not profile or _undated(profile) == srgb_bytes()


def srgb_bytes() -> bytes:
    """Return the sRGB profile without its date, so that equal images are equal files."""
    return _undated(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())


def _undated(profile: bytes) -> bytes:
    """Set the creation date (header bytes 24 to 35) to 1 January 2000, for equal bytes."""
    date = b"".join(part.to_bytes(2, "big") for part in (2000, 1, 1, 0, 0, 0))
    return profile[:24] + date + profile[36:]
