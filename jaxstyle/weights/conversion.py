"""From a file that others published to a checked `Network`."""

import dataclasses
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from jaxstyle.config.layers import PADDINGS
from jaxstyle.errors import JaxstyleError
from jaxstyle.nn.network import Network
from jaxstyle.nn.preprocessing import CONVENTIONS, Preprocessing
from jaxstyle.weights.formats import layouts
from jaxstyle.weights.formats.readers import BY_OTHERS, FORMATS, find_format, read_source
from jaxstyle.weights.manifest import Source, identify
from jaxstyle.weights.shapes import Arrays, check_params, check_topology, find_topology
from jaxstyle.weights.weight_file import digest


def convert(
    source_path: str | os.PathLike,
    *,
    network: str | None = None,
    convention: str | None = None,
    padding: str | None = None,
    name: str | None = None,
    normalized: bool = False,
    trust_source: bool = False,
) -> Network:
    """Convert a published file of VGG weights; a classifier in it is left out.

    The format is found from the content: a PyTorch state dict (torchvision's, the Caffe
    ones of jcjohnson, Gatys's), Keras's `.h5`, MatConvNet's `.mat`, `.npz`, or a state
    dict as `.safetensors`. A file with only the first layers gives a network of those.

    Args:
      source_path: the file.
      network: `"vgg16"` or `"vgg19"`; found from the layers when not given.
      convention: `"caffe"` or `"torchvision"` (see `CONVENTIONS`). Needed only for state
        dicts with torchvision's keys, which both have, unless the manifest has the file.
      padding: `"zeros"` or `"reflect"`; when not given reflection for a compact teacher,
        zeros for the others.
      normalized: say that every filter's mean activation is 1, which no format tells.
      trust_source: open an `.h5` or `.mat` file whose digest the manifest does not pin: they are
        read by the HDF5 library and by SciPy, which are not made for files of strangers.
      name: what the network is called; the file's name without its ending when not given.

    Returns:
      A `Network` with float32 params.

    Raises:
      JaxstyleError: the file is unknown, damaged, incomplete, ambiguous or to be trusted first,
        or an argument does not fit it.
    """
    path = Path(source_path)
    if network is not None:
        check_topology(network, where="argument network")
    for argument, value, allowed in (
        ("convention", convention, tuple(CONVENTIONS)),
        ("padding", padding, PADDINGS),
    ):
        if value is not None and value not in allowed:
            raise JaxstyleError(
                f"{argument} {value!r} does not exist; choose from {', '.join(allowed)}"
            )
    where = f"source {path}"
    file_format = find_format(path)
    known = identify(path)
    if file_format in BY_OTHERS and known is None and not trust_source:
        raise JaxstyleError(
            f"{where} is a .{file_format} file whose digest is not pinned, and a damaged or "
            "malicious one may harm the library that reads it; give --trust-source if you trust "
            "where it is from"
        )
    _, contents = read_source(path)
    try:
        kind, params = _to_flax(file_format, contents, network)
    except JaxstyleError as error:
        raise JaxstyleError(f"{where}: {error}") from error
    topology = network or (known.network if known else find_topology(params, where=where))
    check_params(params, topology, where=where)
    params, taken = _choose_convention(kind, convention, known, params, where)
    default = "reflect" if kind == "teacher" else "zeros"
    return Network(
        params={
            layer: {part: jnp.asarray(array) for part, array in arrays.items()}
            for layer, arrays in params.items()
        },
        topology=topology,
        convention=dataclasses.replace(taken, padding=padding or default),
        # A file's name need not be text, metadata must.
        name=(name or path.stem).encode("utf-8", "replace").decode(),
        source=known.urls[0] if known else _describe(path),
        license=known.license if known else "",
        normalized=normalized,
        digest=digest(params),
    )


def _to_flax(
    file_format: str, contents: Mapping[str, Any], network: str | None
) -> tuple[str, Arrays]:
    """Choose among `sources` by the keys; return the kind and what it gives."""
    if file_format == "mat":
        return "matconvnet", layouts.matconvnet_to_flax(contents)
    if file_format == "h5":
        return "keras", layouts.keras_to_flax(contents)
    if any(key.startswith(("conv0.", "conv11.")) for key in contents):
        return "teacher", layouts.npz_to_flax(contents)
    named = layouts.gatys_to_flax(contents)
    if named:
        return "gatys", named
    numbered = layouts.torchvision_to_flax(contents, network=network)
    if numbered:
        return "numbered", numbered
    some = ", ".join(map(repr, list(contents)[:3])) or "nothing"
    raise JaxstyleError(
        f"it holds no VGG that is known here ({some[:100]}); known are the usual {FORMATS}"
    )


def _choose_convention(
    kind: str, asked: str | None, known: Source | None, params: Arrays, where: str
) -> tuple[Arrays, Preprocessing]:
    """Return the network's input convention: as asked for, as the manifest says, or by the
    format."""
    if kind == "matconvnet":
        if asked == "torchvision":
            raise JaxstyleError(
                f"{where}: convention 'torchvision' cannot be a MatConvNet file's, "
                "which takes RGB 0-255; leave --convention out"
            )
        # Its own convention and Caffe's differ in the order of channels alone.
        if asked == "caffe":
            return layouts.swap_channels(params), CONVENTIONS["caffe"]
        return params, layouts.MATCONVNET
    if kind == "teacher" and asked == "torchvision":
        raise JaxstyleError(
            f"{where}: convention 'torchvision' cannot be a teacher's, whose conv0 makes "
            "Caffe's input; leave --convention out"
        )
    if asked is None and known is not None:
        asked = known.convention
    if asked is None and kind == "numbered":
        raise JaxstyleError(
            f"{where} may be torchvision's or Caffe's network, which have the same keys and take "
            "different input; say which with --convention torchvision or --convention caffe"
        )
    return params, CONVENTIONS[asked or "caffe"]


def _describe(path: Path) -> str:
    with open(path, "rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return f"{path.name} (sha256 {sha256})".encode("utf-8", "replace").decode()
