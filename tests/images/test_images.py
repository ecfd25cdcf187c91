"""Image files of every kind this reads, made here, and what must be refused."""

import io
import os
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from jaxstyle import images
from jaxstyle.errors import JaxstyleError
from jaxstyle.images import sheets

SEEDS = st.integers(0, 2**32 - 1)


def _pixels(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def _save(folder: Path, image: Image.Image, name: str = "in.png", **options: Any) -> Path:
    path = folder / name
    image.save(path, **options)
    return path


def _bytes(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def _refused(path: Path, *words: str, **options: Any) -> None:
    """Loading fails with one line that names the argument, the file and `words`; no warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(JaxstyleError) as caught:
            images.load_image(path, argument="content", **options)
    message = str(caught.value)
    assert "\n" not in message and message.startswith("content ") and repr(str(path)) in message
    for word in words:
        assert word in message


# What is read.


@pytest.mark.parametrize("ending", ["png", "tiff", "webp", "avif"])
def test_alpha_is_kept_where_the_format_has_it(tmp_path: Path, ending: str) -> None:
    pixels = _pixels(20, 24, 4)
    pixels[..., 3] = np.arange(24) * 10
    path = _save(tmp_path, Image.fromarray(pixels, "RGBA"))
    rgb, alpha = images.load_with_alpha(path)
    assert alpha is not None
    np.testing.assert_array_equal(np.rint(alpha * 255), pixels[..., 3])
    out = tmp_path / f"out.{ending}"
    images.save_image(out, rgb, alpha=alpha)
    with Image.open(out) as image:
        assert image.mode == "RGBA"
        kept = np.asarray(image.getchannel("A"), float)
    np.testing.assert_allclose(kept, pixels[..., 3], atol=0 if ending in ("png", "tiff") else 6)
    images.save_image(tmp_path / "out.jpg", rgb, alpha=alpha)
    with Image.open(tmp_path / "out.jpg") as image:
        assert image.mode == "RGB"


def test_an_opaque_alpha_is_none(tmp_path: Path) -> None:
    path = _save(tmp_path, Image.new("RGBA", (20, 20), (1, 2, 3, 255)))
    assert images.load_with_alpha(path)[1] is None


@pytest.mark.parametrize("with_alpha", [False, True])
def test_16_bit_png_by_an_independent_reader(tmp_path: Path, with_alpha: bool) -> None:
    rng = np.random.default_rng(0)
    rgb, alpha = rng.random((21, 17, 3)), rng.random((21, 17))
    alpha[0, 0] = 0.5
    path = tmp_path / "deep.png"
    images.save_image(
        path, rgb, alpha=alpha if with_alpha else None, bit_depth=16, text={"key": "value"}
    )
    data, chunks, at = path.read_bytes(), {}, 8
    while at < len(data):
        size, name = struct.unpack(">I4s", data[at : at + 8])
        body = data[at + 8 : at + 8 + size]
        (checksum,) = struct.unpack(">I", data[at + 8 + size : at + 12 + size])
        assert checksum == zlib.crc32(name + body)
        chunks[name], at = body, at + 12 + size
    channels = 4 if with_alpha else 3
    color_type = 6 if with_alpha else 2
    assert chunks[b"IHDR"] == struct.pack(">IIBBBBB", 17, 21, 16, color_type, 0, 0, 0)
    rows = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(21, -1)
    assert (rows[:, 0] == 2).all()
    bytes_ = np.cumsum(rows[:, 1:].astype(np.int64), axis=0).astype(np.uint8)
    values = bytes_.reshape(21, 17, channels, 2).astype(int)
    values = values[..., 0] * 256 + values[..., 1]
    np.testing.assert_array_equal(values[..., :3], np.rint(rgb * 65535))
    if with_alpha:
        np.testing.assert_array_equal(values[..., 3], np.rint(alpha * 65535))
    # And Pillow, which reads it at 8 bit.
    with Image.open(path) as image:
        image.load()
        assert image.size == (17, 21) and image.mode == ("RGBA" if with_alpha else "RGB")
        assert image.info["key"] == "value" and "icc_profile" in image.info
        np.testing.assert_allclose(np.asarray(image)[..., :3], rgb * 255, atol=1)


@pytest.mark.parametrize("with_alpha", [False, True])
def test_16_bit_tiff_by_an_independent_reader(tmp_path: Path, with_alpha: bool) -> None:
    rng = np.random.default_rng(0)
    # Several strips, the last one shorter.
    rgb, alpha = rng.random((301, 201, 3)), rng.random((301, 201))
    path = tmp_path / "deep.tiff"
    images.save_image(path, rgb, alpha=alpha if with_alpha else None, bit_depth=16)
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        assert page.dtype == np.uint16 and len(page.dataoffsets) > 1
        expected = np.concatenate([rgb, alpha[..., None]], -1) if with_alpha else rgb
        np.testing.assert_array_equal(page.asarray(), np.rint(expected * 65535))
        assert page.tags["InterColorProfile"].value[36:40] == b"acsp"
    with Image.open(path) as image:
        assert image.mode == ("RGBA" if with_alpha else "RGB")
        np.testing.assert_allclose(np.asarray(image)[..., :3], rgb * 255, atol=1)


def test_16_bit_is_for_png_and_tiff() -> None:
    for format, depth in (("JPEG", 16), ("AVIF", 16), ("PNG", 12)):
        with pytest.raises(JaxstyleError, match="bit_depth"):
            images.encode_image(np.zeros((16, 16, 3)), format, bit_depth=depth)


@settings(max_examples=25, deadline=None)
@given(height=st.integers(16, 40), width=st.integers(16, 40), seed=SEEDS)
def test_a_png_comes_back_exactly(
    tmp_path_factory: pytest.TempPathFactory, height: int, width: int, seed: int
) -> None:
    path = tmp_path_factory.mktemp("png") / "out.png"
    pixels = _pixels(height, width, seed=seed)
    images.save_image(path, pixels.astype(np.float32) / 255)
    again = images.load_image(path)
    assert again.dtype == np.float32 and again.shape == (height, width, 3)
    np.testing.assert_array_equal(np.rint(again * 255).astype(np.uint8), pixels)
    np.testing.assert_array_equal(again, pixels.astype(np.float32) / np.float32(255))


@pytest.mark.parametrize(
    ("name", "tolerance"),
    [
        ("a.png", 0),
        ("a.BMP", 0),
        ("a.tif", 0),
        ("a.tiff", 0),
        ("a.jpg", 0.03),
        ("a.jpeg", 0.03),
        ("a.webp", 0.06),
    ],
)
def test_every_written_format_is_read(tmp_path: Path, name: str, tolerance: float) -> None:
    y, x = np.mgrid[0:40, 0:50] / 50
    img = np.rint(np.stack([x, y, (x + y) / 2], axis=-1) * 255).astype(np.float32) / 255
    images.save_image(tmp_path / name, img)
    assert np.abs(images.load_image(tmp_path / name) - img).max() <= tolerance
    with Image.open(tmp_path / name) as image:
        profile = image.info.get("icc_profile")
    assert (profile is None) == name.endswith("BMP")
    if profile:
        named = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        assert "sRGB" in ImageCms.getProfileDescription(named)


def test_avif_is_read(tmp_path: Path) -> None:
    path = _save(tmp_path, Image.new("RGB", (32, 20), (200, 100, 50)), "a.avif", quality=100)
    image = images.load_image(path)
    assert image.shape == (20, 32, 3)
    np.testing.assert_allclose(image[10, 10] * 255, [200, 100, 50], atol=3)


def test_the_ending_does_not_decide_what_is_read(tmp_path: Path) -> None:
    path = tmp_path / "really-a-png.jpg"
    path.write_bytes(_bytes(Image.new("RGB", (20, 20), "red")))
    np.testing.assert_array_equal(images.load_image(path)[0, 0], [1, 0, 0])


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["png", "tif", "jpg", "webp", "avif"])
def test_exif_orientation(tmp_path: Path, orientation: int, ending: str) -> None:
    # Red top left, green top right, blue bottom left, white bottom right, as the eye sees it.
    upright = np.zeros((32, 48, 3), np.uint8)
    upright[:16, :24], upright[:16, 24:] = (255, 0, 0), (0, 255, 0)
    upright[16:, :24], upright[16:, 24:] = (0, 0, 255), (255, 255, 255)
    transposed = np.swapaxes(upright, 0, 1)
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: transposed,
        6: transposed[::-1],
        7: transposed[::-1, ::-1],
        8: transposed[:, ::-1],
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {} if ending in ("png", "tif") else {"quality": 100}
    image = Image.fromarray(np.ascontiguousarray(stored))
    img = images.load_image(_save(tmp_path, image, f"in.{ending}", exif=exif, **options))
    assert img.shape == upright.shape
    for y, x in ((6, 6), (6, 42), (26, 6), (26, 42)):
        np.testing.assert_allclose(img[y, x], upright[y, x] / 255, atol=0.06)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_broken_exif_is_ignored(tmp_path: Path) -> None:
    image = Image.fromarray(_pixels(20, 30))
    path = _save(tmp_path, image, exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\x01\x12" * 9)
    assert images.load_image(path).shape == (20, 30, 3)


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "PA", "CMYK", "YCbCr", "RGB"])
@pytest.mark.parametrize("ending", ["png", "tif", "jpg", "webp", "bmp"])
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str, ending: str) -> None:
    image = Image.new("RGB", (24, 20), (255, 255, 255))
    image.paste((0, 0, 0), (0, 0, 12, 20))
    try:
        path = _save(tmp_path, image.convert(mode), f"in.{ending}")
    except OSError:
        pytest.skip(f"{ending} cannot hold {mode}")
    try:
        Image.open(path).load()
    except OSError:  # YCbCr in TIFF before Pillow 13
        pytest.skip(f"this Pillow cannot read {mode} in {ending} that it has written")
    img = images.load_image(path)
    assert img.shape == (20, 24, 3)
    np.testing.assert_allclose(img[:, 2:9], 0, atol=0.05)
    np.testing.assert_allclose(img[:, 15:], 1, atol=0.05)


def test_cmyk_palette_and_gray_values(tmp_path: Path) -> None:
    red = (255, 0, 0)
    cmyk = Image.new("CMYK", (20, 20), (0, 255, 255, 0))
    for name in ("c.tif", "c.jpg"):
        image = images.load_image(_save(tmp_path, cmyk, name))
        np.testing.assert_allclose(image[5, 5], [1, 0, 0], atol=0.02)
    palette = Image.new("RGB", (20, 20), red).quantize(4)
    np.testing.assert_array_equal(images.load_image(_save(tmp_path, palette))[5, 5], [1, 0, 0])
    gray = Image.new("L", (20, 20), 51)
    np.testing.assert_allclose(images.load_image(_save(tmp_path, gray))[5, 5], [0.2] * 3, rtol=1e-6)


@pytest.mark.parametrize("alpha", [0, 51, 255])
def test_transparency_lies_over_white(tmp_path: Path, alpha: int) -> None:
    for mode, value in (("RGBA", (255, 0, 0, alpha)), ("LA", (0, alpha))):
        image = images.load_image(_save(tmp_path, Image.new(mode, (20, 20), value)))
        top = np.array([1.0, 0, 0]) if mode == "RGBA" else np.zeros(3)
        expected = alpha / 255 * top + (1 - alpha / 255)
        np.testing.assert_allclose(image[3, 3], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("mode", "key"), [("P", 0), ("L", 7), ("RGB", (7, 7, 7)), ("1", 0), ("I;16", 777)]
)
def test_a_transparent_color_lies_over_white(tmp_path: Path, mode: str, key: Any) -> None:
    value: Any = key
    path = _save(tmp_path, Image.new(mode, (20, 20), value), transparency=key)
    np.testing.assert_array_equal(images.load_image(path), 1)


@pytest.mark.parametrize(("mode", "ending"), [("I;16", "png"), ("I;16", "tif"), ("I;16B", "tif")])
def test_16_bit_gray_keeps_its_precision(tmp_path: Path, mode: str, ending: str) -> None:
    values = np.arange(400, dtype=np.uint16).reshape(20, 20) * 164
    order = ">u2" if mode == "I;16B" else "<u2"
    image = Image.frombytes(mode, (20, 20), values.astype(order).tobytes())
    img = images.load_image(_save(tmp_path, image, f"in.{ending}"))
    for channel in range(3):
        np.testing.assert_allclose(img[..., channel], values / 65_535, atol=1e-6)


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def _png(width: int, height: int, depth: int, kind: int, data: bytes, before: bytes = b"") -> bytes:
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0))
    body = before + _chunk(b"IDAT", zlib.compress(data)) + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + body


@pytest.mark.parametrize(("kind", "channels"), [(2, 3), (4, 2), (6, 4)])
def test_16_bit_color_and_alpha_are_read(tmp_path: Path, kind: int, channels: int) -> None:
    row = b"\0" + struct.pack(">H", 0x8080) * (20 * channels)
    (tmp_path / "deep.png").write_bytes(_png(20, 20, 16, kind, row * 20))
    value = 0x80 / 255
    expected = value if channels == 3 else value * value + 1 - value
    np.testing.assert_allclose(images.load_image(tmp_path / "deep.png"), expected, atol=1e-5)


def test_16_bit_gray_with_alpha_comes_back_exactly(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 65_536, (18, 25, 2), dtype=np.uint16)
    rows = b"".join(b"\0" + line.astype(">u2").tobytes() for line in values)
    path = tmp_path / "deep.png"
    path.write_bytes(_png(25, 18, 16, 4, rows))
    gray, expected = np.moveaxis(values / np.float32(65_535), -1, 0)
    rgb, alpha = images.load_with_alpha(path)
    assert alpha is not None
    np.testing.assert_array_equal(alpha, expected)
    for channel in range(3):
        np.testing.assert_allclose(rgb[..., channel], (gray - 1) * alpha + 1, atol=2**-23)
    # Its profile too: linear light here, a curve that is interpolated.
    profile = b"p\0\0" + zlib.compress(_gray_profile(gamma=1.0))
    chunk = _chunk(b"iCCP", profile)
    pixel = struct.pack(">HH", 0x4000, 0xFFFF)
    path.write_bytes(_png(20, 20, 16, 4, (b"\0" + pixel * 20) * 20, chunk))
    np.testing.assert_allclose(images.load_image(path), 0.537, atol=0.005)


@pytest.mark.parametrize("ending", ["png", "tiff"])
@pytest.mark.parametrize("with_alpha", [False, True])
def test_16_bit_color_comes_back_exactly(tmp_path: Path, ending: str, with_alpha: bool) -> None:
    values = np.random.default_rng(0).integers(0, 65_536, (21, 17, 4)).astype(np.float32)
    values[0, 0] = 0
    values[0, 1] = 65_535
    path = tmp_path / f"deep.{ending}"
    unit = values / np.float32(65_535)
    images.save_image(path, unit[..., :3], alpha=unit[..., 3] if with_alpha else None, bit_depth=16)
    rgb, alpha = images.load_with_alpha(path)
    if with_alpha:
        np.testing.assert_array_equal(alpha, unit[..., 3])
        over_white = (unit[..., :3] - 1) * unit[..., 3:] + 1
        np.testing.assert_allclose(rgb, over_white, atol=2**-23)
    else:
        np.testing.assert_array_equal(rgb, unit[..., :3])
        assert alpha is None


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(
    "kind",
    [
        {},
        {"compression": "lzw"},
        {"compression": "adobe_deflate"},
        {"compression": "adobe_deflate", "predictor": True},
        {"compression": "adobe_deflate", "tile": (16, 16)},
        {"tile": (16, 16)},
    ],
    ids=["plain", "lzw", "deflate", "predictor", "deflate tiles", "tiles"],
)
def test_16_bit_tiff_of_every_layout(tmp_path: Path, order: str, kind: dict[str, Any]) -> None:
    values = np.random.default_rng(0).integers(0, 65_536, (37, 50, 3), dtype=np.uint16)
    path = tmp_path / "deep.tif"
    tifffile.imwrite(path, values, photometric="rgb", byteorder=order, **kind)
    np.testing.assert_array_equal(
        images.load_image(path), values.astype(np.float32) / np.float32(65_535)
    )


@pytest.mark.parametrize("compression", [None, "zlib", "lzw", "packbits"])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("extra", [None, "unassalpha", "assocalpha", "unspecified"])
def test_planes_and_further_samples_of_a_tiff(
    tmp_path: Path, compression: str | None, bits: int, extra: str | None
) -> None:
    """One plane a channel gives the same as channels beside each other, and the right values."""
    most, path = 2**bits - 1, tmp_path / "in.tif"
    values = np.random.default_rng(0).integers(0, most, (37, 50, 4), dtype=f"u{bits // 8}")
    values[..., :3] = np.minimum(values[..., :3], values[..., 3:])
    values = values if extra else values[..., :3]
    given: dict[str, Any] = {"extrasamples": [extra]} if extra else {}
    rgb, alpha = values[..., :3] / most, values[..., 3:] / most
    if extra == "unassalpha":
        rgb = rgb * alpha + 1 - alpha
    elif extra == "assocalpha":
        rgb = rgb + 1 - alpha
    for planar in ("contig", "separate"):
        laid = np.moveaxis(values, -1, 0) if planar == "separate" else values
        tifffile.imwrite(
            path, laid, photometric="rgb", planarconfig=planar, compression=compression, **given
        )
        if (extra, bits, planar, compression) == ("unspecified", 8, "separate", None):
            # Pillow, which reads the header, does not know it.
            _refused(path, "of a kind that is not read")
            continue
        np.testing.assert_allclose(images.load_image(path), rgb, atol=1.5 / most)


def test_16_bits_of_other_colors_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "cmyk.tif"
    tifffile.imwrite(path, np.zeros((20, 20, 4), np.uint16), photometric="separated")
    _refused(path, "16 bits", "RGB")


def test_threads_read_without_state_of_the_process(tmp_path: Path) -> None:
    path = _save(tmp_path, Image.fromarray(_pixels(64, 64)), "in.tif", compression="tiff_lzw")
    before = Image.MAX_IMAGE_PIXELS, os.fstat(2), list(warnings.filters)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(images.load_image, [path] * 40))
    assert all((image == found[0]).all() for image in found)
    assert (Image.MAX_IMAGE_PIXELS, os.fstat(2), list(warnings.filters)) == before


def test_a_large_compressed_comment_is_no_damage(tmp_path: Path) -> None:
    comment = _chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(2_000_000)))
    path = tmp_path / "in.png"
    for before in (comment, comment * 2):
        path.write_bytes(_png(20, 20, 8, 2, (b"\0" + bytes([51]) * 60) * 20, before))
        np.testing.assert_allclose(images.load_image(path), 0.2, atol=1e-6)


def test_pillows_own_bound_is_not_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _save(tmp_path, Image.new("RGB", (60, 50)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert images.load_image(path).shape == (50, 60, 3)


def test_a_linear_png_is_brought_to_srgb(tmp_path: Path) -> None:
    rows = (b"\0" + bytes([55]) * 60) * 20
    path = tmp_path / "linear.png"
    path.write_bytes(_png(20, 20, 8, 2, rows, _chunk(b"gAMA", struct.pack(">I", 100_000))))
    light = 55 / 255
    expected = 1.055 * light ** (1 / 2.4) - 0.055
    np.testing.assert_allclose(images.load_image(path), expected, atol=1e-5)
    # What files of sRGB say changes nothing, nor does it beside a chunk that says sRGB.
    for before in (
        _chunk(b"gAMA", struct.pack(">I", 45_455)),
        _chunk(b"sRGB", b"\0") + _chunk(b"gAMA", struct.pack(">I", 100_000)),
    ):
        path.write_bytes(_png(20, 20, 8, 2, rows, before))
        np.testing.assert_allclose(images.load_image(path), light, atol=1e-6)


def test_a_png_of_other_colors_than_srgb_says_so(tmp_path: Path) -> None:
    rows = (b"\0" + bytes([55]) * 60) * 20
    path = tmp_path / "hdr.png"
    path.write_bytes(_png(20, 20, 8, 2, rows, _chunk(b"cICP", bytes([9, 16, 0, 1]))))
    _refused(path, "cICP", "sRGB")
    path.write_bytes(_png(20, 20, 8, 2, rows, _chunk(b"cICP", bytes([1, 13, 0, 1]))))
    np.testing.assert_allclose(images.load_image(path), 55 / 255, atol=1e-6)


@pytest.mark.parametrize("alpha", [0.0, 0.02, 0.5, 1.0])
def test_what_lies_over_white_is_given_back(alpha: float) -> None:
    rgb = np.random.default_rng(0).random((4, 5, 3))
    opacity = np.full((4, 5), alpha)
    lifted = images.remove_white_background(rgb * alpha + 1 - alpha, opacity)
    np.testing.assert_allclose(lifted, rgb if alpha else 1, atol=1e-4)


def test_16_bit_color_is_turned_and_converted(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 65_536, (18, 25, 3), dtype=np.uint16)
    unit = values.astype(np.float32) / np.float32(65_535)
    data = images.encode_image(unit, "PNG", bit_depth=16)
    exif = Image.Exif()
    exif[0x0112] = 6
    body = exif.tobytes().removeprefix(b"Exif\0\0")
    chunk = _chunk(b"eXIf", body)
    (tmp_path / "turned.png").write_bytes(data[:33] + chunk + data[33:])
    turned = images.load_image(tmp_path / "turned.png")
    np.testing.assert_array_equal(turned, np.rot90(unit, -1))
    # Another profile than sRGB: at 8 bit, by the color engine.
    red_is_blue = zlib.compress(_swapped_profile())
    row = b"".join(b"\0" + line.astype(">u2").tobytes() for line in values)
    profile = b"p\0\0" + red_is_blue
    chunk = _chunk(b"iCCP", profile)
    (tmp_path / "other.png").write_bytes(_png(25, 18, 16, 2, row, chunk))
    converted = images.load_image(tmp_path / "other.png")
    assert np.corrcoef(converted[..., 0].ravel(), unit[..., 2].ravel())[0, 1] > 0.95


@pytest.mark.parametrize("with_profile", [False, True])
def test_a_transparent_color_of_16_bits(tmp_path: Path, with_profile: bool) -> None:
    """All 16 bits of a color decide, where its high bytes are those of another."""
    profile = _chunk(b"iCCP", b"p\0\0" + zlib.compress(_swapped_profile()))
    profile = profile if with_profile else b""
    values = np.full((20, 20, 3), 0x1234, ">u2")
    values[:10] = 0x1235
    rows = b"".join(b"\0" + line.tobytes() for line in values)
    key = _chunk(b"tRNS", struct.pack(">HHH", 0x1234, 0x1234, 0x1234))
    (tmp_path / "key.png").write_bytes(_png(20, 20, 16, 2, rows, profile + key))
    rgb, alpha = images.load_with_alpha(tmp_path / "key.png")
    assert alpha is not None
    np.testing.assert_array_equal(alpha[:, 0], [1.0] * 10 + [0.0] * 10)
    np.testing.assert_allclose(rgb[0, 0], 0x1235 / 65_535, atol=0.01 if with_profile else 1e-6)
    np.testing.assert_array_equal(rgb[-1, 0], 1)


@pytest.mark.parametrize(
    ("depth", "key"), [(1, 0), (1, 1), (2, 1), (2, 3), (4, 5), (4, 15), (8, 7)]
)
def test_a_transparent_gray_of_few_bits(tmp_path: Path, depth: int, key: int) -> None:
    other = (key + 1) % 2**depth
    rows = b""
    for value in [key] * 8 + [other] * 8:
        rows += b"\0" + int(f"{value:0{depth}b}" * 16, 2).to_bytes(2 * depth, "big")
    chunk = _chunk(b"tRNS", struct.pack(">H", key))
    (tmp_path / "key.png").write_bytes(_png(16, 16, depth, 0, rows, chunk))
    rgb, alpha = images.load_with_alpha(tmp_path / "key.png")
    assert alpha is not None
    np.testing.assert_array_equal(alpha[:, 0], [0.0] * 8 + [1.0] * 8)
    np.testing.assert_allclose(rgb[-1, -1], other / (2**depth - 1), atol=1e-6)


def _gray_tiff(side: int, bits: int, photometric: int, row: bytes) -> bytes:
    values = {
        256: side, 257: side, 258: bits, 259: 1, 262: photometric, 273: 8, 277: 1, 278: side,
        279: side * len(row),
    }  # fmt: skip
    data = row * side
    tags = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in values.items())
    directory = struct.pack("<H", len(values)) + tags + struct.pack("<I", 0)
    return struct.pack("<2sHI", b"II", 42, 8 + len(data)) + data + directory


@pytest.mark.parametrize(
    ("bits", "photometric", "row", "expected"),
    [
        (16, 1, b"\x00\x40" * 20, 0x4000 / 65_535),
        (16, 0, b"\x00\x40" * 20, 1 - 0x4000 / 65_535),
        (12, 1, b"\x40\x04\x00" * 10, 0x400 / 4095),
    ],
    ids=["16 bits", "white is 0", "12 bits"],
)
def test_gray_tiffs(
    tmp_path: Path, bits: int, photometric: int, row: bytes, expected: float
) -> None:
    (tmp_path / "gray.tif").write_bytes(_gray_tiff(20, bits, photometric, row))
    np.testing.assert_allclose(images.load_image(tmp_path / "gray.tif"), expected, atol=1e-5)


def test_float_pixels_need_a_known_range(tmp_path: Path) -> None:
    path = _save(tmp_path, Image.new("F", (20, 20), 0.25), "f.tif")
    np.testing.assert_array_equal(images.load_image(path), np.float32(0.25))
    for mode, value in (("F", 3.0), ("F", float("nan")), ("I", 70_000)):
        _refused(_save(tmp_path, Image.new(mode, (20, 20), value), "f.tif"), "8 or 16 bit")


def _swapped_profile() -> bytes:
    """An RGB profile whose red and blue primaries are exchanged: nobody can miss it."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, blue = profile.index(b"rXYZ"), profile.index(b"bXYZ")
    profile[red : red + 4], profile[blue : blue + 4] = b"bXYZ", b"rXYZ"
    return bytes(profile)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
@pytest.mark.parametrize("ending", ["png", "tif", "webp"])
def test_a_profile_is_converted_to_srgb(tmp_path: Path, mode: str, ending: str) -> None:
    if (mode, ending) == ("P", "webp"):
        pytest.skip("WebP has no palette")
    image = Image.new("RGB", (20, 20), (200, 100, 50)).convert(mode)
    options = {"lossless": True} if ending == "webp" else {}
    path = _save(tmp_path, image, f"in.{ending}", icc_profile=_swapped_profile(), **options)
    stored = np.array([200, 100, 50]) if mode != "P" else np.array(image.convert("RGB"))[0, 0]
    np.testing.assert_allclose(images.load_image(path)[5, 5] * 255, stored[::-1], atol=2)


def test_a_gray_profile_is_converted_at_8_and_16_bit(tmp_path: Path) -> None:
    profile = _gray_profile(gamma=1.0)
    linear = 0.25
    expected = 1.055 * linear ** (1 / 2.4) - 0.055
    for image in (
        Image.new("L", (20, 20), round(linear * 255)),
        Image.new("LA", (20, 20), (round(linear * 255), 255)),
        Image.new("I;16", (20, 20), round(linear * 65_535)),
    ):
        path = _save(tmp_path, image, icc_profile=profile)
        np.testing.assert_allclose(images.load_image(path)[4, 4], [expected] * 3, atol=0.005)


def _gray_profile(gamma: float) -> bytes:
    """A minimal ICC v2 gray profile with a gamma curve."""
    white = b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061)
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    tags, body = b"", b""
    start = 128 + 4 + 12 * 2
    for name, data in ((b"wtpt", white), (b"kTRC", curve)):
        tags += name + struct.pack(">II", start + len(body), len(data))
        body += data
    size = start + len(body)
    header = struct.pack(">I4sI4s4s4s", size, b"lcms", 0x02400000, b"mntr", b"GRAY", b"XYZ ")
    header += struct.pack(">6H", 2000, 1, 1, 0, 0, 0) + b"acsp" + bytes(28)
    header += struct.pack(">3i", 63190, 65536, 54061)
    return header.ljust(128, b"\0") + struct.pack(">I", 2) + tags + body


@pytest.mark.parametrize("profile", [b"", b"junk", b"\0" * 200, _gray_profile(1.0)])
def test_a_broken_or_unfit_profile_is_ignored(tmp_path: Path, profile: bytes) -> None:
    path = _save(tmp_path, Image.new("RGB", (20, 20), (200, 100, 50)), icc_profile=profile)
    np.testing.assert_allclose(images.load_image(path)[5, 5] * 255, [200, 100, 50], rtol=1e-6)


def test_further_images_of_a_camera_jpeg_do_not_count(tmp_path: Path) -> None:
    first, second = Image.new("RGB", (32, 32), "red"), Image.new("RGB", (32, 32), "blue")
    path = _save(tmp_path, first, "in.jpg", format="MPO", save_all=True, append_images=[second])
    np.testing.assert_allclose(images.load_image(path)[5, 5], [1, 0, 0], atol=0.02)


# What is refused.


def test_missing_folder_pipe_empty_and_text(tmp_path: Path) -> None:
    _refused(tmp_path / "missing.png", "does not exist")
    _refused(tmp_path, "is a folder")
    os.mkfifo(tmp_path / "pipe")
    _refused(tmp_path / "pipe", "device or a pipe")
    (tmp_path / "empty.png").write_bytes(b"")
    _refused(tmp_path / "empty.png", "empty file")
    (tmp_path / "text.png").write_text("not an image\n" * 50)
    _refused(tmp_path / "text.png", "not an image", "PNG")
    _refused(tmp_path / "nul\0l.png")
    _refused(tmp_path / ("n" * 300 + ".png"))


FITS = "".join(
    f"{card:<80}"
    for card in (
        *("SIMPLE  = T", "BITPIX  = 8", "NAXIS   = 2", "NAXIS1  = 20", "NAXIS2  = 20", "END"),
    )
).ljust(2880).encode() + bytes(2880)


@pytest.mark.parametrize(
    "data",
    [
        _bytes(Image.new("RGB", (20, 20)), "EPS"),
        _bytes(Image.new("RGB", (20, 20)), "PDF"),
        _bytes(Image.new("RGB", (20, 20)), "GIF"),
        _bytes(Image.new("RGB", (20, 20)), "PPM"),
        _bytes(Image.new("RGB", (20, 20)), "ICO"),
        FITS,
    ],
    ids=["eps", "pdf", "gif", "ppm", "ico", "fits"],
)
@pytest.mark.parametrize("ending", ["png", "eps", "jpg"])
def test_formats_outside_the_list_are_refused(tmp_path: Path, data: bytes, ending: str) -> None:
    path = tmp_path / f"in.{ending}"
    path.write_bytes(data)
    _refused(path, "not an image", "AVIF")


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP", "AVIF", "BMP"])
def test_strong_noise_is_encoded(format: str) -> None:
    noise = np.random.default_rng(0).integers(0, 2, (171, 256, 3)).astype(np.float32)
    with Image.open(io.BytesIO(images.encode_image(noise, format))) as image:
        assert (
            np.abs(np.asarray(image) / 255 - noise).mean() < 0.35
        )  # WebP halves chroma; 0.5 is chance


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "LZW", "WEBP", "AVIF", "BMP"])
def test_truncated_files_are_refused(
    tmp_path: Path, format: str, capfd: pytest.CaptureFixture[str]
) -> None:
    options = {"compression": "tiff_lzw"} if format == "LZW" else {}
    format = "TIFF" if format == "LZW" else format
    data = _bytes(Image.fromarray(_pixels(64, 64)), format, **options)
    for keep in (0.3, 0.5, 0.9):
        path = tmp_path / "cut"
        path.write_bytes(data[: int(len(data) * keep)])
        _refused(path)
    assert capfd.readouterr().err == ""


