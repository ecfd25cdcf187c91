"""Train the embedded VGG-19 by feature distillation.

    python experiments/compact/train.py --photos PHOTOS --teachers WEIGHTS --out RUN --minutes 80 \
        [--from NETWORK.safetensors] [--widths 16/32/64/128/128]

A student of VGG-19's topology learns to carry what its teachers see: a 1x1 linear head on each
of its layers predicts the teachers' activations at that layer, and the loss is the weighted sum
over layers of

    mean((head(student) - teacher)**2) / variance(teacher).

The heads are thrown away; `export.py` turns the student into a weights file. The held-out
figure, 1 - R**2 per layer, is the same quotient over whole photographs' middles.

With `--from` the student starts as the network of a file, whose live channels it keeps; new ones
(`widen.py`) take the places of dead ones and fill wider layers. All heads are fitted by least
squares.

One thread makes batches with their targets, another trains on them, on each about `--reuse` times.
"""

import argparse
import dataclasses
import json
import math
import os
import queue
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from data import Crops, ImageArray, center, load_photos, load_pool, split
from student import (
    INPUT_SCALE,
    Tree,
    features,
    from_arrays,
    init,
    parse_widths,
    to_arrays,
    uncentered,
)
from teachers import DENSE, HIDDEN, SPARSE, TARGETS, Teachers, thin
from widen import Batch, fit_heads, standardized, widen, without_dead

from jaxstyle.nn.preprocessing import CONVENTIONS
from jaxstyle.weights.weight_file import read_network

EVALUATION_SIDE = 192
ADAM = 0.3
"""Adam's rate as a part of Muon's. Adam moves all of a head's weights by one size: their changes
add up, where those of Muon have all directions."""
POSITIONS = 256
"""Compared at a layer in a step."""
AVERAGE = 0.998
"""Of the running mean of the weights, which is what is evaluated and exported."""

LAYER_WEIGHTS = {layer: 1.0 for layer in TARGETS} | {
    # Layers whose error is largest and spoils all behind them, or is small beside the others' sum.
    "relu1_2": 1.5,
    "relu2_1": 1.5,
    "relu2_2": 2.0,
    "relu3_1": 2.0,
    "relu3_2": 1.5,
    "relu4_1": 1.5,
    "relu5_1": 1.5,
    # The distilled teacher's inner layers, which no loss of its own training shaped.
    "relu4_2": 0.2,
    "relu4_3": 0.2,
    "relu4_4": 0.2,
}


@dataclasses.dataclass(frozen=True)
class Config:
    """What a run depends on; kept beside its checkpoints."""

    photos: Path
    teachers: Path
    out: Path
    start: Path | None
    widths: str
    minutes: float | None
    steps: int | None
    batch: int
    side: int
    learning_rate: float
    weight_decay: float
    reuse: int
    memory: int
    pool: int
    seed: int
    products: float


def squared_errors(
    student: Tree,
    heads: Tree,
    x: torch.Tensor,
    targets: dict[str, torch.Tensor],
    *,
    spacing: Mapping[str, int] = SPARSE,
    dtype: torch.dtype = torch.bfloat16,
    padding: str = "reflect",
) -> dict[str, torch.Tensor]:
    """Sum (head(student) - teacher)**2 for each layer."""
    found = features(student, x, TARGETS, dtype=dtype, padding=padding)
    rows = {k: rows_of(thin(k, found[k], spacing)) for k in targets}
    return {k: head_error(heads[k], rows[k], rows_of(t)) for k, t in targets.items()}


def rows_of(x: torch.Tensor) -> torch.Tensor:
    """Turn `[n, c, h, w]` into rows `[n * h * w, c]`."""
    return x.permute(0, 2, 3, 1).flatten(0, 2)


def head_error(
    head: dict[str, torch.Tensor], rows: torch.Tensor, wanted: torch.Tensor
) -> torch.Tensor:
    """Sum (head(student) - teacher)**2 over rows and channels."""
    kernel, bias = head["kernel"].to(rows.dtype), head["bias"].to(rows.dtype)
    return (torch.addmm(bias, rows, kernel) - wanted).float().square().sum()


