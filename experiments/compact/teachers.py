"""The two teachers, read from npz files, and the targets that they give.

Exact VGG-19 (normalized) teaches relu1_1 … relu3_4, the layers that its file holds. Deeper
targets come from a distilled VGG-19 with narrow layers, whose 1x1 `aux` maps lead from
relu4_1 and relu5_1 to the 512 channels of VGG-19; its own activations at relu4_2 … relu4_4
stand in where it has no map.
"""

from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import torch
import torch.nn.functional as F

from jaxstyle.nn.network import Network, Params
from jaxstyle.nn.preprocessing import CONVENTIONS

EXACT_FILE = "vgg19_normalised_bgr_conv1_1-conv3_4.npz"
DISTILLED_FILE = "vgg19_compact_teacher_SE5.npz"

EXACT = tuple(f"relu{b}_{i}" for b, n in ((1, 2), (2, 2), (3, 4)) for i in range(1, n + 1))
MAPPED = ("relu4_1", "relu5_1")
HIDDEN = ("relu4_2", "relu4_3", "relu4_4")
TARGETS = (*EXACT, "relu4_1", *HIDDEN, "relu5_1")


def read_exact(path: Path, *, topology: str = "vgg19") -> Network:
    """Read an npz with keys `convX_Y.weight` (OIHW) and `convX_Y.bias`."""
    with np.load(path) as arrays:
        names = sorted({key.split(".")[0] for key in arrays})
        params = {name: _layer(arrays, name) for name in names}
    return Network(params, topology, CONVENTIONS["caffe"], name=path.stem)


def read_distilled(path: Path) -> tuple[Network, Params]:
    """Read the distilled teacher: its network, and its aux maps as `{relu: {kernel, bias}}`.

    Its `conv0` turns RGB in [0, 1] into the Caffe input to within rounding of the mean (0.4 of
    255), so it is left out and the network takes the Caffe input itself.
    """
    with np.load(path) as arrays:
        keys = {key.split(".")[0] for key in arrays} - {"conv0"}
        params = {
            f"conv{k[4]}_{k[5]}": _layer(arrays, k) for k in sorted(keys) if not k.endswith("_aux")
        }
        maps = {
            f"relu{k[4]}_{k[5]}": {
                "kernel": jnp.asarray(arrays[f"{k}.weight"][:, :, 0, 0].T),
                "bias": jnp.asarray(arrays[f"{k}.bias"]),
            }
            for k in sorted(keys)
            if k.endswith("_aux")
        }
    convention = CONVENTIONS["caffe"].replace(padding="reflect")
    return Network(params, "vgg19", convention, name=path.stem), maps


def _layer(arrays: np.lib.npyio.NpzFile, name: str) -> dict[str, jax.Array]:
    kernel = np.ascontiguousarray(arrays[f"{name}.weight"].transpose(2, 3, 1, 0))
    return {"kernel": jnp.asarray(kernel), "bias": jnp.asarray(arrays[f"{name}.bias"])}


SPARSE = {"1": 4, "2": 2, "3": 2}
"""In training, rows and columns from one kept position to the next, by block.

Neighbors say nearly the same, and the heads' products with all of VGG-19's channels would take as
long as the student.
"""
DENSE = {"1": 2, "2": 2}
"""The same where results are measured."""


def thin(layer: str, x: torch.Tensor, spacing: Mapping[str, int]) -> torch.Tensor:
    """Keep one row and column of `spacing[block]`."""
    step = spacing.get(layer[4], 1)
    if step == 1:
        return x
    # Cut as channels last, that the gradient comes back in that format.
    cut = x.permute(0, 2, 3, 1)[:, step // 2 :: step, step // 2 :: step]
    return cut.permute(0, 3, 1, 2)


def _thinned(layer: str, x: torch.Tensor, spacing: Mapping[str, int]) -> torch.Tensor:
    return thin(layer, x, spacing).contiguous(memory_format=torch.channels_last)


class Teachers:
    """Both teachers as one function from crops to targets, computed in bfloat16.

    Both reflect the map at its edges. VGG-19 was trained with zeros there; but zeros are an edge
    that no photograph has, and a student taught to see it paints a frame.
    """

    def __init__(self, folder: Path, *, padding: str = "reflect"):
        exact = read_exact(folder / EXACT_FILE)
        distilled, maps = read_distilled(folder / DISTILLED_FILE)
        self._exact = _tensors(exact.params)
        self._distilled = _tensors(distilled.params)
        self._maps = {
            layer: {part: torch.tensor(np.asarray(a)) for part, a in m.items()}
            for layer, m in maps.items()
        }
        self._padding = padding

    @torch.no_grad()
    def targets(
        self,
        x: torch.Tensor,
        *,
        spacing: Mapping[str, int] = SPARSE,
        dtype: torch.dtype = torch.bfloat16,
    ) -> dict[str, torch.Tensor]:
        """Compute `{layer: [n, c, h', w']}` for network inputs `[n, 3, h, w]`."""
        found = _forward(self._exact, x, self._padding, dtype)
        deep = _forward(self._distilled, x, "reflect", dtype)
        found |= {layer: deep[layer] for layer in ("relu4_1", *HIDDEN, "relu5_1")}
        for layer in MAPPED:
            m = self._maps[layer]
            mapped = found[layer].permute(0, 2, 3, 1) @ m["kernel"].to(dtype) + m["bias"].to(dtype)
            found[layer] = mapped.permute(0, 3, 1, 2)
        return {layer: _thinned(layer, found[layer], spacing) for layer in TARGETS}


def _tensors(params: Params) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    return {
        name: (
            torch.tensor(np.asarray(p["kernel"]))
            .permute(3, 2, 0, 1)
            .contiguous(memory_format=torch.channels_last),
            torch.tensor(np.asarray(p["bias"])),
        )
        for name, p in params.items()
    }


def _forward(
    layers: dict[str, tuple[torch.Tensor, torch.Tensor]],
    x: torch.Tensor,
    padding: str,
    dtype: torch.dtype,
) -> dict[str, torch.Tensor]:
    found, block = {}, "1"
    for name, (weight, bias) in layers.items():
        if name[4] != block:
            x, block = F.max_pool2d(x, 2), name[4]
        kind = torch.float32 if name == "conv1_1" else dtype
        x, weight, bias = x.to(kind), weight.to(kind), bias.to(kind)
        if padding == "reflect":
            x = F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), weight, bias)
        else:
            x = F.conv2d(x, weight, bias, padding=1)
        x = x.relu_().to(dtype)
        found[name.replace("conv", "relu")] = x
    return found
