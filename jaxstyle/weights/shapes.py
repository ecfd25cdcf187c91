"""Checks of the layers and shapes of weights."""

from collections.abc import Collection, Mapping

import numpy as np

from jaxstyle.config.layers import TOPOLOGIES, convolutions
from jaxstyle.config.validation import choice
from jaxstyle.errors import JaxstyleError

Arrays = dict[str, dict[str, np.ndarray]]
"""Flax params in NumPy: `{"conv1_1": {"kernel": [3, 3, in, out], "bias": [out]}, ...}`."""


def unfit(message: str) -> JaxstyleError:
    """Return the error for a file without a valid network."""
    return JaxstyleError(f"{message}; take a complete, unchanged file of such a network")


def find_topology(layers: Collection[str], *, where: str) -> str:
    """Return `"vgg16"` or `"vgg19"`, detected from the convolutions.

    Args:
      layers: names such as `"conv3_4"`, in any order.
      where: name of the weights in error messages.

    Raises:
      JaxstyleError: a layer is in neither, or both have the layers.

    Example:
      >>> find_topology(["conv3_4"], where="weights")
      'vgg19'
    """
    fits = [name for name in TOPOLOGIES if set(layers) <= set(convolutions(name))]
    if not layers or not fits:
        unknown = sorted(set(layers) - set(convolutions("vgg19")))
        raise unfit(
            f"{where} is not a VGG-16 or VGG-19: "
            + (f"layer {unknown[0]!r} is in neither" if unknown else "it has no convolution")
        )
    if len(fits) == 1:
        return fits[0]
    # A deeper VGG-19 has a conv3_4, and a VGG-19 of whole blocks does not end here.
    if max(layers) >= "conv3_3":
        return "vgg16"
    raise JaxstyleError(
        f"{where} has only {', '.join(sorted(layers))}, which VGG-16 and VGG-19 share; "
        "say which it is with --network vgg16 or --network vgg19"
    )


def check_topology(topology: str, *, where: str) -> None:
    """Raise a `JaxstyleError` unless `topology` is one of `TOPOLOGIES`."""
    choice(tuple(TOPOLOGIES))(f"{where}: network", topology)


def check_params(
    params: Mapping[str, Mapping[str, np.ndarray]], topology: str, *, where: str
) -> None:
    """Raise unless `params` are the first convolutions of `topology`, without a gap.

    Kernels must be `[3, 3, in, out]`, with `in` the `out` of the preceding layer (3 for the
    first), biases `[out]`, and all numbers finite.

    Args:
      params: Flax params.
      topology: `"vgg16"` or `"vgg19"`.
      where: name of the weights in error messages.

    Raises:
      JaxstyleError: a layer is not valid; the message names it and the reason.
    """
    names = convolutions(topology)
    unknown = sorted(set(params) - set(names))
    if unknown:
        raise unfit(
            f"{where}: layer {unknown[0]!r} is not in {topology}, "
            f"whose layers run from {names[0]!r} to {names[-1]!r}"
        )
    if not params:
        raise unfit(f"{where} has no convolution of {topology}")
    deepest = max(names.index(layer) for layer in params)
    channels = 3
    for layer in names[: deepest + 1]:
        if layer not in params:
            raise JaxstyleError(
                f"{where}: layer {layer!r} of {topology} is missing although "
                f"{names[deepest]!r} is there; use a complete file or another --network"
            )
        channels = _check_layer(params[layer], channels, f"{where}: layer {layer!r}")


def _check_layer(arrays: Mapping[str, np.ndarray], channels: int, where: str) -> int:
    """Return the output channels of a convolution; raise unless it is valid for `channels`."""
    for part in ("kernel", "bias"):
        if part not in arrays:
            raise unfit(f"{where} has no {part}")
    if len(arrays) > 2:
        raise unfit(f"{where} has more than a kernel and a bias: {', '.join(map(repr, arrays))}")
    kernel, bias = arrays["kernel"], arrays["bias"]
    if kernel.ndim != 4 or kernel.shape[:2] != (3, 3) or 0 in kernel.shape:
        raise unfit(f"{where}: the kernel's shape is {kernel.shape}, not (3, 3, in, out)")
    if kernel.shape[2] != channels:
        raise unfit(
            f"{where} takes {kernel.shape[2]} channels where the layer before gives {channels}"
        )
    if bias.shape != kernel.shape[3:]:
        raise unfit(
            f"{where}: the bias's shape is {bias.shape}, not ({kernel.shape[3]},) as the kernel's"
        )
    for part, array in arrays.items():
        if not np.isfinite(array).all():
            raise unfit(f"{where}: the {part} has numbers that are not finite")
    return kernel.shape[3]