def product_error(
    scale: torch.Tensor, rows: torch.Tensor, wanted: torch.Tensor, some: torch.Tensor
) -> torch.Tensor:
    """Compare the products of activations at two positions, plain and about the channels' means.

    Losses of Gram matrices and of content see activations through these products alone (Li et al.,
    Demystifying Neural Style Transfer, arXiv:1701.01036, equation 5): where they agree, so do the
    losses, whatever the channels are.

    Args:
      scale: logarithms of the factors that channels have in use, `[c]`.
      rows: the student's activations, `[n, c]`.
      wanted: the teacher's, `[n, c']`.
      some: indices of the positions to compare.

    Returns:
      Squared differences over the teacher's squares, averaged over both kinds.
    """
    ours, theirs = rows[some].float() * scale.exp(), wanted[some].float()
    total = torch.zeros(())
    for _ in range(2):
        p, q = ours @ ours.T, theirs @ theirs.T
        total = total + (p - q).square().sum() / q.square().sum()
        ours, theirs = ours - ours.mean(0), theirs - theirs.mean(0)
    return total / 2


class Optimizer:
    """Muon for the kernels, Adam for heads and biases, at steps relative to a layer's start.

    Muon orthogonalises the update of a convolution seen as a matrix (outputs x inputs), at the
    size that Adam's would have. He's start falls as 1 / sqrt(inputs) while both have one size
    everywhere: so a kernel's step is scaled likewise, 1 for 64 input channels.
    """

    def __init__(self, student: Tree, heads: Tree, scales: Tree, weight_decay: float):
        kernels = [p["kernel"] for p in student.values()]
        others = [p["bias"] for p in student.values()] + [
            a for h in heads.values() for a in h.values()
        ]
        self._muon = torch.optim.Muon(
            [{"params": [k], "scale": (9 * 64 / k.shape[1]) ** 0.5} for k in kernels],
            lr=1.0,
            weight_decay=weight_decay,
            adjust_lr_fn="match_rms_adamw",
        )
        groups = [
            {"params": others, "scale": ADAM},
            # Logarithms: at once the part of the whole by which factors change.
            {"params": parameters(scales), "scale": 4.0},
        ]
        self._adam = torch.optim.Adam(groups, lr=1.0, betas=(0.9, 0.99))

    def step(self, rate: float) -> None:
        for group in self._muon.param_groups:
            group["lr"] = rate * group["scale"]
        for group in self._adam.param_groups:
            group["lr"] = group["scale"] * rate
        self._muon.step()
        self._adam.step()
        self._muon.zero_grad()
        self._adam.zero_grad()

    def state_dict(self) -> dict[str, Any]:
        return {"muon": self._muon.state_dict(), "adam": self._adam.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._muon.load_state_dict(state["muon"])
        self._adam.load_state_dict(state["adam"])


def learning_rate(peak: float, progress: float) -> float:
    """Warm up over a hundredth of the run, then fall to zero along half a cosine."""
    if progress < 0.01:
        return peak * (0.05 + 0.95 * progress / 0.01)
    return peak * 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - 0.01) / 0.99)))


def as_input(crops: np.ndarray) -> torch.Tensor:
    """Turn network inputs `[n, h, w, 3]` into `[n, 3, h, w]`, channels last in memory."""
    return torch.from_numpy(np.ascontiguousarray(crops)).permute(0, 3, 1, 2)


def to_input(image: ImageArray) -> np.ndarray:
    """Turn a uint8 image into the network's input `[h, w, 3]`."""
    return image[..., ::-1].astype(np.float32) - np.asarray(CONVENTIONS["caffe"].mean, np.float32)


class Replay:
    """Batches with their targets from another thread, each given out about `reuse` times."""

    def __init__(
        self, crops: Iterator[np.ndarray], teachers: Teachers, reuse: int, memory: int, seed: int
    ):
        self._crops, self._teachers = crops, teachers
        self._reuse, self._memory = reuse, memory
        self._ready: queue.Queue[Batch] = queue.Queue(8)
        self._held: list[Batch] = []
        self._drawn = 0
        self.made = 0
        self._rng = np.random.default_rng([seed, 3])
        threading.Thread(target=self._fill, daemon=True).start()

    def _fill(self) -> None:
        torch.set_num_threads(1)
        while True:
            x = as_input(next(self._crops))
            self._ready.put((x, self._teachers.targets(x)))
            self.made += 1

    def fresh(self) -> Batch:
        """Wait for a new batch, and keep it in the place of the oldest."""
        pair = self._ready.get()
        self._held.append(pair)
        del self._held[: -self._memory]
        return pair

    def draw(self) -> Batch:
        """Return a new batch one time in `reuse`, one of the last `memory` otherwise."""
        self._drawn += 1
        if self._drawn % self._reuse == 0 or len(self._held) < 8:
            return self.fresh()
        return self._held[self._rng.integers(len(self._held))]


