"""The file format of networks: `.safetensors` with topology, preprocessing and digest.

The arrays are named `conv1_1.kernel` (HWIO) and `conv1_1.bias`. They are float32, float16 or
bfloat16 in the file, and float32 in memory. The metadata strings are `format`, `network`, `name`,
`source`, `licence`, `channel_order`, `scale`, `mean`, `std`, `padding`, `digest` and, for
normalized networks, `normalised`.
"""

import hashlib
import json
import math
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors

from jaxstyle.config.layers import PADDINGS
from jaxstyle.errors import JaxstyleError
from jaxstyle.files import reason, write_atomically
from jaxstyle.nn.network import Network
from jaxstyle.nn.preprocessing import Preprocessing
from jaxstyle.weights.shapes import Arrays, check_params, check_topology, unfit

FORMAT = "jaxstyle-network-1"
_CODES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
_FIELDS = (
    *("name", "source", "licence", "network", "channel_order", "scale", "mean", "std"),
    *("padding", "digest"),
)


def digest(params: Mapping[str, Mapping[str, Any]]) -> str:
    """Compute the SHA-256 of params, as 64 hexadecimal digits.

    The input is, for each array in the order of their names, `name`, a zero byte, the dtype's
    name, a zero byte, the shape as `3x3x64x64`, a zero byte, and the numbers in C order,
    little-endian.
    """
    total = hashlib.sha256()
    for name, array in sorted(_flatten(params).items()):
        shape = "x".join(map(str, array.shape))
        total.update(f"{name}\0{array.dtype.name}\0{shape}\0".encode())
        total.update(_little_endian(array))
    return total.hexdigest()


def save_network(network: Network, path: str | os.PathLike) -> None:
    """Write a network atomically; equal networks give equal bytes.

    Arrays keep their dtype (float32, float16 or bfloat16). The digest is computed from
    the arrays, not taken from `network.digest`.

    Raises:
      JaxstyleError: `path` does not end in `.safetensors` or cannot be written.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise JaxstyleError(f"output {path} must end in .safetensors, the one format of networks")
    content = _encode(network, where=f"network {network.name!r}")
    write_atomically(path, content)


def read_network(path: str | os.PathLike) -> Network:
    """Read a file of `save_network`, and check its digest and layers.

    Returns:
      A `Network` with float32 params. Its `digest` is that of the arrays in the file, which may
      have half precision.

    Raises:
      JaxstyleError: the file is missing, not of this format, damaged or incomplete.
    """
    path = Path(path)
    where = f"weights file {path}"
    metadata, stored = _read(path, where)
    if digest(stored) != metadata["digest"]:
        raise JaxstyleError(
            f"{where} is damaged: its arrays' digest is {digest(stored)}, not "
            f"{metadata['digest'][:64]!r} as it says; fetch or convert it again"
        )
    check_topology(metadata["network"], where=where)
    check_params(stored, metadata["network"], where=where)
    return Network(
        params={
            layer: {part: jnp.asarray(array, jnp.float32) for part, array in arrays.items()}
            for layer, arrays in stored.items()
        },
        topology=metadata["network"],
        convention=_convention(metadata, where),
        name=metadata["name"],
        source=metadata["source"],
        license=metadata["licence"],
        normalized=metadata.get("normalised") == "true",
        digest=metadata["digest"],
    )


def _read(path: Path, where: str) -> tuple[dict[str, str], Arrays]:
    """Read the metadata and arrays of a file; only the format is checked."""
    if not path.is_file():
        raise JaxstyleError(f"{where} does not exist; see `jaxstyle weights list` for names")
    try:
        with safetensors.safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise JaxstyleError(
                    f"{where} is not a network of jaxstyle; "
                    "make one of it with `jaxstyle weights convert`"
                )
            flat = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError, TypeError, AttributeError, UnicodeError) as error:
        raise JaxstyleError(
            f"{where} cannot be read as safetensors ({reason(error)}); fetch or convert it again"
        ) from error
    missing = [field for field in _FIELDS if field not in metadata]
    if missing:
        raise JaxstyleError(f"{where} lacks the metadata {missing[0]!r}; convert it again")
    arrays: Arrays = {}
    for name, array in flat.items():
        layer, _, part = name.partition(".")
        if array.dtype.name not in _CODES:
            raise unfit(f"{where}: {name!r} holds {array.dtype.name}, not {', '.join(_CODES)}")
        arrays.setdefault(layer, {})[part] = array
    return metadata, arrays


def _convention(metadata: Mapping[str, str], where: str) -> Preprocessing:
    def numbers(field: str, count: int) -> list[float]:
        try:
            values = json.loads(f"[{metadata[field]}]" if count == 1 else metadata[field])
            good = len(values) == count and all(
                type(v) in (int, float) and math.isfinite(v) for v in values
            )
        except (ValueError, TypeError, OverflowError, RecursionError):
            good = False
        if not good or (field != "mean" and min(values) <= 0):
            raise unfit(f"{where}: the metadata {field!r} is {metadata[field][:60]!r}")
        return [float(v) for v in values]

    for field, allowed in (("channel_order", ("rgb", "bgr")), ("padding", PADDINGS)):
        if metadata[field] not in allowed:
            raise unfit(
                f"{where}: the metadata {field!r} is {metadata[field][:60]!r}, "
                f"not {' or '.join(allowed)}"
            )
    mean, std = numbers("mean", 3), numbers("std", 3)
    return Preprocessing(
        channel_order=metadata["channel_order"],
        scale=numbers("scale", 1)[0],
        mean=(mean[0], mean[1], mean[2]),
        std=(std[0], std[1], std[2]),
        padding=metadata["padding"],
    )


def _encode(network: Network, *, where: str) -> bytes:
    """Return the bytes of the file; the writer of safetensors changes the order of metadata."""
    convention = network.convention
    metadata = {
        "format": FORMAT,
        "network": network.topology,
        "name": network.name,
        "source": network.source,
        "licence": network.license,
        "channel_order": convention.channel_order,
        "scale": json.dumps(convention.scale),
        "mean": json.dumps(list(convention.mean)),
        "std": json.dumps(list(convention.std)),
        "padding": convention.padding,
        "digest": digest(network.params),
    }
    if network.normalized:
        metadata["normalised"] = "true"
    check_topology(network.topology, where=where)
    check_params(
        {
            layer: {part: np.asarray(a) for part, a in p.items()}
            for layer, p in network.params.items()
        },
        network.topology,
        where=where,
    )
    header: dict[str, Any] = {"__metadata__": metadata}
    chunks: list[bytes] = []
    offset = 0
    # Wide types first, like the writer of safetensors, so that every array is aligned.
    arrays = _flatten(network.params).items()
    for name, array in sorted(arrays, key=lambda item: (-item[1].dtype.itemsize, item[0])):
        if array.dtype.name not in _CODES:
            raise JaxstyleError(
                f"{where}: {name!r} holds {array.dtype.name}, not {', '.join(_CODES)}"
            )
        chunks.append(_little_endian(array))
        end = offset + len(chunks[-1])
        header[name] = {
            "dtype": _CODES[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([len(text).to_bytes(8, "little"), text, *chunks])


def _flatten(params: Mapping[str, Mapping[str, Any]]) -> dict[str, np.ndarray]:
    return {
        f"{layer}.{part}": np.asarray(jax.device_get(array))
        for layer, arrays in params.items()
        for part, array in arrays.items()
    }


def _little_endian(array: np.ndarray) -> bytes:
    order = array.dtype.byteorder
    is_big = order == ">" or (order == "=" and sys.byteorder == "big")
    return (array.byteswap() if is_big else array).tobytes()
