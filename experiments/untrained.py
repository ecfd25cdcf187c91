"""Make the embedded network's stand-in: VGG-19's shape, narrow, with seeded random weights.

Orthogonal kernels, each channel scaled to a mean activation of 1 (as Gatys normalizes VGG-19)
over images that this script generates. Such a network knows nothing of images; it
serves to compare a trained one with.

    python experiments/untrained.py OUT.safetensors
"""

import dataclasses
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxstyle.config.layers import convolutions
from jaxstyle.nn.network import Network
from jaxstyle.nn.preprocessing import CONVENTIONS
from jaxstyle.nn.vgg import features
from jaxstyle.weights import save_network

WIDTHS = (16, 32, 64, 128, 128)


def untrained_network(seed: int = 0) -> Network:
    """Draw the kernels, then normalize layer by layer, each on the normalized one before."""
    network = Network({}, "vgg19", CONVENTIONS["caffe"], name="untrained")
    images = generated_images(jax.random.key(seed + 1))
    width = 3
    params: dict[str, dict[str, jax.Array]] = {}
    for i, layer in enumerate(convolutions("vgg19")):
        out = WIDTHS[int(layer[4]) - 1]
        key = jax.random.fold_in(jax.random.key(seed), i)
        kernel = nn.initializers.orthogonal()(key, (3, 3, width, out))
        params[layer] = {"kernel": kernel, "bias": jnp.zeros(out)}
        trial = dataclasses.replace(network, params=params)
        relu = layer.replace("conv", "relu")
        mean = jnp.mean(
            jnp.stack([features(trial, p, (relu,))[relu].mean((0, 1)) for p in images]), 0
        )
        params[layer] = {"kernel": kernel / jnp.maximum(mean, 1e-3), "bias": jnp.zeros(out)}
        width = out
    return dataclasses.replace(
        network,
        params=params,
        source=f"experiments/untrained.py, seed {seed}",
        license="MIT",
        normalized=True,
    )


def generated_images(key: jax.Array, count: int = 8, side: int = 128) -> list[jax.Array]:
    """Paint noise at several scales, colored: nothing but a spread of inputs."""
    images = []
    for k in jax.random.split(key, count):
        image = jnp.zeros((side, side, 3))
        for level, one in enumerate(jax.random.split(k, 6)):
            coarse = jax.random.normal(one, (2 ** (level + 1), 2 ** (level + 1), 3))
            image += jax.image.resize(coarse, image.shape, "linear") / (level + 1)
        images.append(jax.nn.sigmoid(image))
    return images


if __name__ == "__main__":
    save_network(untrained_network(), sys.argv[1])