def uncentered_heads(heads: Tree, means: Mapping[str, torch.Tensor]) -> Tree:
    """Do for heads what `uncentered` does for convolutions."""
    return {
        layer: {
            "kernel": p["kernel"],
            "bias": p["bias"] - means[layer.replace("relu", "conv")] @ p["kernel"],
        }
        for layer, p in heads.items()
    }


def variances_of(batches: list[Batch]) -> dict[str, float]:
    """Compute each layer's variance about its channels' means."""
    chunk_size = {}
    for layer in TARGETS:
        rows = torch.cat([t[layer].permute(0, 2, 3, 1).flatten(0, 2) for _, t in batches])
        chunk_size[layer] = float(rows.float().var(0, correction=0).mean())
    return chunk_size


@torch.no_grad()
def evaluate(
    student: Tree,
    heads: Tree,
    teachers: Teachers,
    photos: list[ImageArray],
    side: int,
    *,
    dtype: torch.dtype = torch.bfloat16,
    padding: str = "reflect",
) -> dict[str, float]:
    """Report 1 - R**2 at each layer over the middles of some photographs.

    Residuals over the spread of the teacher's values about each channel's mean, both summed
    over photographs, positions and channels.
    """
    errors: dict[str, float] = defaultdict(float)
    sums: dict[str, Any] = defaultdict(float)
    squares: dict[str, float] = defaultdict(float)
    counts: dict[str, int] = defaultdict(int)
    for photo in photos:
        x = as_input(to_input(center(photo, side))[None])
        how = {"spacing": DENSE, "dtype": dtype}
        targets = teachers.targets(x, **how)
        for layer, e in squared_errors(student, heads, x, targets, padding=padding, **how).items():
            t = targets[layer].float()
            errors[layer] += float(e)
            sums[layer] += t.sum((0, 2, 3), dtype=torch.float64)
            squares[layer] += float(t.square().sum())
            counts[layer] += t[:, 0].numel()
    return {k: errors[k] / (squares[k] - float((sums[k] ** 2).sum()) / counts[k]) for k in errors}


def parameters(*trees: Tree) -> list[torch.Tensor]:
    """List all tensors, in order."""
    return [a for tree in trees for p in tree.values() for a in p.values()]


def save(folder: Path, name: str, content: Any) -> None:
    """Write a file of torch's, whole or not at all."""
    torch.save(content, folder / f"{name}.partial")
    os.replace(folder / f"{name}.partial", folder / name)


