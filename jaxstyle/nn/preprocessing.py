"""Preprocessing of an RGB image to the network's input, as in the network's training."""

import flax.struct
import jax
import jax.numpy as jnp


@flax.struct.dataclass
class Preprocessing:
    """Parameters of the preprocessing of an RGB image in [0, 1] to a network's input x.

    x = (channels reordered · scale − mean) / std, with `mean` and `std` given in
    the network's own channel order. All fields are static under `jit`.
    """

    channel_order: str = flax.struct.field(pytree_node=False)
    """`"rgb"` or `"bgr"`."""
    scale: float = flax.struct.field(pytree_node=False)
    """Value of white before normalization: 255 for the Caffe networks, 1 for torchvision's."""
    mean: tuple[float, float, float] = flax.struct.field(pytree_node=False)
    """Mean of each channel, in the units of `scale`."""
    std: tuple[float, float, float] = flax.struct.field(pytree_node=False)
    """Standard deviation of each channel, in the units of `scale`."""
    padding: str = flax.struct.field(pytree_node=False, default="zeros")
    """Padding of the convolutions: `"zeros"`, `"reflect"`, or `"edge-first"` for the repeated edge
    in the first convolution and zeros in the others."""


CONVENTIONS: dict[str, Preprocessing] = {
    "caffe": Preprocessing("bgr", 255.0, (103.939, 116.779, 123.68), (1.0, 1.0, 1.0)),
    "torchvision": Preprocessing("rgb", 1.0, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}
"""Preprocessing of the published networks."""


def preprocess(convention: Preprocessing, image: jax.Array) -> jax.Array:
    """Return the network's input for an RGB image `[h, w, 3]` in [0, 1], of the same shape."""
    if convention.channel_order == "bgr":
        image = image[..., ::-1]
    # With the image's rank, for `jax_numpy_rank_promotion="raise"`.
    mean, std = (
        jnp.asarray(channels, image.dtype)[None, None]
        for channels in (convention.mean, convention.std)
    )
    return (image * convention.scale - mean) / std