def test_a_damaged_tiff_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data = bytearray(_bytes(Image.fromarray(_pixels(64, 64)), "TIFF", compression="tiff_lzw"))
    middle = len(data) // 2
    data[middle : middle + 40] = b"\xff" * 40  # libtiff itself complains about this
    (tmp_path / "damaged.tif").write_bytes(data)
    _refused(tmp_path / "damaged.tif", "damaged")
    os.write(2, b"standard error is back")
    assert capfd.readouterr().err == "standard error is back"


@settings(max_examples=60, deadline=None)
@given(
    format=st.sampled_from(["JPEG", "PNG", "TIFF", "WEBP", "AVIF", "BMP"]),
    seed=SEEDS,
    changes=st.integers(1, 12),
)
def test_damaged_files_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, format: str, seed: int, changes: int
) -> None:
    rng = np.random.default_rng(seed)
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.fromarray(_pixels(20, 24))
    options = {} if format == "BMP" else {"exif": exif, "icc_profile": _swapped_profile()}
    data = bytearray(_bytes(image, format, **options))
    for place in rng.integers(0, len(data), changes):
        data[place] = rng.integers(256)
    path = tmp_path_factory.mktemp("damaged") / "in"
    path.write_bytes(data)
    try:
        img = images.load_image(path, max_pixels=100_000)
    except JaxstyleError as error:
        assert "\n" not in str(error)
    else:
        assert img.dtype == np.float32 and img.shape[2] == 3
        assert img.min() >= 0 and img.max() <= 1