def plot(folder: Path, history: list[dict[str, Any]]) -> None:
    """Draw training (lines) and held-out (dots) 1 - R**2 per layer to `loss.png`."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 5))
    for i, layer in enumerate(TARGETS):
        color = plt.cm.turbo(i / (len(TARGETS) - 1))
        for key, form in (("train", "-"), ("held_out", "o")):
            points = [(h["step"], h[key][layer]) for h in history if key in h]
            if points:
                label = layer if key == "train" else None
                axes.plot(*zip(*points, strict=True), form, color=color, ms=3, lw=1, label=label)
    axes.set(yscale="log", xlabel="step", ylabel="1 − R²", title="line: crops; dot: held out")
    axes.grid(alpha=0.3, which="both")
    axes.legend(ncol=2, fontsize=7)
    figure.tight_layout()
    figure.savefig(folder / "loss.png", dpi=110)
    plt.close(figure)


def read_start(path: Path) -> Tree:
    """Read a weights file as a student."""
    params = {
        name: {part: np.array(a) for part, a in p.items()}
        for name, p in read_network(path).params.items()
    }
    params["conv1_1"]["kernel"] *= INPUT_SCALE
    return from_arrays(params)


def start_of(config: Config, batches: list[Batch]) -> Tree:
    """Draw a student, or read the file it starts from and widen it."""
    if config.start is None:
        return init(parse_widths(config.widths), config.seed)
    student = read_start(config.start)
    had = {name: len(p["bias"]) for name, p in student.items()}
    student = without_dead(student, batches)
    widths = parse_widths(config.widths) if config.widths else had
    print("new channels:", {n: widths[n] - len(p["bias"]) for n, p in student.items()}, flush=True)
    return widen(student, widths, batches, config.seed)


@torch.no_grad()
def start_scales(student: Tree, heads: Tree, batches: list[Batch]) -> Tree:
    """Give each channel the factor by which the head uses it, and layers the products' size.

    Returns:
      `{layer: {"scale": logarithms [c]}}` of the layers that a teacher taught.
    """
    scales = {}
    x, targets = batches[0]
    found = features(student, x, TARGETS)
    for layer in targets:
        norms = heads[layer]["kernel"].norm(dim=1).clamp_min(1e-3)
        some = rows_of(thin(layer, found[layer], SPARSE))[::17].float() * norms
        wanted = rows_of(targets[layer])[::17].float()
        p, q = some @ some.T, wanted @ wanted.T
        scales[layer] = {"scale": (norms * ((p * q).sum() / (p * p).sum()).sqrt()).log()}
    return scales


def train(config: Config, *, resume: bool) -> None:
    """Run to the end of the schedule, writing checkpoints, `history.json` and `loss.png`."""
    torch.set_num_threads(1)
    config.out.mkdir(parents=True, exist_ok=True)
    held_in, held_out = split(load_photos(config.photos))
    teachers = Teachers(config.teachers)
    pool = load_pool(config.out / "pool.npy", held_in, config.pool, config.seed)

    previous = config.out / "checkpoint.pt"
    # Other crops after a pause than those already seen.
    seed = config.seed + (os.stat(previous).st_mtime_ns % 10**6 if resume else 0)
    crops = Crops(held_in, pool, config.side, CONVENTIONS["caffe"].mean, seed)
    replay = Replay(crops.batches(config.batch), teachers, config.reuse, config.memory, seed)
    settings = {k: str(v) if isinstance(v, Path) else v for k, v in vars(config).items()}
    (config.out / "config.json").write_text(json.dumps(settings, indent=1))

    numbers: dict[str, Any] = {"step": 0, "seconds": 0.0, "cpu_seconds": 0.0, "history": []}
    if resume:
        loaded = torch.load(previous)
        student, heads, numbers = loaded["student"], loaded["heads"], loaded["numbers"]
        mean_student, mean_heads = loaded["mean_student"], loaded["mean_heads"]
        means, scales = loaded["means"], loaded["scales"]
    else:
        batches = [replay.fresh() for _ in range(min(config.memory, 32))]
        numbers["variances"] = variances_of(batches)
        student, means = standardized(start_of(config, batches), batches)
        heads = fit_heads(student, batches)
        scales = start_scales(student, heads, batches)
        negative = {name: -mean for name, mean in means.items()}
        student, heads = uncentered(student, negative), uncentered_heads(heads, negative)
        mean_student, mean_heads = (
            {n: {k: a.clone() for k, a in p.items()} for n, p in tree.items()}
            for tree in (student, heads)
        )
    for a in parameters(student, heads, scales):
        a.requires_grad_(True)
    optimizer = Optimizer(student, heads, scales, config.weight_decay)
    if resume:
        optimizer.load_state_dict(loaded["optimizer"])
    variances = numbers["variances"]
    history: list[dict[str, Any]] = numbers["history"]

    window: list[dict[str, float]] = []
    before, begun = dict(numbers), time.monotonic()
    cpu = time.process_time()
    saved = looked = begun

    def checkpoint() -> None:
        numbers["seconds"] = before["seconds"] + time.monotonic() - begun
        numbers["cpu_seconds"] = before["cpu_seconds"] + time.process_time() - cpu
        state = {"student": student, "heads": heads, "numbers": numbers}
        state |= {"mean_student": mean_student, "mean_heads": mean_heads, "means": means}
        state |= {"scales": scales}
        save(config.out, "checkpoint.pt", state | {"optimizer": optimizer.state_dict()})
        arrays = to_arrays(uncentered(mean_student, means))
        for layer, p in scales.items():
            arrays[layer.replace("relu", "conv")]["scale"] = p["scale"].detach().exp().numpy()
        np.savez(
            config.out / "student.partial.npz",
            **{f"{n}.{k}": v for n, p in arrays.items() for k, v in p.items()},
        )
        os.replace(config.out / "student.partial.npz", config.out / "student.npz")
        (config.out / "history.json").write_text(json.dumps(history))

    def look(photos: list[ImageArray]) -> dict[str, float]:
        both = uncentered(mean_student, means), uncentered_heads(mean_heads, means)
        few = evaluate(*both, teachers, photos, EVALUATION_SIDE)
        history.append({"step": numbers["step"], "held_out": few})
        words = " ".join(f"{k[4:]} {v:.3f}" for k, v in few.items())
        print(f"{time.strftime('%H:%M')} step {numbers['step']} held out: {words}", flush=True)
        return few

    if not resume:
        look(held_out)
    while True:
        now = time.monotonic()
        if config.steps is not None:
            progress = numbers["step"] / config.steps
        else:
            progress = (before["seconds"] + now - begun) / (60 * config.minutes)
        if progress >= 1:
            break
        x, targets = replay.draw()
        both = uncentered(student, means), uncentered_heads(heads, means)
        found = features(both[0], x, TARGETS)
        ratios, products = {}, {}
        for k, target in targets.items():
            rows, wanted = rows_of(thin(k, found[k], SPARSE)), rows_of(target)
            ratios[k] = head_error(both[1][k], rows, wanted) / wanted.numel() / variances[k]
            if k not in HIDDEN:
                some = torch.randperm(len(rows))[:POSITIONS]
                products[k] = product_error(scales[k]["scale"], rows, wanted, some)
        loss = sum(LAYER_WEIGHTS[k] * r for k, r in ratios.items())
        (loss + config.products * sum(products.values())).backward()
        optimizer.step(learning_rate(config.learning_rate, progress))
        numbers["step"] += 1
        with torch.no_grad():
            # In a young run the mean forgets its start faster.
            weight = 1 - min(AVERAGE, numbers["step"] / (numbers["step"] + 10))
            torch._foreach_lerp_(
                parameters(mean_student, mean_heads),
                [a.detach() for a in parameters(student, heads)],
                weight,
            )
        window.append(
            {k: float(r.detach()) for k, r in ratios.items()}
            | {f"products {k}": float(e.detach()) for k, e in products.items()}
        )
        if numbers["step"] % 100 == 0:
            train_ratios = {k: float(np.mean([w[k] for w in window])) for k in window[0]}
            window.clear()
            history.append({"step": numbers["step"], "train": train_ratios})
            words = " ".join(f"{k.replace('relu', '')} {v:.3f}" for k, v in train_ratios.items())
            used = time.process_time() - cpu
            print(
                f"{now - begun:7.0f} s {used:7.0f} cpu s  step {numbers['step']}  "
                f"fresh {replay.made}  {words}",
                flush=True,
            )
        if now - looked > 180:
            looked = now
            look(held_out[::4])
        if now - saved > 120:
            saved = now
            checkpoint()
    final = look(held_out)
    checkpoint()
    plot(config.out, history)
    report = {k: numbers[k] for k in ("step", "seconds", "cpu_seconds")} | {"held_out": final}
    (config.out / "result.json").write_text(json.dumps(report, indent=1))
    print(json.dumps(report, indent=1))


def main() -> None:
    """Read the arguments and train."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--photos", type=Path, required=True, help="folder of JPEG photographs")
    add("--teachers", type=Path, required=True, help="folder of the teachers' npz files")
    add("--out", type=Path, required=True, help="folder for checkpoints, history and plot")
    add("--from", dest="start", type=Path, help="weights file to start from (default: random)")
    add("--widths", default="", help="channels of 13 layers or 5 blocks (default: as --from)")
    add("--minutes", type=float, help="length of the run; the schedule ends with it")
    add("--steps", type=int, help="length of the run in steps instead")
    add("--batch", type=int, default=6, help="crops a step (%(default)s)")
    add("--side", type=int, default=128, help="pixels of a crop's side (%(default)s)")
    add("--learning-rate", type=float, default=2e-3, help="at the top (%(default)s)")
    add("--weight-decay", type=float, default=1e-4, help="decoupled (%(default)s)")
    add("--reuse", type=int, default=2, help="times a batch of targets is used (%(default)s)")
    add("--memory", type=int, default=96, help="batches kept for reuse (%(default)s: 2.5 GB)")
    add("--pool", type=int, default=400, help="generated images (%(default)s)")
    add("--seed", type=int, default=0)
    add("--products", type=float, default=0.3, help="weight of products of positions (%(default)s)")
    add("--resume", action="store_true", help="go on from the checkpoint in --out")
    arguments = vars(parser.parse_args())
    resume = arguments.pop("resume")
    config = Config(**arguments)
    if (config.minutes is None) == (config.steps is None):
        parser.error("give either --minutes or --steps")
    if not config.widths and config.start is None:
        parser.error("give --widths, --from or both")
    train(config, resume=resume)


if __name__ == "__main__":
    main()
