"""Conversion of each source's arrays to Flax params, by one pure function per source.

The functions take all arrays of the source and return its convolutions as
`{"conv1_1": {"kernel": float32 [3, 3, in, out], "bias": float32 [out]}, ...}`. The
result is not checked (see `shapes.check_params`); layers may be missing. All sources
compute cross-correlations, as Flax does, so that no kernel is flipped.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxstyle.config.layers import TOPOLOGIES, convolutions
from jaxstyle.nn.preprocessing import CONVENTIONS, Preprocessing
from jaxstyle.weights.shapes import Arrays, unfit

MATCONVNET = Preprocessing("rgb", 255.0, (123.68, 116.779, 103.939), (1.0, 1.0, 1.0))
"""Preprocessing of MatConvNet's networks: RGB, 0-255, minus the mean color."""
State = Mapping[str, np.ndarray]
_FEATURES = re.compile(r"(?:module\.)?(?:features\.)?(\d+)\.(weight|bias)")
_NAMED = re.compile(r"(conv[1-5]_[1-9])\.(weight|bias)")
_COMPACT = re.compile(r"conv([1-5])([1-9])\.(weight|bias)")
_KERAS = re.compile(r"(?:.*/)?block([1-5])_conv([1-9])/(?:.*/)?([^/]+)")
_PARTS = {"weight": "kernel", "bias": "bias"}
_KERAS_PARTS = ((re.compile(r"kernel(:0)?|block._conv._W(_\d+)?(:0)?|0"), "kernel"),
                (re.compile(r"bias(:0)?|block._conv._b(_\d+)?(:0)?|1"), "bias"))  # fmt: skip


def torchvision_to_flax(state: State, *, network: str | None = None) -> Arrays:
    """Convert torchvision's state dict, whose keys are `features.N.weight` (OIHW) and `.bias`.

    N counts the convolutions, ReLUs and poolings of the topology. The classifier is ignored. The
    Caffe networks that jcjohnson published in PyTorch's format have the same keys and layout, but
    take BGR, 0-255.

    Args:
      state: all arrays of the file by name.
      network: `"vgg16"` or `"vgg19"`; detected from the Ns if not given.

    Raises:
      JaxstyleError: the Ns fit no topology, as for networks with batch normalization.
    """
    matched = {match: array for key, array in state.items() if (match := _FEATURES.fullmatch(key))}
    if any(key.endswith(".running_mean") for key in state):
        raise unfit(
            "it has batch normalization (vgg16_bn, vgg19_bn), which is not supported; "
            "use the plain vgg16 or vgg19"
        )
    tables = {name: _positions(name) for name in ([network] if network else TOPOLOGIES)}
    numbers = {int(match[1]) for match in matched}
    for table in tables.values():
        if numbers <= set(table):
            params: Arrays = {}
            for match, array in matched.items():
                _put(params, table[int(match[1])], match[2], array)
            return params
    odd = min(n for n in numbers if not all(n in table for table in tables.values()))
    raise unfit(
        f"features.{odd} is not where {' or '.join(tables)} has a convolution; "
        "use a file of that network or another --network"
    )


def gatys_to_flax(state: State) -> Arrays:
    """Convert a state dict whose keys are `conv1_1.weight` (OIHW) and `.bias`, such as Gatys's."""
    params: Arrays = {}
    for key, array in state.items():
        if match := _NAMED.fullmatch(key):
            _put(params, match[1], match[2], array)
    return params


def keras_to_flax(state: State) -> Arrays:
    """Convert the arrays of a Keras `.h5` by their paths; kernels are HWIO.

    `block1_conv1/block1_conv1_W_1:0` (2016), `block1_conv1/block1_conv1/kernel:0`
    (later) and `layers/block1_conv1/vars/0` (Keras 3).
    """
    params: Arrays = {}
    for key, array in state.items():
        if match := _KERAS.fullmatch(key):
            for pattern, part in _KERAS_PARTS:
                if pattern.fullmatch(match[3]):
                    layer = f"conv{match[1]}_{match[2]}"
                    params.setdefault(layer, {})[part] = _float32(array, key)
    return params


