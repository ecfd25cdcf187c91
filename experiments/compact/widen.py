"""Return a student more channels, in the place of dead ones too, and fit linear heads.

A layer's old channels go on computing what they did: their kernels get zeros for new inputs.
Each new channel aims at one channel of the teacher: its kernel is the least-squares fit of that
channel's activation to the student's own layer before. The channels aimed at are chosen one after
the other, each to leave the least of what the old channels' best linear head does not explain.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from student import Tree, convolve, features
from teachers import SPARSE, TARGETS, thin

Batch = tuple[torch.Tensor, dict[str, torch.Tensor]]
RIDGE = 1e-3
"""Of the mean diagonal of a matrix of moments."""
LEAST_FIRING = 0.002
"""Channels that are not 0 at a smaller part of all positions are dead."""


def rows_of(x: torch.Tensor) -> torch.Tensor:
    """Turn `[n, c, h, w]` into float32 rows `[n * h * w, c]`."""
    return x.permute(0, 2, 3, 1).flatten(0, 2).float()


def least_squares(inputs: torch.Tensor, outputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Fit `inputs @ kernel + bias` to `outputs`, with a small ridge on the kernel."""
    mean_in, mean_out = inputs.mean(0), outputs.mean(0)
    centered = inputs - mean_in
    gram = (centered.T @ centered).double()
    ridge = RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    kernel = torch.linalg.solve(gram + ridge, (centered.T @ (outputs - mean_out)).double()).float()
    return kernel, mean_out - mean_in @ kernel


@torch.no_grad()
def fit_heads(student: Tree, batches: list[Batch], *, padding: str = "reflect") -> Tree:
    """Fit each layer's head; from arbitrary ones training would first have to find the means."""
    found = [features(student, x, TARGETS, padding=padding) for x, _ in batches]
    heads = {}
    for layer in TARGETS:
        inputs = torch.cat([rows_of(thin(layer, f[layer], SPARSE)) for f in found])
        outputs = torch.cat([rows_of(t[layer]) for _, t in batches])
        kernel, bias = least_squares(inputs, outputs)
        heads[layer] = {"kernel": kernel, "bias": bias}
    return heads


@torch.no_grad()
def standardized(student: Tree, batches: list[Batch]) -> tuple[Tree, dict[str, torch.Tensor]]:
    """Scale every channel to a standard deviation of 1 without changing what later layers compute.

    Returns:
      The student, and each convolution's channels' mean activations.
    """
    scaled, means = {}, {}
    before = torch.ones(3)
    found = [features(student, x, TARGETS) for x, _ in batches[:16]]
    for name, p in student.items():
        rows = torch.cat([rows_of(f[name.replace("conv", "relu")])[::7] for f in found])
        scale = 1 / rows.std(0).clamp_min(0.1 * rows.std(0).mean())
        kernel = p["kernel"] * before.repeat(9) * scale[:, None]
        scaled[name] = {"kernel": kernel, "bias": p["bias"] * scale}
        before, means[name] = 1 / scale, rows.mean(0) * scale
    return scaled, means


@torch.no_grad()
def without_dead(student: Tree, batches: list[Batch]) -> Tree:
    """Leave out the channels that fire at hardly any position."""
    totals = dict.fromkeys(TARGETS, torch.zeros(()))
    for x, _ in batches:
        for layer, act in features(student, x, TARGETS).items():
            totals[layer] = totals[layer] + (act > 0).float().mean((0, 2, 3))
    kept, alive_before = {}, torch.ones(3, dtype=torch.bool)
    for name, p in student.items():
        alive = totals[name.replace("conv", "relu")] > LEAST_FIRING * len(batches)
        kernel = p["kernel"].view(len(alive), 9, -1)[alive][..., alive_before].flatten(1)
        kept[name] = {"kernel": kernel, "bias": p["bias"][alive]}
        alive_before = alive
    return kept


@torch.no_grad()
def widen(student: Tree, widths: Mapping[str, int], batches: list[Batch], seed: int) -> Tree:
    """Return every layer the channels of `widths`, one layer after the other.

    conv1_1 takes random kernels: a fit to the image itself would copy the teacher's.
    """
    generator = torch.Generator().manual_seed(seed)
    wider: Tree = {}
    before, width_in = "", 3
    for name, old in student.items():
        old_kernel, old_bias = old["kernel"], old["bias"]
        more = widths[name] - len(old_bias)
        if more < 0:
            raise SystemExit(
                f"--widths: {name} has {len(old_bias)} channels, more than {widths[name]}"
            )
        kernel = old_kernel.view(len(old_bias), 9, -1)
        kernel = F.pad(kernel, (0, width_in - kernel.shape[2])).flatten(1)
        wider[name] = {"kernel": kernel, "bias": old_bias}
        if more and name == "conv1_1":
            new = torch.randn(more, kernel.shape[1], generator=generator)
            new *= kernel.std() / new.std()
            bias = torch.full((more,), float(old_bias.mean()))
        elif more:
            new, bias = _new_channels(wider, name, before, more, batches)
        if more:
            wider[name] = {"kernel": torch.cat([kernel, new]), "bias": torch.cat([old_bias, bias])}
        before, width_in = name, widths[name]
    return wider


def _new_channels(
    student: Tree, name: str, before: str, count: int, batches: list[Batch]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Fit new channels of the last layer, `name`."""
    rectified, previous = (n.replace("conv", "relu") for n in (name, before))
    patches, acts, wanted = [], [], []
    for x, targets in batches:
        below = features(student, x, (previous,))[previous]
        if name[4] != before[4]:
            below = F.max_pool2d(below, 2)
        act = convolve(below, student[name]["kernel"], student[name]["bias"]).relu()
        padded = F.pad(below, (1, 1, 1, 1), mode="reflect")
        h, w = below.shape[2:]
        shifts = [padded[..., i : i + h, j : j + w] for i in range(3) for j in range(3)]
        # In the order of `Tree`: row, column, channel.
        patch = torch.cat([thin(rectified, s, SPARSE) for s in shifts], 1)
        triple = (
            rows_of(patch),
            rows_of(thin(rectified, act, SPARSE)),
            rows_of(targets[rectified]),
        )
        some = slice(None, None, max(1, len(triple[0]) // 1024))
        for held, rows in zip((patches, acts, wanted), triple, strict=True):
            held.append(rows[some])
    inputs, outputs = torch.cat(patches), torch.cat(wanted)
    kernel, bias = least_squares(torch.cat(acts), outputs)
    residual = outputs - (torch.cat(acts) @ kernel + bias)
    kernel, bias = least_squares(inputs, outputs)
    # What the fit itself can reach of each channel's residual.
    reached = inputs @ kernel + bias - (outputs - residual)
    cross = (reached.T @ residual / len(residual)).double()
    cross = (cross + cross.T) / 2
    chosen: list[int] = []
    for _ in range(min(count, len(cross))):
        gains = cross.square().sum(1) / cross.diagonal().clamp_min(1e-9)
        gains[cross.diagonal() < 1e-6 * cross.diagonal().max()] = -1
        gains[chosen] = -1
        best = int(gains.argmax())
        chosen.append(best)
        cross = cross - torch.outer(cross[best], cross[best]) / cross[best, best].clamp_min(1e-9)
    new, bias = kernel[:, chosen].T, bias[chosen]
    mean = (inputs @ new.T + bias).relu().mean(0).clamp_min(0.05)
    return new / mean[:, None], bias / mean
