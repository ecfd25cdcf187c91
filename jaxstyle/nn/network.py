"""The type of a network: weights with topology, preprocessing and provenance."""

from collections.abc import Hashable, Mapping

import flax.struct
import jax

from jaxstyle.config.layers import convolution_of, convolutions
from jaxstyle.nn.preprocessing import Preprocessing

Params = Mapping[str, Mapping[str, jax.Array]]


@flax.struct.dataclass
class Network:
    """A network: weights with topology, preprocessing and provenance; a pytree.

    Pass it to jitted functions as an argument: closed over, its weights would be tens of
    megabytes of constants in the program.
    """

    params: Params
    """`{"conv1_1": {"kernel": [3, 3, in, out], "bias": [out]}, ...}`."""
    topology: str = flax.struct.field(pytree_node=False)
    """`"vgg16"` or `"vgg19"`, which determines the order of the layers."""
    convention: Preprocessing = flax.struct.field(pytree_node=False)
    """Preprocessing of images to the network's input."""
    name: str = flax.struct.field(pytree_node=False, default="unnamed")
    """Name for reports and messages."""
    source: str = flax.struct.field(pytree_node=False, default="")
    """Source of the weights, in words or as an address."""
    license: str = flax.struct.field(pytree_node=False, default="")
    """License of the weights, if known."""
    normalized: bool = flax.struct.field(pytree_node=False, default=False)
    """Whether the mean activation is about 1, for each channel (as Gatys scales VGG-19) or for each
    layer; the default weights of the objective's terms depend on it."""
    digest: str = flax.struct.field(pytree_node=False, default="")
    """SHA-256 of the arrays, from `jaxstyle.weights.digest`."""
    transformed: Mapping[str, jax.Array] = flax.struct.field(default_factory=dict)
    """Winograd-transformed kernels by convolution, in runs only (`add_winograd_kernels`)."""
    precision: str = flax.struct.field(pytree_node=False, default="tf32")
    """Precision of the convolutions, a key of `PRECISIONS`."""

    @property
    def key(self) -> Hashable:
        """A key that is equal for networks with equal weights and settings; without a digest, it
        identifies this object."""
        return self.digest or id(self), jax.tree.structure(self)

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the convolutions in `params`, from the first up to the first missing one."""
        names = []
        for layer in convolutions(self.topology):
            if layer not in self.params:
                break
            names.append(layer)
        return tuple(names)

    def channels(self, layer: str) -> int:
        """Return the number of channels of a layer."""
        return int(self.params[convolution_of(layer)]["bias"].shape[-1])
