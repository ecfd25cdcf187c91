"""VGG-16 and VGG-19 without their classifier, as a Flax module over a plain dict of params.

The params are `{"conv1_1": {"kernel": [3, 3, in, out], "bias": [out]}, ...}`. Their
shapes determine the widths, so that one module serves the original networks and narrow
ones. Preprocessing belongs to the weights (`Preprocessing`).

Reference:
  Simonyan & Zisserman, Very Deep Convolutional Networks for Large-Scale Image
  Recognition, arXiv:1409.1556, table 1, columns D (VGG-16) and E (VGG-19).
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import groupby
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxstyle.config.layers import check_layers, convolution_of, convolutions, stride
from jaxstyle.config.validation import choice
from jaxstyle.nn.convolution import convolve, use_winograd
from jaxstyle.nn.geometry import Window, check_image_size
from jaxstyle.nn.network import Network
from jaxstyle.nn.pooling import POOLINGS
from jaxstyle.nn.preprocessing import preprocess
from jaxstyle.nn.winograd import transform


def _pad_beyond_image(x: jax.Array, window: Window, cell: int, mode: str) -> jax.Array:
    """Return a map with the positions beyond the image's lower and right edges set to padding."""
    for axis, (start, size) in enumerate(
        ((window.top, window.height), (window.left, window.width))
    ):
        index = start // cell + jnp.arange(x.shape[axis])
        index = index.reshape(-1, *[1] * (2 - axis))
        if mode == "zeros":
            x = jnp.where(index < size // cell, x, 0)
        else:  # A 3x3 convolution needs one row of a reflection or a repeated edge.
            beyond = jnp.roll(x, {"reflect": 2, "edge": 1}[mode], axis)
            x = jnp.where(index == size // cell, beyond, x)
    return x


class Block(nn.Module):
    """Consecutive convolutions of one block of a VGG, and its pooling if a deeper block follows.

    Applied to `[h, w, channels]`, it returns the input of the next block and `{layer: [h, w, c]}`
    for those of `layers` that are in this block.
    """

    convolutions: tuple[str, ...]
    """Names of the convolutions in order."""
    layers: tuple[str, ...]
    """Layers whose activations are returned."""
    widths: tuple[int, ...]
    """Output channels of each convolution."""
    padding: str = "zeros"
    """As in `Preprocessing`."""
    precision: str = "tf32"
    """A key of `PRECISIONS`."""
    pooling: str | None = None
    """A key of `POOLINGS`; None if no block follows."""

    @nn.compact
    def __call__(
        self, x: jax.Array, window: Window | None = None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        acts: dict[str, jax.Array] = {}
        for name, width in zip(self.convolutions, self.widths, strict=True):
            if window is not None:
                x = _pad_beyond_image(x, window, stride(name), self._mode(name))
            x = self._convolve(x, name, width)
            acts[name] = x
            x = nn.relu(x)
            acts[name.replace("conv", "relu")] = x
        kept = {layer: acts[layer] for layer in acts if layer in self.layers}
        return POOLINGS[self.pooling](x) if self.pooling else x, kept

    def _mode(self, name: str) -> str:
        """Return the padding mode of a convolution: `"zeros"`, `"reflect"` or `"edge"`."""
        if self.padding == "edge-first":
            return "edge" if name == "conv1_1" else "zeros"
        return self.padding

    def _convolve(self, x: jax.Array, name: str, width: int) -> jax.Array:
        mode = self._mode(name)
        convolution = Convolution(width, self.precision, name=name)
        if mode == "zeros":
            return convolution(x)
        # Pad by one, and crop the result of a zero-padded convolution: the gradient of an unpadded
        # convolution takes 2.5 times as long on CPUs.
        x = jnp.pad(x, ((1, 1), (1, 1), (0, 0)), mode=mode)
        return convolution(x)[1:-1, 1:-1]


class Convolution(nn.Module):
    """A 3x3 convolution with bias."""

    width: int
    """Output channels."""
    precision: str
    """A key of `PRECISIONS`."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (3, 3, x.shape[-1], self.width)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.width,))
        bias = jnp.expand_dims(bias, tuple(range(x.ndim - 1)))
        transformed: jax.Array | None = self.get_variable("transformed", "kernel")
        y = convolve(x, kernel.astype(x.dtype), transformed, self.precision) + bias
        # bfloat16 has too few bits for the image, so only features are rounded.
        return y.astype(jnp.bfloat16 if self.precision == "bfloat16" else x.dtype)


def add_winograd_kernels(
    network: Network,
    layers: Sequence[str],
    height: int,
    width: int,
    *,
    platform: str | None = None,
) -> Network:
    """Return the network with Winograd-transformed kernels where they are faster.

    For runs of many evaluations, as transformed kernels take four times the memory. Activations
    differ from those of direct convolutions by rounding. The network is returned unchanged for
    bfloat16, whose rounding errors the transformations magnify, and on other devices than CPUs.

    Args:
      network: weights; arrays or `jax.ShapeDtypeStruct`s.
      layers: layers whose activations will be computed.
      height: height of the image, or of a tile with its margin, in pixels.
      width: width of the same in pixels.
      platform: platform of the device; the default backend if not given.
    """
    if network.precision == "bfloat16" or (platform or jax.default_backend()) != "cpu":
        return network
    deepest = max(map(convolution_of, layers), default="")
    kernels = {}
    for name in network.layers:
        kernel, cell = network.params[name]["kernel"], stride(name)
        if name <= deepest and use_winograd(height // cell, width // cell, *kernel.shape[2:]):
            kernels[name] = kernel
    shapes = any(isinstance(kernel, jax.ShapeDtypeStruct) for kernel in kernels.values())
    transformed = jax.eval_shape(_transformed, kernels) if shapes else _transformed(kernels)
    return network.replace(transformed=transformed)  # type: ignore[attr-defined]


@jax.jit
def _transformed(kernels: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """Return kernels transformed by `winograd.transform`."""
    return {name: transform(kernel) for name, kernel in kernels.items()}


def features(
    network: Network, image: jax.Array, layers: Sequence[str], *, pooling: str = "max"
) -> dict[str, jax.Array]:
    """Compute the activations of an image at some layers.

    Args:
      network: weights; those beyond the deepest layer are not used.
      image: RGB `[h, w, 3]`, float32, in [0, 1]; values outside are allowed.
      layers: names such as `"relu4_2"` (after the ReLU) or `"conv4_2"` (before it).
      pooling: `"max"` (as trained), `"avg"` (Gatys et al. 2016, section 2: smoother results) or
        `"max-ceil"` (as trained, with the sizes of Caffe).

    Returns:
      `{layer: [h / 2**(block-1), w / 2**(block-1), channels]}`, with sizes rounded down, or up for
      `"max-ceil"`.

    Raises:
      JaxstyleError: a layer or pooling does not exist, or the image is too small for a layer.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxstyle
      >>> network = jaxstyle.load_network("compact")
      >>> jaxstyle.features(network, jnp.zeros((32, 48, 3)), ["relu2_1"])["relu2_1"].shape[:2]
      (16, 24)
    """
    layers = tuple(dict.fromkeys(layers))
    if not layers:
        return {}
    check_layers(network, layers)
    choice(tuple(POOLINGS))("pooling", pooling)
    return activations(network, preprocess(network.convention, image), layers, pooling=pooling)


def activations(
    network: Network,
    x: jax.Array,
    layers: tuple[str, ...],
    *,
    pooling: str,
    window: Window | None = None,
) -> dict[str, jax.Array]:
    """Compute `features` from the network's input instead of an image, without checks.

    Args:
      network: weights.
      x: the network's input, `[h, w, 3]` (`preprocess`).
      layers: names without duplicates.
      pooling: as in `features`.
      window: position of `x`, if it is a part of the input; activations within
        `receptive_margin` of its inner edges are then wrong.
    """
    return map_layers(network, x, layers, lambda layer, act, _: act, pooling=pooling, window=window)


def map_layers(
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
    """Compute a function of the activations of each layer, one block after the other.

    Args:
      network: weights.
      x: as in `activations`.
      layers: as in `activations`.
      take: `(layer, activations in float32, others) -> pytree`.
      others: a pytree of further arrays for `take`.
      pooling: as in `activations`.
      window: as in `activations`.
      remat: whether the gradient stores only the inputs of blocks and recomputes each block.

    Returns:
      `{layer: result of take}`.
    """
    check_image_size(network, x.shape[0], x.shape[1], layers)
    variables: dict[str, Any] = {
        "params": network.params,
        "transformed": {name: {"kernel": kept} for name, kept in network.transformed.items()},
    }
    deepest = max(map(convolution_of, layers))
    needed = (name for name in convolutions(network.topology) if name <= deepest)
    constants = variables, window, others

    def apply(block: Block, constants: Any, x: jax.Array) -> tuple[jax.Array, dict[str, Any]]:
        variables, window, others = constants
        x, acts = block.apply(variables, x, window)
        return x, {
            layer: take(layer, act.astype(jnp.float32), others) for layer, act in acts.items()
        }

    values: dict[str, Any] = {}
    for number, group in groupby(needed, key=lambda name: name[4]):
        names = tuple(group)
        block = Block(
            names,
            layers,
            widths=tuple(map(network.channels, names)),
            padding=network.convention.padding,
            precision=network.precision,
            pooling=None if number == deepest[4] else pooling,
        )
        of_block = partial(apply, block)
        x, block_values = (_rematerialized(of_block) if remat else of_block)(constants, x)
        values |= block_values
    return {layer: values[layer] for layer in layers}


def _rematerialized(function: Callable[[Any, jax.Array], Any]) -> Callable[[Any, jax.Array], Any]:
    """Return a function whose gradient stores only its arguments and recomputes the rest.

    Like `jax.checkpoint`, whose optimization barrier the CPU compiler removes before it merges the
    two equal computations.
    """
    call = jax.custom_vjp(function)

    def forward(constants: Any, x: jax.Array) -> tuple[Any, Any]:
        return function(constants, x), (constants, x)

    def backward(saved: Any, cotangent: Any) -> Any:
        constants, x = saved
        # The comparison makes x depend on the cotangent; the compiler cannot tell that it is true.
        later = jax.tree.leaves(cotangent)[0].reshape(-1)[0]
        x = jnp.where(later == later, x, 0)
        return jax.vjp(function, constants, x)[1](cotangent)

    call.defvjp(forward, backward)
    return call
