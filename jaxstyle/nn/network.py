"""The type of a network: weights with topology, preprocessing and provenance."""

from collections.abc import Hashable, Mapping

import flax.struct
import jax

from jaxstyle.config.layers import convolutions
from jaxstyle.nn.preprocessing import Preprocessing

Params = Mapping[str, Mapping[str, jax.Array]]


@flax.struct.dataclass
class Network:
    """A network: weights with topology, preprocessing and provenance; a pytree.

    Pass it as an argument to jitted functions: as a closure its weights would be tens of
    megabytes of constants for the compiler to fold.
    """

    params: Params
    """`{"conv1_1": {"kernel": [3, 3, in, out], "bias": [out]}, ...}`."""
    topology: str = flax.struct.field(pytree_node=False)
    """`"vgg16"` or `"vgg19"`: the order of the layers."""
    convention: Preprocessing = flax.struct.field(pytree_node=False)
    name: str = flax.struct.field(pytree_node=False, default="unnamed")
    source: str = flax.struct.field(pytree_node=False, default="")
    """Source of the weights, in words or as an address."""
    license: str = flax.struct.field(pytree_node=False, default="")
    normalized: bool = flax.struct.field(pytree_node=False, default=False)
    """Whether the mean activation is about 1, of each channel, as Gatys scales VGG-19, or of each
    layer; the default weights of the objective's terms depend on it."""
    digest: str = flax.struct.field(pytree_node=False, default="")
    """SHA-256 over the arrays, as `jaxstyle.weights.digest` computes it."""
    transformed: Mapping[str, jax.Array] = flax.struct.field(default_factory=dict)
    """Winograd-transformed kernels by convolution; empty but in a run (`add_winograd_kernels`)."""
    precision: str = flax.struct.field(pytree_node=False, default="tf32")
    """Precision of the convolutions, a key of `PRECISIONS`."""

    @property
    def key(self) -> Hashable:
        """Equal for networks of the same weights and settings; without a digest, for this one."""
        return self.digest or id(self), jax.tree.structure(self)

    @property
    def layers(self) -> tuple[str, ...]:
        """The convolutions that the params hold without a gap from the first, in order."""
        held = []
        for layer in convolutions(self.topology):
            if layer not in self.params:
                break
            held.append(layer)
        return tuple(held)
