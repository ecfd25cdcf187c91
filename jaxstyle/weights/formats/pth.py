"""A reader of PyTorch's `.pth` state dicts, without PyTorch and without executing code in them.

It reads both formats of `torch.save`: the zip archive of PyTorch 1.6 and later, and the
earlier stream of pickles followed by raw storages, the format of the classic VGG files.

Reference:
  PyTorch, torch/serialization.py (`_save`, `_legacy_save`).
"""

import io
import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np

from jaxstyle.errors import JaxstyleError
from jaxstyle.files import reason
from jaxstyle.weights.formats import pickles
from jaxstyle.weights.formats.pickles import MAX_PICKLE_BYTES, Malformed, Tensor

# The exceptions of zipfile for damaged archives.
ZIP_ERRORS: tuple[type[Exception], ...] = (
    *(zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, RuntimeError),
    *(ValueError, KeyError, IndexError, OverflowError),
)
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001


def read_pth(path: str | os.PathLike, *, skip: tuple[str, ...] = ()) -> dict[str, np.ndarray]:
    """Read the tensors of a state dict.

    Args:
      path: file to read.
      skip: prefixes of names to skip, such as `"classifier."`, which is most of a VGG's
        half gigabyte.

    Returns:
      `{name: array}` with the shapes and dtypes of the file; arrays may be strided views.

    Raises:
      JaxstyleError: the file is not of this format, damaged, or written on a big-endian
        machine, or it names classes or functions that do not belong to tensors.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            read = _read_zip if file.read(4) == b"PK\x03\x04" else _read_legacy
            file.seek(0)
            return read(file, lambda name: not name.startswith(skip))
    except JaxstyleError as error:
        raise JaxstyleError(f"PyTorch file {path}: {error}") from error
    except Malformed as error:
        raise JaxstyleError(
            f"PyTorch file {path}: {error}; is it complete and from torch.save(state_dict, …)?"
        ) from error
    except OSError as error:
        raise JaxstyleError(
            f"PyTorch file {path} cannot be read: {reason(error)}; check the path"
        ) from error


def _read_zip(file: IO[bytes], wanted: Callable[[str], bool]) -> dict[str, np.ndarray]:
    size = file.seek(0, os.SEEK_END)
    try:
        with zipfile.ZipFile(file) as archive:
            return _read_archive(archive, size, wanted)
    except (Malformed, JaxstyleError):
        raise
    except ZIP_ERRORS as error:
        raise Malformed(f"its zip archive is damaged ({error})") from error


def _read_archive(
    archive: zipfile.ZipFile, size: int, wanted: Callable[[str], bool]
) -> dict[str, np.ndarray]:
    infos = archive.infolist()
    # torch.save does not compress, so an archive cannot contain more than its own size.
    if any(i.compress_type != zipfile.ZIP_STORED for i in infos) or size < sum(
        i.file_size for i in infos
    ):
        raise Malformed("its members are compressed or overlap, as torch.save never writes them")
    members = {info.filename: info for info in infos}
    pickled = [name for name in members if name.rpartition("/")[2] == "data.pkl"]
    if len(pickled) != 1:
        raise Malformed("it holds no data.pkl")
    root = pickled[0].removesuffix("data.pkl")
    if members[pickled[0]].file_size > MAX_PICKLE_BYTES:
        raise Malformed(f"its pickle is larger than {MAX_PICKLE_BYTES} bytes")
    order = archive.read(root + "byteorder") if root + "byteorder" in members else b"little"
    if order.strip() != b"little":
        raise Malformed("it was written on a big-endian machine, which is not supported")
    state, _ = pickles.load(io.BytesIO(archive.read(pickled[0])))
    specs = _tensors(state, wanted)

    storages: dict[str, np.ndarray] = {}
    for storage in {spec.storage for spec in specs.values()}:
        info = members.get(f"{root}data/{storage.key}")
        if info is None or info.file_size != storage.numel * storage.dtype.itemsize:
            raise Malformed(f"its storage {storage.key!r} is missing or not as large as said")
        storages[storage.key] = np.frombuffer(archive.read(info), storage.dtype)
    return {name: _view(spec, storages) for name, spec in specs.items()}


def _read_legacy(file: IO[bytes], wanted: Callable[[str], bool]) -> dict[str, np.ndarray]:
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    # In memory, so that a wrong length cannot exceed the available bytes.
    head = io.BytesIO(file.read(MAX_PICKLE_BYTES))
    magic, _ = pickles.load(head)
    if magic != _LEGACY_MAGIC:
        raise Malformed("it does not begin as torch.save writes it")
    (protocol, _), (system, _) = pickles.load(head), pickles.load(head)
    if protocol != _LEGACY_PROTOCOL:
        raise Malformed(f"its protocol is not {_LEGACY_PROTOCOL}")
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise Malformed("it was written on a big-endian machine, which is not supported")
    (state, declared), (keys, _) = pickles.load(head), pickles.load(head)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise Malformed("its list of storages is damaged")
    specs = _tensors(state, wanted)
    needed = {spec.storage.key for spec in specs.values()}

    storages: dict[str, np.ndarray] = {}
    file.seek(head.tell())
    for key in keys:
        count = int.from_bytes(file.read(8), "little", signed=True)
        storage = declared.get(key)
        if storage is None or count != storage.numel:
            raise Malformed(f"its storage {key!r} is not as large as said")
        num_bytes = count * storage.dtype.itemsize
        if num_bytes > size - file.tell():
            raise Malformed(f"it ends within storage {key!r}")
        if key in needed:
            storages[key] = np.frombuffer(file.read(num_bytes), storage.dtype)
        else:
            file.seek(num_bytes, os.SEEK_CUR)
    return {name: _view(spec, storages) for name, spec in specs.items()}


def _tensors(root: Any, wanted: Callable[[str], bool]) -> dict[str, Tensor]:
    """Return the tensors of a state dict, or of a checkpoint's `state_dict`."""
    if isinstance(root, dict) and isinstance(root.get("state_dict"), dict):
        root = root["state_dict"]
    if not isinstance(root, dict):
        raise Malformed("it holds no state dict")
    return {
        name: value
        for name, value in root.items()
        if isinstance(name, str) and isinstance(value, Tensor) and wanted(name)
    }


def _view(spec: Tensor, storages: dict[str, np.ndarray]) -> np.ndarray:
    if spec.storage.key not in storages:
        raise Malformed(f"its storage {spec.storage.key!r} is missing")
    flat = storages[spec.storage.key]
    if 0 in spec.size:
        return np.empty(spec.size, flat.dtype)
    # `pickles` has checked the view against `numel`, and the readers the length of the storage.
    return np.lib.stride_tricks.as_strided(
        flat[spec.offset :],
        spec.size,
        tuple(step * flat.itemsize for step in spec.stride),
        writeable=False,
    )
