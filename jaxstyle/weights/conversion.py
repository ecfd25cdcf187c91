"""Conversion of a published weight file to a checked `Network`."""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from jaxstyle.config.layers import PADDINGS, TOPOLOGIES
from jaxstyle.config.validation import choice
from jaxstyle.errors import JaxstyleError
from jaxstyle.files import sha256_of
from jaxstyle.nn.network import Network
from jaxstyle.nn.preprocessing import CONVENTIONS, Preprocessing
from jaxstyle.weights.formats import layouts
from jaxstyle.weights.formats.readers import FORMATS, INSECURE_FORMATS, find_format, read_source
from jaxstyle.weights.manifest import Source, identify
from jaxstyle.weights.shapes import Arrays, check_params, find_topology
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
    """Convert a published file of VGG weights, without its classifier.

    The format is detected from the content: a PyTorch state dict (torchvision's, the Caffe
    networks of jcjohnson, Gatys's), Keras's `.h5`, MatConvNet's `.mat`, `.npz`, or a state
    dict as `.safetensors`. A file with only the first layers gives a network of these layers.

    Args:
      source_path: file to convert.
      network: `"vgg16"` or `"vgg19"`; detected from the layers if not given.
      convention: `"caffe"` or `"torchvision"` (see `CONVENTIONS`). Required only for state dicts
        with torchvision's keys, which networks of both conventions have, unless the file is in the
        manifest.
      padding: `"zeros"` or `"reflect"`; if not given, `"reflect"` for a compact teacher and
        `"zeros"` for others.
      name: name of the network; the file's name without its ending if not given.
      normalized: whether the mean activation of every filter is 1, which no format records.
      trust_source: whether to open an `.h5` or `.mat` file whose digest is not in the manifest. The
        HDF5 library and SciPy, which read them, are not secure against malicious files.

    Returns:
      A `Network` with float32 params.

    Raises:
      JaxstyleError: the file is of an unknown format, damaged, incomplete, ambiguous or not
        trusted, or an argument does not fit it.
    """
    path = Path(source_path)
    for argument, value, allowed in (
        ("network", network, tuple(TOPOLOGIES)),
        ("convention", convention, tuple(CONVENTIONS)),
        ("padding", padding, PADDINGS),
    ):
        if value is not None:
            choice(allowed)(argument, value)
    where = f"source {path}"
    file_format = find_format(path)
    pinned = identify(path)
    if file_format in INSECURE_FORMATS and pinned is None and not trust_source:
        raise JaxstyleError(
            f"{where} is a .{file_format} file whose digest is not pinned, and a damaged or "
            "malicious one may harm the library that reads it; give --trust-source if you trust "
            "where it is from"
        )
    contents = read_source(path)
    try:
        kind, params = _to_flax(file_format, contents, network)
    except JaxstyleError as error:
        raise JaxstyleError(f"{where}: {error}") from error
    topology = network or (pinned.network if pinned else find_topology(params, where=where))
    check_params(params, topology, where=where)
    params, preprocessing = _choose_convention(kind, convention, pinned, params, where)
    default = "reflect" if kind == "teacher" else "zeros"
    return Network(
        params={
            layer: {part: jnp.asarray(array) for part, array in arrays.items()}
            for layer, arrays in params.items()
        },
        topology=topology,
        convention=dataclasses.replace(preprocessing, padding=padding or default),
        # Metadata must be valid UTF-8, unlike the name of a file.
        name=(name or path.stem).encode("utf-8", "replace").decode(),
        source=pinned.urls[0] if pinned else _describe(path),
        license=pinned.license if pinned else "",
        normalized=normalized,
        digest=digest(params),
    )


def _to_flax(
    file_format: str, contents: Mapping[str, Any], network: str | None
) -> tuple[str, Arrays]:
    """Return the kind of a file, by the names of its arrays, and its Flax params."""
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
    kind: str, convention: str | None, pinned: Source | None, params: Arrays, where: str
) -> tuple[Arrays, Preprocessing]:
    """Return the params and their preprocessing.

    Args:
      kind: from `_to_flax`.
      convention: requested convention, if any.
      pinned: entry of the manifest, if any.
      params: Flax params.
      where: name of the file in error messages.
    """
    if kind == "matconvnet":
        if convention == "torchvision":
            raise JaxstyleError(
                f"{where}: convention 'torchvision' cannot be a MatConvNet file's, "
                "which takes RGB 0-255; leave --convention out"
            )
        # The conventions of MatConvNet and Caffe differ in the order of channels only.
        if convention == "caffe":
            return layouts.swap_channels(params), CONVENTIONS["caffe"]
        return params, layouts.MATCONVNET
    if kind == "teacher" and convention == "torchvision":
        raise JaxstyleError(
            f"{where}: convention 'torchvision' cannot be a teacher's, whose conv0 makes "
            "Caffe's input; leave --convention out"
        )
    if convention is None and pinned is not None:
        convention = pinned.convention
    if convention is None and kind == "numbered":
        raise JaxstyleError(
            f"{where} may be torchvision's or Caffe's network, which have the same keys and take "
            "different input; say which with --convention torchvision or --convention caffe"
        )
    return params, CONVENTIONS[convention or "caffe"]


def _describe(path: Path) -> str:
    return f"{path.name} (sha256 {sha256_of(path)})".encode("utf-8", "replace").decode()
