"""Problems that tests share: narrow random networks, small images, a float64 reference."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from jaxstyle import Network
from jaxstyle.config.layers import convolutions
from jaxstyle.nn.preprocessing import CONVENTIONS

# Channels of the five blocks: enough to tell a transposed kernel from a right one.
WIDTHS = (4, 6, 8, 8, 8)
# For tests of other things than style losses: it compiles faster than the default, which factors
# matrices.
STYLE_LOSS = "gram"


def make_network(
    topology="vgg19", *, convention="caffe", padding="zeros", blocks=5, widths=WIDTHS, seed=0
):
    """Random weights with activations of about 1 in every layer."""
    rng = np.random.default_rng(seed)
    taken = CONVENTIONS[convention]
    params, channels = {}, 3
    for layer in convolutions(topology):
        block = int(layer[4])
        if block > blocks:
            break
        width = widths[block - 1]
        kernel = rng.normal(size=(3, 3, channels, width)) * np.sqrt(2 / (9 * channels))
        if layer == "conv1_1" and taken.scale == 255:
            kernel /= 60
        params[layer] = {
            "kernel": jnp.asarray(kernel.astype(np.float32)),
            "bias": jnp.asarray((rng.normal(size=width) * 0.1).astype(np.float32)),
        }
        channels = width
    return Network(
        params, topology, dataclasses.replace(taken, padding=padding), name=f"narrow-{topology}"
    )


def make_image(height=32, width=32, seed=0):
    """Smooth blobs of color with a little noise, RGB float32 in [0, 1]."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / 16
    phase = rng.uniform(0, 6, size=(3, 3))
    waves = [np.sin(a * y + b * x + c) for a, b, c in phase]
    noise = rng.normal(size=(height, width, 3)) * 0.05
    return np.clip(0.5 + 0.35 * np.stack(waves, -1) + noise, 0, 1).astype(np.float32)


class TorchReference:
    """The network and the contract's objective in float64, sharing no code with the library."""

    def __init__(self, torch):
        self.torch = torch
        self.functional = torch.nn.functional

    def input(self, network, image):
        """From RGB `[h, w, 3]` to the network's input `[3, h, w]`."""
        torch, convention = self.torch, network.convention
        x = image.to(torch.float64).permute(2, 0, 1)
        if convention.channel_order == "bgr":
            x = x.flip(0)
        mean = torch.tensor(convention.mean, dtype=torch.float64)[:, None, None]
        std = torch.tensor(convention.std, dtype=torch.float64)[:, None, None]
        return (x * convention.scale - mean) / std

    def activations(self, network, x, *, pooling="max"):
        """Every conv and ReLU layer of `x`, each `[c, h, w]`."""
        torch, functional = self.torch, self.functional
        pool = {"max": functional.max_pool2d, "avg": functional.avg_pool2d}[pooling]
        found, block, x = {}, "1", x[None]
        for name, arrays in network.params.items():
            if name[4] != block:
                x, block = pool(x, 2), name[4]
            if min(x.shape[-2:]) < (2 if network.convention.padding == "reflect" else 1):
                break
            kernel = torch.from_numpy(np.array(arrays["kernel"], np.float64)).permute(3, 2, 0, 1)
            bias = torch.from_numpy(np.array(arrays["bias"], np.float64))
            mode = {"zeros": "constant", "reflect": "reflect"}[network.convention.padding]
            x = functional.conv2d(functional.pad(x, (1, 1, 1, 1), mode=mode), kernel, bias)
            found[name] = x[0]
            x = x.relu()
            found[name.replace("conv", "relu")] = x[0]
        return found

    def gram(self, act):
        flat = act.flatten(1)
        return flat @ flat.T / act.numel()

    def terms(self, network, recipe, image, content, styles, blend):
        """The weighted content, style and tv terms, by the contract's formula."""
        x = self.input(network, image)

        def acts(image):
            return self.activations(network, self.input(network, image), pooling=recipe.pooling)

        mine = self.activations(network, x, pooling=recipe.pooling)
        theirs, paintings = acts(content), [acts(style) for style in styles]
        total = sum(blend)
        content_term = sum(
            w * (mine[layer] - theirs[layer]).square().mean() for layer, w in recipe.content_layers
        )
        style_term = 0.0
        for layer, w in recipe.style_layers:
            wanted = sum(
                b / total * self.gram(p[layer]) for b, p in zip(blend, paintings, strict=True)
            )
            style_term = style_term + w * (self.gram(mine[layer]) - wanted).square().mean()
        tv = (x[:, 1:] - x[:, :-1]).abs().sum() + (x[:, :, 1:] - x[:, :, :-1]).abs().sum()
        return (
            recipe.content_weight * content_term,
            recipe.style_weight * style_term,
            recipe.tv_weight * tv,
        )
