"""Readers of published weight files; the format is detected from the content.

Nothing in a file is executed, and its sizes are compared with the available bytes before
memory is allocated.
"""

import io
import math
import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors

from jaxstyle.errors import JaxstyleError
from jaxstyle.files import reason
from jaxstyle.weights.formats.pth import ZIP_ERRORS, read_pth
from jaxstyle.weights.weight_file import FORMAT

# Largest size of decompressed data; the largest VGG has 575 MB.
MAX_BYTES = 1 << 30
# Largest ratio of compression; weights hardly compress.
MAX_RATIO = 64
_SMALL = 1 << 20
_NPZ_ERRORS: tuple[type[Exception], ...] = (
    *ZIP_ERRORS,
    OSError,
    TypeError,
    SyntaxError,
    RecursionError,
    MemoryError,
)
_MAT_COMPRESSED = 15
INSECURE_FORMATS = ("h5", "mat")
"""Formats that the HDF5 library and SciPy read, whose readers are not secure."""
FORMATS = "PyTorch .pth, Keras .h5, MatConvNet .mat, NumPy .npz and .safetensors"


def read_source(path: Path) -> dict[str, Any]:
    """Read the arrays of a published file, in a format of `find_format`.

    Returns:
      `{name: array}`, for `.mat` the result of `scipy.io.loadmat`.

    Raises:
      JaxstyleError: the file is missing, damaged or of another format.
    """
    read: dict[str, Callable[[Path], dict[str, Any]]] = {
        "pth": _read_state,
        "npz": _read_npz,
        "h5": _read_h5,
        "mat": _read_mat,
        "safetensors": _read_safetensors,
    }
    return read[find_format(path)](path)


