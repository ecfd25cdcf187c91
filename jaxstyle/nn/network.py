"""Weights with what is needed to use and to name them."""

from collections.abc import Mapping

import flax.struct
import jax

from jaxstyle.config.layers import convolutions
from jaxstyle.nn.preprocessing import Preprocessing

Params = Mapping[str, Mapping[str, jax.Array]]


@flax.struct.dataclass
class Network:
    """Weights with what is needed to use and to name them: a pytree whose leaves are `params`.

    Pass it as an argument to jitted functions; closing over it makes the compiler
    fold tens of megabytes of constants.
    """

    params: Params
    topology: str = flax.struct.field(pytree_node=False)
    """`"vgg16"` or `"vgg19"`: which layer follows which."""
    convention: Preprocessing = flax.struct.field(pytree_node=False)
    name: str = flax.struct.field(pytree_node=False, default="unnamed")
    source: str = flax.struct.field(pytree_node=False, default="")
    """Where the numbers come from, in words or as an address."""
    license: str = flax.struct.field(pytree_node=False, default="")
    normalized: bool = flax.struct.field(pytree_node=False, default=False)
    """Whether every channel's mean activation is about 1, as Gatys scales VGG-19; the default
    weights of the objective's terms depend on it."""
    digest: str = flax.struct.field(pytree_node=False, default="")
    """SHA-256 over the arrays, as `jaxstyle.weights.digest` computes it."""
    transformed: Mapping[str, jax.Array] = flax.struct.field(default_factory=dict)
    """Winograd-transformed kernels by convolution; empty but in a run (`add_winograd_kernels`)."""
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
