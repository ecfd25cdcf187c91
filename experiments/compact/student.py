"""The student: its widths, its start, and a forward pass in bfloat16.

The same function as `jaxstyle.nn.vgg` on the same params (`export.py` compares them). PyTorch,
because its convolutions use a processor's bfloat16 units, on CPU (AMX) as on GPU; XLA's on CPU
do not.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F

from jaxstyle.config.layers import convolutions

# Nothing teaches conv5_2 … conv5_4: a random layer there would pass for a trained one.
DEEPEST = "conv5_1"
INPUT_SCALE = 64.0
"""The student sees x / 64, so that a usual start suits it; export.py folds it into conv1_1."""

Tree = dict[str, dict[str, torch.Tensor]]
"""`{"conv1_1": {"kernel": [out, 9 * in], "bias": [out]}, ...}`, a kernel's row in the order
(row, column, input channel): one matrix a layer, as Muon wants them."""
Arrays = Mapping[str, Mapping[str, np.ndarray]]
"""The same with kernels `[3, 3, in, out]`, as weights files have them."""


def layers() -> tuple[str, ...]:
    """List the student's convolutions, conv1_1 … conv5_1."""
    chunk_size = convolutions("vgg19")
    return chunk_size[: chunk_size.index(DEEPEST) + 1]


def parse_widths(text: str) -> dict[str, int]:
    """Read the channels of each layer from 13 numbers, or of each block from 5, with slashes."""
    numbers = [int(n) for n in text.split("/")]
    if len(numbers) == 5:
        return {name: numbers[int(name[4]) - 1] for name in layers()}
    return dict(zip(layers(), numbers, strict=True))


def init(widths: Mapping[str, int], seed: int) -> Tree:
    """Draw kernels (He) and set biases to 0."""
    generator, width_in, student = torch.Generator().manual_seed(seed), 3, {}
    for name in layers():
        student[name] = {
            "kernel": torch.randn(widths[name], 9 * width_in, generator=generator)
            * (2 / (9 * width_in)) ** 0.5,
            "bias": torch.zeros(widths[name]),
        }
        width_in = widths[name]
    return student


def to_arrays(student: Tree) -> dict[str, dict[str, np.ndarray]]:
    """Turn a student into numpy arrays with kernels `[3, 3, in, out]`."""
    return {
        name: {
            "kernel": p["kernel"]
            .detach()
            .view(len(p["bias"]), 3, 3, -1)
            .permute(1, 2, 3, 0)
            .contiguous()
            .cpu()
            .numpy(),
            "bias": p["bias"].detach().cpu().numpy(),
        }
        for name, p in student.items()
    }


def uncentered(student: Tree, means: Mapping[str, torch.Tensor]) -> Tree:
    """Return a student that does with activations what `student` does with centered ones.

    Activations are positive: without their means (`{"conv1_1": [out], ...}`, constants), a small
    change of a kernel's weights does not add up to a large change of what comes out.
    """
    plain, before = {}, torch.zeros(3)
    for name, p in student.items():
        plain[name] = {
            "kernel": p["kernel"],
            "bias": p["bias"] - p["kernel"] @ before.repeat(9),
        }
        before = means[name]
    return plain


def _hwio(kernel: torch.Tensor, outputs: int) -> torch.Tensor:
    return kernel.view(outputs, 3, 3, -1).permute(1, 2, 3, 0).contiguous()


def from_arrays(arrays: Arrays) -> Tree:
    """Do the opposite of `to_arrays`."""
    return {
        name: {
            "kernel": torch.tensor(np.asarray(p["kernel"])).permute(3, 0, 1, 2).flatten(1),
            "bias": torch.tensor(np.asarray(p["bias"])),
        }
        for name, p in arrays.items()
    }


def features(
    student: Tree,
    x: torch.Tensor,
    wanted: Sequence[str],
    *,
    dtype: torch.dtype = torch.bfloat16,
    padding: str = "reflect",
) -> dict[str, torch.Tensor]:
    """Compute the activations after the ReLU at the `wanted` layers.

    Args:
      student: of any widths; as many layers from the first as there are.
      x: `[n, 3, h, w]`, network input, float32.
      wanted: layers.
      padding: around every map, `"reflect"` or `"zeros"`.
      dtype: of all but conv1_1, whose input has more values than bfloat16 can tell apart.

    Returns:
      `{layer: [n, c, h', w']}` of `dtype`, in the memory format of channels last.
    """
    found, block = {}, "1"
    x = x / INPUT_SCALE
    for name in student:
        if name[4] != block:
            x, block = F.max_pool2d(x, 2), name[4]
        kind = torch.float32 if name == "conv1_1" else dtype
        p = student[name]
        x = convolve(x.to(kind), p["kernel"], p["bias"], padding=padding).relu().to(dtype)
        rectified = name.replace("conv", "relu")
        if rectified in wanted:
            found[rectified] = x
    return found


def convolve(
    x: torch.Tensor, kernel: torch.Tensor, bias: torch.Tensor, *, padding: str = "reflect"
) -> torch.Tensor:
    """Convolve with a kernel as `Tree` has it."""
    weight = kernel.to(x.dtype).view(len(bias), 3, 3, -1).permute(0, 3, 1, 2)
    mode = "constant" if padding == "zeros" else padding
    return F.conv2d(F.pad(x, (1, 1, 1, 1), mode=mode), weight, bias.to(x.dtype))