def find_format(path: Path) -> str:
    """Return `"pth"`, `"npz"`, `"h5"`, `"mat"` or `"safetensors"` by a file's first bytes.

    Raises:
      JaxstyleError: the file is missing or of another format.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(520)
    except OSError as error:
        raise JaxstyleError(
            f"source {path} cannot be read: {reason(error)}; check the path"
        ) from error
    if head.startswith(b"PK\x03\x04"):
        return "npz" if _is_npz(path) else "pth"
    if head.startswith(b"\x80"):
        return "pth"
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        return "h5"
    if head.startswith(b"MATLAB"):
        if b"\x89HDF" in head:
            raise JaxstyleError(
                f"source {path} is a MATLAB 7.3 file; save it again with -v7, as MatConvNet did"
            )
        return "mat"
    if head[8:9] == b"{":
        return "safetensors"
    raise JaxstyleError(f"source {path} is none of {FORMATS}; convert one of these")


def _read_state(path: Path) -> dict[str, np.ndarray]:
    return read_pth(path, skip=("classifier.", "module.classifier."))


def _is_npz(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except ZIP_ERRORS:
        return False  # `read_pth` raises for a damaged file.
    return any(name.endswith(".npy") for name in names)


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
            unpacked = sum(info.file_size for info in infos)
            _check_unpacked(unpacked, sum(info.compress_size for info in infos), path)
            return {
                info.filename.removesuffix(".npy"): _read_npy(archive.read(info))
                for info in infos
                if info.filename.endswith(".npy")
            }
    except JaxstyleError:
        raise
    except _NPZ_ERRORS as error:
        raise JaxstyleError(
            f"source {path} is a damaged .npz ({reason(error)[:200]}); get a fresh copy"
        ) from error


def _read_npy(content: bytes) -> np.ndarray:
    """Return an array like `np.load(allow_pickle=False)`, after a check of its size."""
    stream = io.BytesIO(content)
    version = np.lib.format.read_magic(stream)
    read_header = (
        np.lib.format.read_array_header_1_0
        if version == (1, 0)
        else np.lib.format.read_array_header_2_0
    )
    try:
        shape, fortran, dtype = read_header(stream)
    # NumPy's parser raises exceptions of Python's tokenizer, and others.
    except Exception as error:
        raise ValueError(f"an array's header is damaged: {reason(error)[:200]}") from error
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which are not read")
    if math.prod(shape) * dtype.itemsize != len(content) - stream.tell():
        raise ValueError(f"an array of shape {shape} is not as large as that")
    flat = np.frombuffer(content, dtype, offset=stream.tell())
    return flat.reshape(shape, order="F" if fortran else "C")


def _read_h5(path: Path) -> dict[str, np.ndarray]:
    import h5py

    arrays: dict[str, np.ndarray] = {}
    total = 0

    def visit(name: str, item: Any) -> None:
        nonlocal total
        if not isinstance(item, h5py.Dataset) or "conv" not in name:
            return
        # With external data a source could read any file of its user.
        if item.external or item.is_virtual:
            raise JaxstyleError(
                f"source {path}: {name!r} refers to another file, which is refused; "
                "use one that is complete in itself"
            )
        total += int(item.nbytes)
        # Data that was never written has no storage and reads as zeros.
        _check_unpacked(int(item.nbytes), int(item.id.get_storage_size()), path)
        _check_unpacked(total, total, path)
        if item.dtype.kind == "f":
            arrays[name] = item[()]

    try:
        with h5py.File(path, "r") as file:
            file.visititems(visit)
    except JaxstyleError:
        raise
    except (OSError, KeyError, RuntimeError, ValueError, TypeError) as error:
        raise JaxstyleError(
            f"source {path} is a damaged HDF5 file ({reason(error)[:200]}); get a fresh copy"
        ) from error
    return arrays


def _read_mat(path: Path) -> dict[str, Any]:
    import scipy.io as scipy_io

    _check_mat(path)
    try:
        return scipy_io.loadmat(path, variable_names=["layers"])
    # SciPy raises any exception for damaged files.
    except Exception as error:
        raise JaxstyleError(
            f"source {path} is a damaged .mat file ({reason(error)[:200]}); get a fresh copy"
        ) from error


def _check_mat(path: Path) -> None:
    """Check the decompressed size of a file's elements, before SciPy decompresses them at once."""
    unpacked = 0
    with open(path, "rb") as file:
        swapped = file.read(128)[126:128] == b"MI"
        while len(tag := file.read(8)) == 8:
            kind, size = struct.unpack(">II" if swapped else "<II", tag)
            if kind != _MAT_COMPRESSED:
                # An uncompressed element is as large as on disk.
                file.seek(size, os.SEEK_CUR)
                continue
            element, left = zlib.decompressobj(), size
            while left > 0 and (data := file.read(min(left, 1 << 16))):
                left -= len(data)
                while data:
                    try:
                        unpacked += len(element.decompress(data, 1 << 20))
                    except zlib.error:
                        return  # SciPy raises for damaged data.
                    _check_unpacked(unpacked, file.tell(), path)
                    data = element.unconsumed_tail


def _check_unpacked(unpacked: int, on_disk: int, path: Path) -> None:
    """Raise if decompressed data is much larger than a network."""
    if unpacked > min(MAX_BYTES, MAX_RATIO * max(on_disk, _SMALL)):
        raise JaxstyleError(
            f"source {path} unpacks to more than {unpacked - 1} bytes, as no file of weights does; "
            "get it from where it was published"
        )


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    try:
        with safetensors.safe_open(path, framework="np") as file:
            if (file.metadata() or {}).get("format") == FORMAT:
                raise JaxstyleError(
                    f"source {path} is already converted; use it as --weights {path}"
                )
            return {
                name: file.get_tensor(name)
                for name in file.keys()  # noqa: SIM118
                if not name.startswith(("classifier.", "pre_logits.", "head."))
            }
    except (safetensors.SafetensorError, OSError, TypeError, AttributeError) as error:
        raise JaxstyleError(
            f"source {path} is not safetensors ({reason(error)[:200]}); get a fresh copy"
        ) from error
