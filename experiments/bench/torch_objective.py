"""The classical objective in PyTorch, for benchmarks: the rival and the independent reference.

Imports nothing of JAX, so that a process that needs PyTorch alone has it alone.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from jaxstyle import Network, Recipe


class TorchObjective:
    """`image [1, 3, h, w] in [0, 1] -> loss` with zero padding and max pooling, channels last."""

    def __init__(
        self, network: "Network", content: Any, style: Any, recipe: "Recipe", *, device: str = "cpu"
    ) -> None:
        self.network, self.recipe = network, recipe
        self.kernels = {
            name: (
                torch.tensor(np.asarray(p["kernel"]).transpose(3, 2, 0, 1))
                .contiguous(memory_format=torch.channels_last)
                .to(device),
                torch.tensor(np.asarray(p["bias"])).to(device),
            )
            for name, p in network.params.items()
        }
        convention = network.convention
        self.mean = torch.tensor(convention.mean).view(1, 3, 1, 1).to(device)
        self.std = torch.tensor(convention.std).view(1, 3, 1, 1).to(device)
        self.layers = dict(recipe.content_layers) | dict(recipe.style_layers)
        with torch.no_grad():
            self.content = self.features(to_tensor(content, device=device))
            style_features = self.features(to_tensor(style, device=device))
            self.grams = {layer: gram(style_features[layer]) for layer, _ in recipe.style_layers}

    def features(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        convention = self.network.convention
        x = image.flip(1) if convention.channel_order == "bgr" else image
        x = (x * convention.scale - self.mean) / self.std
        found, block = {"input": x}, "1"
        for name in self.network.layers:
            if len(found) > len(self.layers):
                break
            if name[4] != block:
                x, block = F.max_pool2d(x, 2), name[4]
            x = F.relu(F.conv2d(x, *self.kernels[name], padding=1))
            layer = name.replace("conv", "relu")
            if layer in self.layers:
                found[layer] = x
        return found

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        recipe, found = self.recipe, self.features(image)
        loss = image.new_zeros(())
        for layer, weight in recipe.content_layers:
            difference = found[layer] - self.content[layer]
            loss = loss + recipe.content_weight * weight * difference.square().mean()
        for layer, weight in recipe.style_layers:
            difference = gram(found[layer]) - self.grams[layer]
            loss = loss + recipe.style_weight * weight * difference.square().mean()
        x = found["input"]
        variation = (x[:, :, 1:] - x[:, :, :-1]).abs().sum()
        variation = variation + (x[..., 1:] - x[..., :-1]).abs().sum()
        return loss + recipe.tv_weight * variation


def to_tensor(image: Any, *, device: str = "cpu") -> torch.Tensor:
    """Turn `[h, w, 3]` into `[1, 3, h, w]`, channels last in memory."""
    tensor = torch.tensor(np.asarray(image)).permute(2, 0, 1)[None]
    return tensor.contiguous(memory_format=torch.channels_last).to(device)


def gram(features: torch.Tensor) -> torch.Tensor:
    flat = features.flatten(2)[0]
    return flat @ flat.T / flat.numel()