@pytest.mark.parametrize("side", [8_002, 20_000, 2**31 - 1])
def test_a_bomb_is_refused_from_its_header(tmp_path: Path, side: int) -> None:
    (tmp_path / "bomb.png").write_bytes(_png(side, side, 8, 2, b"\0" * 1000))
    _refused(tmp_path / "bomb.png", "accepted", "smaller")


def test_the_bound_can_be_moved_both_ways(tmp_path: Path) -> None:
    path = _save(tmp_path, Image.new("RGB", (30, 20)))
    assert images.load_image(path, max_pixels=600).shape == (20, 30, 3)
    _refused(path, "30x20", max_pixels=599)
    _refused(path, "accepted", max_pixels=100)
    before = Image.MAX_IMAGE_PIXELS
    # Rows of one bit: a quarter of Pillow's own bound costs nothing here.
    (tmp_path / "large.png").write_bytes(_png(8_008, 8_008, 1, 0, bytes(1 + 1_001) * 8_008))
    _refused(tmp_path / "large.png", "64.1 megapixels", "64")
    assert Image.MAX_IMAGE_PIXELS == before


@pytest.mark.parametrize("size", [(1, 1), (15, 100), (100, 15)])
def test_small_images_are_refused(tmp_path: Path, size: tuple[int, int]) -> None:
    _refused(_save(tmp_path, Image.new("RGB", size)), "too small", f"{size[0]}x{size[1]}", "16")


