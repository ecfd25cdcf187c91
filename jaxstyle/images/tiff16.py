"""TIFF files of 16 bits a colour channel, which Pillow reads but cannot write."""

import struct
import zlib

import numpy as np

from jaxstyle.errors import JaxstyleError

_SHORT, _LONG, _RATIONAL, _UNDEFINED = 3, 4, 5, 7
_CODES = {_SHORT: "H", _LONG: "I", _RATIONAL: "I", _UNDEFINED: "B"}
# Readers take a strip at a time.
_STRIP_BYTES = 1 << 18


def encode(pixels: np.ndarray, *, profile: bytes) -> bytes:
    """Write a TIFF (TIFF 6.0, with deflate); the same pixels give the same bytes.

    Args:
      pixels: RGB or RGBA `[h, w, 3 or 4]`, uint16.
      profile: ICC profile.

    Raises:
      JaxstyleError: more than the 4 GiB that such a file can hold.
    """
    height, width, channels = pixels.shape
    # Predictor 2, each sample less the one to its left, modulo 2^16.
    different = pixels.astype("<u2")
    different[:, 1:] -= pixels[:, :-1]
    rows = max(1, _STRIP_BYTES // (width * channels * 2))
    strips = [
        zlib.compress(different[top : top + rows].tobytes()) for top in range(0, height, rows)
    ]
    starts = 8 + np.cumsum([0, *map(len, strips)])
    if starts[-1] + len(profile) > 2**32 - 2**20:
        raise JaxstyleError("a TIFF file holds at most 4 GiB, and this picture has more; use .png")

    fields = [
        (256, _LONG, [width]),
        (257, _LONG, [height]),
        (258, _SHORT, [16] * channels),
        (259, _SHORT, [8]),  # deflate
        (262, _SHORT, [2]),  # RGB
        (273, _LONG, starts[:-1].tolist()),
        (277, _SHORT, [channels]),
        (278, _LONG, [rows]),
        (279, _LONG, [len(strip) for strip in strips]),
        (282, _RATIONAL, [72, 1]),
        (283, _RATIONAL, [72, 1]),
        (284, _SHORT, [1]),  # channels beside each other
        (296, _SHORT, [2]),  # resolution in inches
        (317, _SHORT, [2]),
        *([(338, _SHORT, [2])] if channels == 4 else []),  # alpha, not multiplied in
        (34675, _UNDEFINED, list(profile)),
    ]
    head_end = int(starts[-1]) + int(starts[-1]) % 2
    body_start = head_end + 2 + 12 * len(fields) + 4
    entries, body = [], b""
    for tag, kind, values in fields:
        data = struct.pack(f"<{len(values)}{_CODES[kind]}", *values)
        count = len(values) // 2 if kind == _RATIONAL else len(values)
        if len(data) > 4:
            place = struct.pack("<I", body_start + len(body))
            body += data + b"\0" * (len(data) % 2)
        else:
            place = data.ljust(4, b"\0")
        entries.append(struct.pack("<HHI", tag, kind, count) + place)
    padding = b"\0" * (head_end - int(starts[-1]))
    directory = struct.pack("<H", len(fields)) + b"".join(entries) + bytes(4)
    return b"".join([b"II*\0", struct.pack("<I", head_end), *strips, padding, directory, body])