def matconvnet_to_flax(contents: Mapping[str, Any]) -> Arrays:
    """Convert a MatConvNet network from `scipy.io.loadmat`; its input is RGB, 0-255.

    MatConvNet's kernels are H x W x I x O, and SciPy preserves the order of the axes, so
    nothing is transposed. Programs that read this file disagree: anishathalye's
    neural-style swaps the first two axes, log0's port does not. MATLAB's first axis is
    the vertical one, for kernels and for images. Column-major storage concerns the order
    in memory, which SciPy converts.

    Args:
      contents: `contents["layers"]` is a cell array of structs with `name` and either
        `weights` = {kernel, bias} or, in older files, `filters` and `biases`.

    Raises:
      JaxstyleError: `layers` is not of that form.
    """
    params: Arrays = {}
    try:
        for cell in np.ravel(contents["layers"]):
            struct = np.ravel(cell)[0]
            name = str(np.ravel(struct["name"])[0])
            if not re.fullmatch(r"conv[1-5]_[1-9]", name):
                continue
            if "weights" in struct.dtype.names:
                kernel, bias = np.ravel(struct["weights"])[:2]
            else:
                kernel, bias = struct["filters"], struct["biases"]
            params[name] = {
                "kernel": _float32(kernel, name),
                "bias": _float32(np.ravel(bias), name),
            }
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise unfit(f"its `layers` are not a MatConvNet network's ({error})") from error
    return params


def npz_to_flax(state: State) -> Arrays:
    """Convert a `.npz` with OIHW arrays named `conv1_1.weight`, or a compact teacher's `conv11`.

    The first layer of a teacher (Collaborative Distillation, arXiv:2003.08436) is a 1x1
    convolution `conv0` from RGB 0-1 to nearly BGR 0-255 minus the Caffe mean. It is folded
    into conv1_1, so that the network takes exactly the `"caffe"` input. This is the
    same function with reflection padding, which teachers use. The `_aux` arrays, which
    map to the channels of the large network, are ignored.
    """
    if "conv0.weight" not in state:
        gatys = gatys_to_flax(state)
        if gatys:
            return gatys
    params: Arrays = {}
    for key, array in state.items():
        if match := _COMPACT.fullmatch(key):
            _put(params, f"conv{match[1]}_{match[2]}", match[3], array)
    if "conv0.weight" in state:
        first = params.get("conv1_1", {})
        if not {"kernel", "bias"} <= first.keys() or "conv0.bias" not in state:
            raise unfit("it has a conv0 but not conv0.bias, conv11.weight and conv11.bias")
        params["conv1_1"] = _fold(
            _float32(state["conv0.weight"], "conv0.weight"),
            _float32(state["conv0.bias"], "conv0.bias"),
            first,
        )
    return params


def swap_channels(params: Arrays) -> Arrays:
    """Return the params with RGB and BGR of the input swapped."""
    first = params["conv1_1"]
    return {**params, "conv1_1": {**first, "kernel": first["kernel"][:, :, ::-1]}}


def _fold(weight: np.ndarray, bias: np.ndarray, first: dict[str, np.ndarray]) -> dict:
    """Return the first convolution with a 1x1 layer from RGB 0-1 folded into it."""
    caffe = CONVENTIONS["caffe"]
    if weight.shape != (3, 3, 1, 1) or bias.shape != (3,) or first["kernel"].shape[2:3] != (3,):
        raise unfit("its conv0 is not a 1x1 layer from 3 channels to 3 before conv11")
    # conv0(rgb) = W·rgb + b, with rgb = reverse(x + mean) / 255 for the input x.
    mixing = weight[:, ::-1, 0, 0].astype(np.float64) / caffe.scale
    constant = mixing @ np.asarray(caffe.mean) + bias
    # Folding another conv0 would give a network that is wrong at the borders.
    if np.abs(mixing - np.eye(3)).max() > 0.01 or np.abs(constant).max() > 1.0:
        raise unfit("its conv0 does not turn RGB 0-1 into BGR 0-255 minus the Caffe mean")
    kernel = first["kernel"].astype(np.float64)
    shift = np.einsum("hwio,i->o", kernel, constant)
    return {
        "kernel": np.einsum("hwio,ij->hwjo", kernel, mixing).astype(np.float32),
        "bias": (first["bias"] + shift).astype(np.float32),
    }


def _positions(topology: str) -> dict[int, str]:
    """Return torchvision's index of each convolution: `{0: "conv1_1", 2: "conv1_2", ...}`."""
    # A ReLU follows each convolution, and a pooling each block.
    return {2 * i + int(name[4]) - 1: name for i, name in enumerate(convolutions(topology))}


def _put(params: Arrays, layer: str, part: str, array: np.ndarray) -> None:
    array = _float32(array, f"{layer}.{part}")
    if part == "weight":
        if array.ndim != 4:
            raise unfit(f"{layer}.weight has {array.ndim} axes, not 4 (out, in, 3, 3)")
        array = array.transpose(2, 3, 1, 0)
    params.setdefault(layer, {})[_PARTS[part]] = array


def _float32(array: Any, name: str) -> np.ndarray:
    array = np.asarray(array)
    # NumPy's kind of bfloat16 is that of unknown types.
    if array.dtype.kind != "f" and array.dtype.name != "bfloat16":
        raise unfit(f"{name} holds {array.dtype.name} instead of floating-point numbers")
    with np.errstate(over="ignore"):  # infinities are reported later, with the layer's name
        return array.astype(np.float32)