@pytest.mark.parametrize("ending", ["png", "webp", "tif", "avif"])
def test_several_frames_are_refused_or_the_first_is_read(tmp_path: Path, ending: str) -> None:
    first, second = Image.new("RGB", (32, 32), "red"), Image.new("RGB", (32, 32), "blue")
    path = _save(tmp_path, first, f"in.{ending}", save_all=True, append_images=[second])
    _refused(path, "2 frames" if ending != "tif" else "several pages")
    image = images.load_image(path, first_frame=True)
    np.testing.assert_allclose(image[5, 5], [1, 0, 0], atol=0.02)


# Sizes.


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    longest=st.integers(1, 120),
    upscale=st.booleans(),
)
def test_fit_keeps_the_aspect_and_never_enlarges(
    height: int, width: int, longest: int, upscale: bool
) -> None:
    image = np.random.default_rng(0).random((height, width, 3), np.float32)
    out = images.fit(image, longest, upscale=upscale, min_side=1)
    assert out.dtype == np.float32 and out.min() >= 0 and out.max() <= 1
    if longest >= max(height, width) and not upscale:
        assert out is image
        return
    assert max(out.shape) == max(longest, 3)
    scale = longest / max(height, width)
    assert abs(out.shape[0] - height * scale) <= 0.5 or out.shape[0] == 1
    assert abs(out.shape[1] - width * scale) <= 0.5 or out.shape[1] == 1


