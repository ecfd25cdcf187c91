"""VGG-16 and VGG-19 without their classifier, as a Flax module over a plain dict of params.

The params are `{"conv1_1": {"kernel": [3, 3, in, out], "bias": [out]}, ...}`. The
widths are read from them, so one module serves the original networks and narrow
ones. How a picture becomes the network's input belongs to the weights
(`InputConvention`), never to a code path.

Reference:
  Simonyan & Zisserman, Very Deep Convolutional Networks for Large-Scale Image
  Recognition, arXiv:1409.1556, table 1, columns D (VGG-16) and E (VGG-19).
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import groupby
from typing import Any, NamedTuple

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from jaxstyle.convolution import PRECISIONS as PRECISIONS
from jaxstyle.convolution import convolve, pays
from jaxstyle.errors import JaxstyleError
from jaxstyle.winograd import transform

Params = Mapping[str, Mapping[str, jax.Array]]

# Convolutions in each of the five blocks; a 2x2 pooling stands between blocks.
TOPOLOGIES: dict[str, tuple[int, ...]] = {
    "vgg16": (2, 2, 3, 3, 3),
    "vgg19": (2, 2, 4, 4, 4),
}
PADDINGS = ("zeros", "reflect")

_LAYER = re.compile(r"(conv|relu)([1-5]_[1-4])")


@flax.struct.dataclass
class InputConvention:
    """How an RGB picture in [0, 1] becomes a network's input x.

    x = (channels reordered · scale − mean) / std, with `mean` and `std` given in
    the network's own channel order. All fields are static under `jit`.
    """

    channel_order: str = flax.struct.field(pytree_node=False)
    """`"rgb"` or `"bgr"`."""
    scale: float = flax.struct.field(pytree_node=False)
    """What a value of 1 becomes: 255 for the Caffe networks, 1 for torchvision's."""
    mean: tuple[float, float, float] = flax.struct.field(pytree_node=False)
    std: tuple[float, float, float] = flax.struct.field(pytree_node=False)
    padding: str = flax.struct.field(pytree_node=False, default="zeros")
    """What surrounds a feature map in every convolution: `"zeros"`, `"reflect"`, or
    `"edge-first"`: the edge repeated around the picture, zeros around the maps."""


