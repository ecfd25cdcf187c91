"""Make the embedded network's stand-in: VGG-19's shape, narrow, with seeded random weights.

Orthogonal kernels, each channel scaled to a mean activation of 1 (as Gatys normalises VGG-19)
over pictures that this script generates. Such a network knows nothing of pictures; it
serves to compare a trained one with.

    python experiments/untrained.py OUT.safetensors
"""

import dataclasses
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxstyle.vgg import CONVENTIONS, Network, convolutions, features
from jaxstyle.weights import save_network

WIDTHS = (16, 32, 64, 128, 128)


def untrained_network(seed: int = 0) -> Network:
    """Draw the kernels, then normalise layer by layer, each on the normalised one before."""
    network = Network({}, "vgg19", CONVENTIONS["caffe"], name="untrained")
    pictures = generated_pictures(jax.random.key(seed + 1))
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
            jnp.stack([features(trial, p, (relu,))[relu].mean((0, 1)) for p in pictures]), 0
        )
        params[layer] = {"kernel": kernel / jnp.maximum(mean, 1e-3), "bias": jnp.zeros(out)}
        width = out
    return dataclasses.replace(
        network,
        params=params,
        source=f"experiments/untrained.py, seed {seed}",
        licence="MIT",
        normalised=True,
    )


def generated_pictures(key: jax.Array, count: int = 8, side: int = 128) -> list[jax.Array]:
    """Paint noise at several scales, coloured: nothing but a spread of inputs."""
    pictures = []
    for k in jax.random.split(key, count):
        picture = jnp.zeros((side, side, 3))
        for level, one in enumerate(jax.random.split(k, 6)):
            coarse = jax.random.normal(one, (2 ** (level + 1), 2 ** (level + 1), 3))
            picture += jax.image.resize(coarse, picture.shape, "linear") / (level + 1)
        pictures.append(jax.nn.sigmoid(picture))
    return pictures


if __name__ == "__main__":
    save_network(untrained_network(), sys.argv[1])