def test_fit_names_the_size_that_is_enough() -> None:
    image = np.zeros((1000, 40, 3), np.float32)
    with pytest.raises(JaxstyleError, match="400 or more"):
        images.fit(image, 384)
    assert images.fit(image, 400).shape == (400, 16, 3)


def test_resize_is_in_float_precision() -> None:
    flat = np.full((40, 50, 3), 0.1234567, np.float32)
    np.testing.assert_allclose(images.resize(flat, 17, 23), 0.1234567, atol=1e-6)
    ramp = np.repeat(np.linspace(0, 1, 64, dtype=np.float32)[None, :, None], 20, 0).repeat(3, 2)
    small = images.resize(ramp, 10, 32)
    expected = ramp[:1].reshape(1, 32, 2, 3).mean(axis=2)
    np.testing.assert_allclose(small[:, 4:-4], expected.repeat(10, 0)[:, 4:-4], atol=1e-4)
    assert images.resize(ramp, 20, 64).shape == ramp.shape
    with pytest.raises(ValueError, match="must be > 0"):
        images.resize(ramp, 0, 5)


# What is written.


def test_encoding_clips_rounds_and_repeats() -> None:
    image = np.array([[[-1.0, 2.0, 0.5]], [[0.4999 / 255, 0.5001 / 255, 254.6 / 255]]])
    for format in sorted(set(images.WRITE_FORMATS.values())):
        data = images.encode_image(image, format)
        assert data == images.encode_image(image.copy(), format)
        if format in ("PNG", "TIFF", "BMP"):
            pixels = np.asarray(Image.open(io.BytesIO(data)))
            np.testing.assert_array_equal(pixels, [[[0, 255, 128]], [[0, 1, 255]]])