CONVENTIONS: dict[str, InputConvention] = {
    "caffe": InputConvention("bgr", 255.0, (103.939, 116.779, 123.68), (1.0, 1.0, 1.0)),
    "torchvision": InputConvention("rgb", 1.0, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}
"""What networks were trained with."""
INPUTS: dict[str, dict[str, Any]] = {
    # neural-style multiplies by 256 where Caffe's pictures went to 255.
    "caffe-256": {"scale": 256.0},
    # Torchvision's mean on the scale of 255, without its standard deviation.
    "torchvision-255": {
        "scale": 255.0,
        "mean": (123.675, 116.28, 103.53),
        "std": (1.0, 1.0, 1.0),
    },
    "edge-first": {"padding": "edge-first"},
}
"""What known programs change of the convention that a network was trained with."""


@flax.struct.dataclass
class Network:
    """Weights with what is needed to use and to name them: a pytree whose leaves are `params`.

    Pass it as an argument to jitted functions; closing over it makes the compiler
    fold tens of megabytes of constants.
    """

    params: Params
    topology: str = flax.struct.field(pytree_node=False)
    """`"vgg16"` or `"vgg19"`: which layer follows which."""
    convention: InputConvention = flax.struct.field(pytree_node=False)
    name: str = flax.struct.field(pytree_node=False, default="unnamed")
    source: str = flax.struct.field(pytree_node=False, default="")
    """Where the numbers come from, in words or as an address."""
    licence: str = flax.struct.field(pytree_node=False, default="")
    normalised: bool = flax.struct.field(pytree_node=False, default=False)
    """Whether every channel's mean activation is about 1, as Gatys scales VGG-19; the default
    weights of the objective's terms depend on it."""
    digest: str = flax.struct.field(pytree_node=False, default="")
    """SHA-256 over the arrays, as `jaxstyle.weights.digest` computes it."""
    transformed: Mapping[str, jax.Array] = flax.struct.field(default_factory=dict)
    """Kernels by convolution as `winograd` wants them; none but in a run (`accelerated`)."""
    precision: str = flax.struct.field(pytree_node=False, default="tf32")
    """Of the convolutions, one of `PRECISIONS`."""

    @property
    def layers(self) -> tuple[str, ...]:
        """The convolutions that the params hold without a gap from the first, in order."""
        held = []
        for layer in convolutions(self.topology):
            if layer not in self.params:
                break
            held.append(layer)
        return tuple(held)


def convolutions(topology: str) -> tuple[str, ...]:
    """List a topology's convolutions in order: `("conv1_1", "conv1_2", "conv2_1", ...)`."""
    return tuple(
        f"conv{block}_{i}"
        for block, count in enumerate(TOPOLOGIES[topology], start=1)
        for i in range(1, count + 1)
    )


def split_layer(layer: str) -> tuple[str, bool]:
    """Split a layer's name into its convolution and whether the ReLU follows.

    `"relu4_2"` gives `("conv4_2", True)`, `"conv4_2"` gives `("conv4_2", False)`.

    Raises:
      JaxstyleError: the name is not of the form `convB_I` or `reluB_I`.
    """
    match = _LAYER.fullmatch(layer)
    if not match:
        raise JaxstyleError(
            f"layer {layer!r} is not a VGG layer; names run from 'relu1_1' to 'relu5_4', "
            "or 'conv1_1' to 'conv5_4' for the values before the ReLU"
        )
    return f"conv{match[2]}", match[1] == "relu"


def check_layers(network: Network, layers: Sequence[str], *, argument: str = "layers") -> None:
    """Raise a `JaxstyleError` that names `argument` unless `network` has all `layers`."""
    held = network.layers
    for layer in layers:
        convolution, _ = split_layer(layer)
        if convolution not in held:
            raise JaxstyleError(
                f"{argument}: layer {layer!r} is not in network {network.name!r}, "
                f"which has {', '.join(held) or 'no layers'}; name one of these "
                "(as relu… or conv…) or choose other weights, e.g. vgg19 "
                "(`jaxstyle weights fetch vgg19`)"
            )


def smallest_side(layers: Sequence[str]) -> int:
    """Pixels that a picture's shorter side needs so that every layer has a position left."""
    deepest = max(int(split_layer(layer)[0][4]) for layer in layers)
    return 2 ** (deepest - 1)


def check_side(network: Network, height: int, width: int, layers: Sequence[str]) -> None:
    """Raise a `JaxstyleError` unless a picture is large enough for every layer."""
    # Reflection needs a second pixel to reflect.
    least = smallest_side(layers) * (2 if network.convention.padding == "reflect" else 1)
    if min(height, width) < least:
        raise JaxstyleError(
            f"a picture of {width}x{height} pixels is too small for layer "
            f"{max(layers, key=_depth)!r}, which needs {least} pixels a side; use a larger picture "
            "or shallower layers"
        )


def receptive_margin(topology: str, layers: Sequence[str]) -> int:
    """Pixels around a cell of the deepest of `layers` that its activations depend on."""
    deepest = max(split_layer(layer)[0] for layer in layers)
    margin, block = 0, deepest[4]
    for name in reversed(convolutions(topology)):
        if name > deepest:
            continue
        if name[4] != block:  # One cell is two of the block above.
            margin, block = 2 * margin, name[4]
        margin += 1
    return margin


def map_size(layer: str, height: int, width: int, *, pooling: str) -> tuple[int, int]:
    """Rows and columns of a layer's map for a picture of `height` x `width`."""
    more = 1 if pooling == "max-ceil" else 0
    for _ in range(int(split_layer(layer)[0][4]) - 1):
        height, width = (height + more) // 2, (width + more) // 2
    return height, width


def _depth(layer: str) -> str:
    return split_layer(layer)[0]


def preprocess(convention: InputConvention, image: jax.Array) -> jax.Array:
    """Turn an RGB picture `[h, w, 3]` in [0, 1] into the network's input of the same shape."""
    if convention.channel_order == "bgr":
        image = image[..., ::-1]
    mean = jnp.asarray(convention.mean, image.dtype)
    std = jnp.asarray(convention.std, image.dtype)
    return (image * convention.scale - mean) / std


def max_pool(x: jax.Array) -> jax.Array:
    """Take the largest of each 2x2 cell of `[..., h, w, c]`; an odd last row or column is dropped.

    Written as a reshape because the gradient of `reduce_window` is a
    select-and-scatter: about ten times dearer on CPU, and refused by XLA's
    deterministic mode on GPU.
    """
    return _cells(x).max((-4, -2))


def avg_pool(x: jax.Array) -> jax.Array:
    """Average each 2x2 cell of `[..., h, w, c]`; an odd last row or column is dropped."""
    return _cells(x).mean((-4, -2))


def max_pool_ceil(x: jax.Array) -> jax.Array:
    """Like `max_pool`, but an odd last row or column is a cell of its own (Caffe, TensorFlow)."""
    *batch, h, w, _ = x.shape
    ends = [(0, 0)] * len(batch) + [(0, h % 2), (0, w % 2), (0, 0)]
    return max_pool(jnp.pad(x, ends, mode="edge"))


def _cells(x: jax.Array) -> jax.Array:
    *batch, h, w, c = x.shape
    x = x[..., : h // 2 * 2, : w // 2 * 2, :]
    return x.reshape(*batch, h // 2, 2, w // 2, 2, c)


POOLINGS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "max": max_pool,
    "avg": avg_pool,
    "max-ceil": max_pool_ceil,
}


class Window(NamedTuple):
    """Where a part of a picture lies whose lower or right edge may lie beyond the picture's."""

    top: jax.Array
    """Pixels above and left of it, multiples of the coarsest layer's cells."""
    left: jax.Array
    height: int
    """Of the whole picture."""
    width: int


def _bordered(x: jax.Array, window: Window, cell: int, mode: str) -> jax.Array:
    """Set what lies beyond the picture's lower and right edge as padding there would have it."""
    for axis, (start, size) in enumerate(
        ((window.top, window.height), (window.left, window.width))
    ):
        index = start // cell + jnp.arange(x.shape[axis])
        index = index.reshape(-1, *[1] * (2 - axis))
        if mode == "zeros":
            x = jnp.where(index < size // cell, x, 0)
        else:  # Of a reflection or a repeated edge the convolution sees one row.
            beyond = jnp.roll(x, {"reflect": 2, "edge": 1}[mode], axis)
            x = jnp.where(index == size // cell, beyond, x)
    return x


class Block(nn.Module):
    """A run of convolutions of one block of a VGG, then its pooling if a deeper block follows.

    Applied to `[h, w, channels]` it returns the next block's input and `{layer: [h, w, c]}` of
    those of `layers` that lie in it.
    """

    convolutions: tuple[str, ...]
    layers: tuple[str, ...]
    widths: Mapping[str, int]
    """Output channels of each convolution."""
    padding: str = "zeros"
    precision: str = "tf32"
    pooling: str | None = None

    @nn.compact
    def __call__(
        self, x: jax.Array, window: Window | None = None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        found: dict[str, jax.Array] = {}
        for name in self.convolutions:
            if window is not None:
                x = _bordered(x, window, 2 ** (int(name[4]) - 1), self._mode(name))
            x = self._convolve(x, name)
            found[name] = x
            x = nn.relu(x)
            found[name.replace("conv", "relu")] = x
        kept = {layer: found[layer] for layer in found if layer in self.layers}
        return POOLINGS[self.pooling](x) if self.pooling else x, kept

    def _mode(self, name: str) -> str:
        """What surrounds the map that a convolution sees: zeros, its reflection or its edge."""
        if self.padding == "edge-first":
            return "edge" if name == "conv1_1" else "zeros"
        return self.padding

    def _convolve(self, x: jax.Array, name: str) -> jax.Array:
        mode = self._mode(name)
        convolution = Convolution(self.widths[name], self.precision, name=name)
        if mode == "zeros":
            return convolution(x)
        # A border of one for the map, and what it adds to the result cut off again: with a pad
        # and an unpadded convolution the gradient takes 2.5 times as long on CPU.
        x = jnp.pad(x, ((1, 1), (1, 1), (0, 0)), mode=mode)
        return convolution(x)[1:-1, 1:-1]


class Convolution(nn.Module):
    """A 3x3 convolution with bias."""

    width: int
    precision: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (3, 3, x.shape[-1], self.width)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.width,))
        transformed: jax.Array | None = self.get_variable("transformed", "kernel")
        y = convolve(x, kernel.astype(x.dtype), transformed, self.precision) + bias
        # The picture itself has more values than bfloat16 can tell apart: what is made of it is
        # rounded, not it.
        return y.astype(jnp.bfloat16 if self.precision == "bfloat16" else x.dtype)


def accelerated(network: Network, layers: Sequence[str], height: int, width: int) -> Network:
    """Transform the kernels of the convolutions that are then faster on pictures of a size.

    For runs of many evaluations: what is transformed takes four times the memory of the kernels.
    Activations differ from the direct convolutions' by rounding. Not for bfloat16, whose rounding
    the transformations would magnify.

    Args:
      network: weights; arrays or mere shapes.
      layers: that will be asked for.
      height: pixels of the picture, or of the parts that are computed at once.
      width: likewise.
    """
    deepest = max(map(_depth, layers), default="")
    kernels = {}
    for name in network.layers if network.precision != "bfloat16" else ():
        kernel, cell = network.params[name]["kernel"], 2 ** (int(name[4]) - 1)
        if name <= deepest and pays(height // cell, width // cell, *kernel.shape[2:]):
            kernels[name] = kernel
    shapes = any(isinstance(kernel, jax.ShapeDtypeStruct) for kernel in kernels.values())
    transformed = jax.eval_shape(_transformed, kernels) if shapes else _transformed(kernels)
    return network.replace(transformed=transformed)  # type: ignore[attr-defined]


@jax.jit
def _transformed(kernels: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    return {name: transform(kernel) for name, kernel in kernels.items()}


def features(
    network: Network, image: jax.Array, layers: Sequence[str], *, pooling: str = "max"
) -> dict[str, jax.Array]:
    """Compute the activations of a picture at some layers.

    Args:
      network: weights; only those of the layers that are needed are used.
      image: RGB `[h, w, 3]`, float32, [0, 1] (values outside are processed as they are).
      layers: names such as `"relu4_2"` (after the ReLU) or `"conv4_2"` (before it).
      pooling: `"max"` (as trained), `"avg"` (Gatys et al. 2016, section 2: smoother results) or
        `"max-ceil"` (as trained, with the sizes of Caffe).

    Returns:
      `{layer: [h / 2**(block-1), w / 2**(block-1), channels]}`, sizes rounded down, with
      `"max-ceil"` up.

    Raises:
      JaxstyleError: a layer or pooling that does not exist, or a picture too small for a layer.
    """
    layers = tuple(dict.fromkeys(layers))
    if not layers:
        return {}
    check_layers(network, layers)
    if pooling not in POOLINGS:
        raise JaxstyleError(
            f"pooling {pooling!r} does not exist; choose from {', '.join(POOLINGS)}"
        )
    return activations(network, preprocess(network.convention, image), layers, pooling=pooling)


def activations(
    network: Network,
    x: jax.Array,
    layers: tuple[str, ...],
    *,
    pooling: str,
    window: Window | None = None,
) -> dict[str, jax.Array]:
    """Like `features`, from the network's input instead of a picture and without its checks.

    Args:
      network: weights.
      x: `[h, w, 3]`, see `preprocess`.
      layers: names, none twice.
      pooling: as in `features`.
      window: says that `x` is only a part of the input; activations near its edges that are
        not the picture's are then wrong (`receptive_margin`).
    """
    return by_block(network, x, layers, lambda layer, act, _: act, pooling=pooling, window=window)


def by_block(
    network: Network,
    x: jax.Array,
    layers: tuple[str, ...],
    take: Callable[[str, jax.Array, Any], Any],
    others: Any = None,
    *,
    pooling: str,
    window: Window | None = None,
    remat: bool = False,
) -> dict[str, Any]:
    """Give `{layer: take(layer, its activations, others)}`, one block after the other.

    Args:
      network: weights.
      x: as in `activations`.
      layers: likewise.
      take: what is wanted of a layer; it sees float32 activations.
      others: a pytree of the arrays that it wants besides.
      pooling: likewise.
      window: likewise.
      remat: a gradient keeps only what goes from block to block, and computes each again.
    """
    check_side(network, x.shape[0], x.shape[1], layers)
    widths = _FrozenWidths((name, int(p["bias"].shape[0])) for name, p in network.params.items())
    variables: dict[str, Any] = {
        "params": network.params,
        "transformed": {name: {"kernel": kept} for name, kept in network.transformed.items()},
    }
    deepest = max(map(_depth, layers))
    needed = (name for name in convolutions(network.topology) if name <= deepest)
    given = variables, window, others

    def apply(block: Block, given: Any, x: jax.Array) -> tuple[jax.Array, dict[str, Any]]:
        variables, window, others = given
        x, acts = block.apply(variables, x, window)
        return x, {
            layer: take(layer, act.astype(jnp.float32), others) for layer, act in acts.items()
        }

    found: dict[str, Any] = {}
    for number, names in groupby(needed, key=lambda name: name[4]):
        block = Block(
            tuple(names),
            layers,
            widths,
            padding=network.convention.padding,
            precision=network.precision,
            pooling=None if number == deepest[4] else pooling,
        )
        of_block = partial(apply, block)
        x, taken = (_computed_again(of_block) if remat else of_block)(given, x)
        found |= taken
    return {layer: found[layer] for layer in layers}


def _computed_again(function: Callable[[Any, jax.Array], Any]) -> Callable[[Any, jax.Array], Any]:
    """Let a function's gradient keep nothing but the arguments and compute the rest again.

    What `jax.checkpoint` is for; but the CPU's compiler drops its barrier and then merges what is
    computed twice.
    """
    call = jax.custom_vjp(function)

    def forward(given: Any, x: jax.Array) -> tuple[Any, Any]:
        return function(given, x), (given, x)

    def backward(saved: Any, cotangent: Any) -> Any:
        given, x = saved
        # True of any number, which no compiler knows: what follows has to wait for the cotangent.
        later = jax.tree.leaves(cotangent)[0].reshape(-1)[0]
        x = jnp.where(later == later, x, 0)
        return jax.vjp(function, given, x)[1](cotangent)

    call.defvjp(forward, backward)
    return call


class _FrozenWidths(dict):
    """A dict that may be a module's attribute: linen wants its fields hashable."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(tuple(sorted(self.items())))
