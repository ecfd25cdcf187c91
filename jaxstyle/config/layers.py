"""Names of VGG layers, and layers with weights in the notation of flags: `relu4_2:0.5`."""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from jaxstyle.config.validation import number
from jaxstyle.errors import JaxstyleError, shortened

if TYPE_CHECKING:
    from jaxstyle.nn.network import Network

# Number of convolutions in each of the five blocks, with a 2x2 pooling between blocks.
TOPOLOGIES: dict[str, tuple[int, ...]] = {
    "vgg16": (2, 2, 3, 3, 3),
    "vgg19": (2, 2, 4, 4, 4),
}
PADDINGS = ("zeros", "reflect")
_LAYER = re.compile(r"(?:conv|relu)([1-5]_[1-4])")


def convolutions(topology: str) -> tuple[str, ...]:
    """Return the names of a topology's convolutions in order.

    Example:
      >>> convolutions("vgg16")[:3]
      ('conv1_1', 'conv1_2', 'conv2_1')
    """
    return tuple(
        f"conv{block}_{i}"
        for block, count in enumerate(TOPOLOGIES[topology], start=1)
        for i in range(1, count + 1)
    )


def convolution_of(layer: str) -> str:
    """Return the convolution of a layer.

    Raises:
      JaxstyleError: the name is not of the form `convB_I` or `reluB_I`.

    Example:
      >>> convolution_of("relu4_2")
      'conv4_2'
    """
    match = _LAYER.fullmatch(layer)
    if not match:
        raise JaxstyleError(
            f"layer {layer!r} is not a VGG layer; names run from 'relu1_1' to 'relu5_4', "
            "or 'conv1_1' to 'conv5_4' for the values before the ReLU"
        )
    return f"conv{match[1]}"


def check_layers(network: "Network", layers: Sequence[str], *, argument: str = "layers") -> None:
    """Raise a `JaxstyleError` that names `argument` unless `network` has all `layers`."""
    available = network.layers
    for layer in layers:
        if convolution_of(layer) not in available:
            raise JaxstyleError(
                f"{argument}: layer {layer!r} is not in network {network.name!r}, "
                f"which has {', '.join(available) or 'no layers'}; name one of these "
                "(as relu… or conv…) or choose other weights, e.g. vgg19 "
                "(`jaxstyle weights fetch vgg19`)"
            )


def stride(layer: str) -> int:
    """Return the distance between neighboring positions of a layer, in pixels.

    Example:
      >>> stride("relu4_2")
      8
    """
    return 2 ** (int(convolution_of(layer)[4]) - 1)


def smallest_side(layers: Sequence[str]) -> int:
    """Return the least side of an image, in pixels, at which every layer has a position.

    Example:
      >>> smallest_side(["relu1_1", "relu4_2"])
      8
    """
    return max(map(stride, layers))


LayerWeights = tuple[tuple[str, float], ...]


def format_layers(layers: LayerWeights) -> str:
    """Return pairs of layer and weight as a text for `parse_layers`.

    Example:
      >>> format_layers((("relu1_1", 0.5), ("relu2_1", 1.0)))
      'relu1_1:0.5,relu2_1'
    """
    return ",".join(l if weight == 1 else f"{l}:{weight:g}" for l, weight in layers)


def first_of_blocks(*weights: float) -> LayerWeights:
    """Return the layers `relu1_1`, `relu2_1`, … with the given weights."""
    return tuple((f"relu{block}_1", weight) for block, weight in enumerate(weights, start=1))


def parse_layers(text: str, *, argument: str = "layers") -> LayerWeights:
    """Return the pairs of layer and weight in a text such as `"relu1_1:0.5,relu2_1"` or `"all:2"`.

    Args:
      text: comma-separated layers, each optionally with a weight after a colon; 1 if not given.
      argument: name of the text in error messages.

    Raises:
      JaxstyleError: there is no layer, or a name or weight is not valid.
    """
    if not text.strip(" ,"):
        # Often a shell variable that is not set.
        raise JaxstyleError(
            f"{argument}: the list is empty; name layers, or give the term a weight of 0"
        )
    parts = (part.strip().partition(":") for part in text.split(",") if part.strip())
    return layer_weights(argument, [(layer, weight or 1.0) for layer, _, weight in parts])


def layer_weights(
    argument: str, layers: str | Mapping[str, float] | Sequence[str | tuple[str, float | str]]
) -> LayerWeights:
    """Return layers, given as text, mapping or sequence, as pairs of layer and weight.

    Raises:
      JaxstyleError: a name or weight is not valid, or a layer is repeated.
    """
    if isinstance(layers, str):
        return parse_layers(layers, argument=argument)
    if isinstance(layers, Mapping):
        layers = tuple(layers.items())
    try:
        pairs = [(item, 1.0) if isinstance(item, str) else (item[0], item[1]) for item in layers]
        names = [str(layer) for layer, _ in pairs]
    except (TypeError, LookupError):
        raise JaxstyleError(
            f"{argument}: {shortened(layers)} names no layers; write e.g. 'relu4_2:0.5,relu5_1'"
        ) from None
    for layer in names:
        if layer != "all":
            try:
                convolution_of(layer)
            except JaxstyleError as error:
                raise JaxstyleError(f"{argument}: {error}") from None
        if names.count(layer) > 1:
            raise JaxstyleError(f"{argument}: layer {layer!r} is named twice; name it once")
    check = number()
    weights = [check(f"{argument}: the weight of {layer}", weight) for layer, weight in pairs]
    return tuple(zip(names, weights, strict=True))