def test_jpeg_keeps_full_color_resolution() -> None:
    data = images.encode_image(np.zeros((16, 16, 3)), "JPEG")
    start = data.index(b"\xff\xc0")
    assert [data[start + 11 + 3 * i] for i in range(3)] == [0x11] * 3


def test_text_is_kept_in_png_only(tmp_path: Path) -> None:
    img = np.zeros((16, 16, 3), np.float32)
    text = {"jaxstyle": '{"steps": 3, "name": "käse 🧀"}'}
    images.save_image(tmp_path / "a.png", img, text=text)
    with Image.open(tmp_path / "a.png") as image:
        image.load()
        assert image.info["jaxstyle"] == text["jaxstyle"]
    images.save_image(tmp_path / "a.jpg", img, text=text)
    assert b"jaxstyle" not in (tmp_path / "a.jpg").read_bytes()


@pytest.mark.parametrize(
    "array",
    [
        np.full((16, 16, 3), np.nan),
        np.full((16, 16, 3), np.inf),
        np.zeros((16, 16)),
        np.zeros((16, 16, 4)),
        np.zeros((0, 16, 3)),
        np.zeros((16, 16, 3), np.uint8),
    ],
)
def test_arrays_that_are_no_images_are_refused(tmp_path: Path, array: np.ndarray) -> None:
    with pytest.raises(ValueError) as caught:
        images.save_image(tmp_path / "out.png", array)
    assert not isinstance(caught.value, JaxstyleError)
    assert os.listdir(tmp_path) == []


def test_sides_a_format_cannot_hold_are_refused() -> None:
    with pytest.raises(JaxstyleError, match="16383"):
        images.encode_image(np.zeros((1, 16_384, 3), np.float32), "WEBP")


@pytest.mark.parametrize("name", ["out.gif", "out", "out.png.txt"])
def test_unknown_endings_are_refused(tmp_path: Path, name: str) -> None:
    image = np.zeros((16, 16, 3), np.float32)
    for call in (
        lambda path: images.check_output(path, argument="-o"),
        lambda path: images.save_image(path, image, argument="-o"),
    ):
        with pytest.raises(JaxstyleError, match=r"^-o .*\.png, \.jpg, \.jpeg, \.webp"):
            call(tmp_path / name)
    assert os.listdir(tmp_path) == []


def test_check_output_says_what_save_image_would(tmp_path: Path) -> None:
    images.check_output(tmp_path / "out.png", argument="-o")
    (tmp_path / "folder").mkdir()
    with pytest.raises(JaxstyleError, match="is a folder"):
        images.check_output(tmp_path / "folder", argument="-o")
    with pytest.raises(JaxstyleError, match="create it"):
        images.check_output(tmp_path / "missing" / "out.png", argument="-o")


# Contact sheets.


def test_contact_sheet_places_images_in_rows() -> None:
    cells = [np.full((20 + i, 30 - i, 3), i / 10, np.float32) for i in range(5)]
    sheet = sheets.contact_sheet(cells, columns=2)
    assert sheet.dtype == np.float32
    assert sheet.shape == (3 * 32 + 8, 2 * 38 + 8, 3)
    for i in range(5):
        center = sheet[8 + i // 2 * 32 + 12, 8 + i % 2 * 38 + 15]
        np.testing.assert_allclose(center, i / 10, atol=1e-6)
    np.testing.assert_array_equal(sheet[-20:, -20:], 1)  # the sixth cell is empty


def test_contact_sheet_labels_stay_under_their_cell() -> None:
    cells = [np.ones((20, 60, 3), np.float32)] * 2
    sheet = sheets.contact_sheet(
        cells, columns=2, labels=["style_weight=1000000000 steps=3", "b\nc"]
    )
    plain = sheets.contact_sheet(cells, columns=2)
    assert sheet.shape[0] > plain.shape[0] and sheet.shape[1] == plain.shape[1]
    ink = sheet.min(axis=-1) < 0.5
    assert ink[28:, 8:68].any() and ink[28:, 76:136].any()
    assert not ink[:28].any() and not ink[:, 69:76].any()


def test_contact_sheet_refuses_wrong_counts() -> None:
    cell = np.zeros((16, 16, 3), np.float32)
    with pytest.raises(ValueError, match="labels"):
        sheets.contact_sheet([cell], columns=1, labels=["a", "b"])
    with pytest.raises(ValueError, match="columns"):
        sheets.contact_sheet([cell], columns=0)
    with pytest.raises(ValueError, match="images"):
        sheets.contact_sheet([], columns=1)
