"""Train the compact VGG-19 by feature distillation.

    python experiments/compact/train.py --photos PHOTOS --teachers WEIGHTS --out RUN --minutes 35

A student of VGG-19's topology with 16/32/64/128/128 channels learns, from a random start, to
carry what its teachers see: a 1x1 linear head on each of its layers predicts the teachers'
activations at that layer, and the loss is the sum over layers of

    mean((head(student) - teacher)**2) / variance(teacher).

The heads are thrown away; `export.py` turns the student into a weights file. The held-out
figure, 1 - R**2 per layer, is the same quotient over whole photographs' middles.

The full-width teacher costs several times the student. Each batch of targets is therefore
kept for a while and used `--reuse` times, at random, among those of `--memory` batches.
"""

import argparse
import dataclasses
import functools
import json
import os
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from data import Crops, Picture, centre, load_photos, load_pool, split
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from safetensors.flax import load_file, save_file
from student import Tree, features, init
from teachers import TARGETS, Teachers, thin

from jaxstyle.vgg import CONVENTIONS, preprocess

EVALUATION_SIDE = 192

LAYER_WEIGHTS = {layer: 1.0 for layer in TARGETS} | {
    # The distilled teacher's inner layers, which no loss of its own training shaped.
    "relu4_2": 0.5,
    "relu4_3": 0.3,
    "relu4_4": 0.3,
}


@dataclasses.dataclass(frozen=True)
class Config:
    """What a run depends on; kept beside its checkpoints."""

    photos: Path
    teachers: Path
    out: Path
    minutes: float | None
    steps: int | None
    batch: int
    side: int
    learning_rate: float
    optimizer: str
    weight_decay: float
    reuse: int
    memory: int
    pool: int
    seed: int


class State(NamedTuple):
    """All that a checkpoint holds besides numbers."""

    student: Tree
    heads: Tree
    opt: Any


def squared_errors(
    student: Tree, heads: Tree, x: jax.Array, targets: dict[str, jax.Array]
) -> dict[str, jax.Array]:
    """Sum (head(student) - teacher)**2 for each layer."""
    found = features(student, x, TARGETS)
    return {
        layer: jnp.square(
            thin(layer, found[layer]) @ heads[layer]["kernel"] + heads[layer]["bias"] - target
        ).sum()
        for layer, target in targets.items()
    }


def make_optimizer(config: Config) -> optax.GradientTransformation:
    """Build the optimiser for a learning rate of 1; `train_step` applies the scheduled one.

    Muon orthogonalises the update of a convolution seen as a matrix (inputs x outputs), at the
    size that Adam's would have; heads and biases take Adam.
    """
    if config.optimizer == "adamw":
        return optax.adamw(1.0, b2=0.99, weight_decay=config.weight_decay)

    def dimensions(params: Any) -> Any:
        conv = optax.contrib.MuonDimensionNumbers((0, 1, 2), 3)
        return jax.tree.map(lambda p: conv if p.ndim == 4 else None, params)

    return optax.contrib.muon(
        1.0,
        weight_decay=config.weight_decay,
        adam_learning_rate=1.0,
        adam_b2=0.99,
        adam_weight_decay=config.weight_decay,
        consistent_rms=0.2,
        muon_weight_dimension_numbers=dimensions,
    )


@functools.partial(jax.jit, static_argnames="optimizer", donate_argnames="state")
def train_step(
    optimizer: optax.GradientTransformation,
    state: State,
    x: jax.Array,
    targets: dict[str, jax.Array],
    variances: dict[str, jax.Array],
    rate: jax.Array,
) -> tuple[State, dict[str, jax.Array]]:
    """Make one step; returns the new state and 1 - R**2 of the batch at each layer."""

    def loss_fn(both: tuple[Tree, Tree]) -> tuple[jax.Array, dict[str, jax.Array]]:
        errors = squared_errors(*both, x, targets)
        ratios = {k: e / targets[k].size / variances[k] for k, e in errors.items()}
        return sum(LAYER_WEIGHTS[k] * r for k, r in ratios.items()), ratios

    params = (state.student, state.heads)
    gradients, ratios = jax.grad(loss_fn, has_aux=True)(params)
    updates, opt = optimizer.update(gradients, state.opt, params)
    student, heads = optax.apply_updates(
        params, jax.tree.map(lambda u: rate * _relative(u) * u, updates)
    )
    return State(student, heads, opt), ratios


def _relative(update: jax.Array) -> float:
    """Scale a convolution's step as its start is scaled, so that layers change alike.

    He's start falls as 1 / sqrt(inputs) while both optimisers' steps have one size
    everywhere; 1 for the 64-channel layers.
    """
    return float(np.sqrt(9 * 64 / np.prod(update.shape[:3]))) if update.ndim == 4 else 1.0


def learning_rate(peak: float, progress: float) -> float:
    """Warm up over a fiftieth of the run, then fall to zero along half a cosine."""
    if progress < 0.02:
        return peak * (0.05 + 0.95 * progress / 0.02)
    return peak * 0.5 * (1 + np.cos(np.pi * min(1.0, (progress - 0.02) / 0.98)))


class Replay:
    """Batches with their targets, each given out about `reuse` times before it is dropped."""

    def __init__(
        self, crops: Iterator[np.ndarray], teachers: Teachers, reuse: int, memory: int, seed: int
    ):
        self._crops, self._teachers = crops, teachers
        self._reuse, self._memory = reuse, memory
        self._held: list[tuple[jax.Array, dict[str, jax.Array]]] = []
        self._drawn = 0
        self._rng = np.random.default_rng([seed, 3])

    def fresh(self) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Make a batch and its targets, and keep them in the place of the oldest."""
        x = jnp.asarray(next(self._crops))
        pair = (x, self._teachers.targets(x))
        self._held.append(pair)
        del self._held[: -self._memory]
        return pair

    def draw(self) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Give a new batch one time in `reuse`, an old one otherwise."""
        self._drawn += 1
        if self._drawn % self._reuse == 1 or self._reuse == 1:
            return self.fresh()
        return self._held[self._rng.integers(len(self._held))]


def begin(replay: Replay, student: Tree, batches: int = 16) -> tuple[Tree, dict[str, float]]:
    """Fit the heads to the untrained student by least squares; measure the targets' variances.

    From arbitrary heads the first thousand steps would go into finding the teachers' means.

    Returns:
      The heads, and each layer's variance about its channels' means.
    """

    @jax.jit
    def moments(student: Tree, x: jax.Array, targets: dict[str, jax.Array]) -> dict[str, Any]:
        found, sums = features(student, x, TARGETS), {}
        for layer, target in targets.items():
            f, t = thin(layer, found[layer]), target.reshape(-1, target.shape[-1])
            f = jnp.concatenate([f.reshape(len(t), -1), jnp.ones((len(t), 1))], 1)
            sums[layer] = (f.T @ f, f.T @ t, jnp.square(t).sum())
        return sums

    totals: Any = None
    for _ in range(batches):
        one = jax.tree.map(lambda a: np.asarray(a, np.float64), moments(student, *replay.fresh()))
        totals = one if totals is None else jax.tree.map(np.add, totals, one)
    heads, variances = {}, {}
    for layer, (ff, ft, tt) in totals.items():
        ridge = 1e-3 * np.trace(ff) / len(ff) * np.eye(len(ff))
        ridge[-1, -1] = 0.0
        fit = np.linalg.solve(ff + ridge, ft)
        heads[layer] = {
            "kernel": jnp.asarray(fit[:-1], jnp.float32),
            "bias": jnp.asarray(fit[-1], jnp.float32),
        }
        count, sums = ff[-1, -1], ft[-1]
        variances[layer] = float((tt - (sums**2).sum() / count) / count / len(sums))
    return heads, variances


def evaluate(
    student: Tree, heads: Tree, teachers: Teachers, photos: list[Picture], side: int
) -> dict[str, float]:
    """Report 1 - R**2 at each layer over the middles of some photographs.

    Residuals over the spread of the teacher's values about each channel's mean, both summed
    over photographs, positions and channels.
    """
    errors: dict[str, float] = defaultdict(float)
    sums: dict[str, Any] = defaultdict(float)
    squares: dict[str, float] = defaultdict(float)
    counts: dict[str, int] = defaultdict(int)
    compute = jax.jit(squared_errors)
    for photo in photos:
        x = to_input(centre(photo, side))[None]
        targets = teachers.targets(x)
        for layer, e in compute(student, heads, x, targets).items():
            t = targets[layer]
            errors[layer] += float(e)
            sums[layer] += np.asarray(t.sum((0, 1, 2)), np.float64)
            squares[layer] += float(jnp.square(t).sum())
            counts[layer] += t[..., 0].size
    return {k: errors[k] / (squares[k] - float((sums[k] ** 2).sum()) / counts[k]) for k in errors}


def to_input(picture: Picture) -> jax.Array:
    """Turn a uint8 picture into the network's input."""
    return preprocess(CONVENTIONS["caffe"], jnp.asarray(picture, jnp.float32) / 255)


def save_checkpoint(folder: Path, state: State, numbers: dict[str, Any]) -> None:
    """Write `checkpoint.safetensors`: arrays by position in the tree, numbers as metadata."""
    leaves = {f"{i:04d}": leaf for i, leaf in enumerate(jax.tree.leaves(state))}
    student = {f"{n}.{k}": v for n, p in state.student.items() for k, v in p.items()}
    for name, arrays in (("checkpoint", leaves), ("student", student)):
        partial = folder / f"{name}.partial"
        save_file(arrays, partial, metadata={"numbers": json.dumps(numbers)})
        os.replace(partial, folder / f"{name}.safetensors")


def load_checkpoint(folder: Path, like: State) -> tuple[State, dict[str, Any]]:
    """Read back what `save_checkpoint` wrote, into a tree of the form of `like`."""
    from safetensors import safe_open

    path = folder / "checkpoint.safetensors"
    arrays = load_file(path)
    with safe_open(path, "numpy") as opened:
        numbers = json.loads(opened.metadata()["numbers"])
    leaves, structure = jax.tree.flatten(like)
    if len(leaves) != len(arrays):
        raise SystemExit(f"{path} is of another optimizer or network; use an empty --out")
    return jax.tree.unflatten(structure, [arrays[f"{i:04d}"] for i in range(len(leaves))]), numbers


def plot(folder: Path, history: list[dict[str, Any]]) -> None:
    """Draw training (lines) and held-out (dots) 1 - R**2 per layer to `loss.png`."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 5))
    for i, layer in enumerate(TARGETS):
        colour = plt.cm.turbo(i / (len(TARGETS) - 1))
        for key, form in (("train", "-"), ("held_out", "o")):
            points = [(h["step"], h[key][layer]) for h in history if key in h]
            if points:
                label = layer if key == "train" else None
                axes.plot(*zip(*points, strict=True), form, color=colour, ms=3, lw=1, label=label)
    axes.set(yscale="log", xlabel="step", ylabel="1 − R²", title="line: crops; dot: held out")
    axes.grid(alpha=0.3, which="both")
    axes.legend(ncol=2, fontsize=7)
    figure.tight_layout()
    figure.savefig(folder / "loss.png", dpi=110)
    plt.close(figure)


def train(config: Config, *, resume: bool) -> None:
    """Run to the end of the schedule, writing checkpoints, `history.json` and `loss.png`."""
    config.out.mkdir(parents=True, exist_ok=True)
    held_in, held_out = split(load_photos(config.photos))
    teachers = Teachers(config.teachers)
    pool = load_pool(config.out / "pool.npy", held_in, config.pool, config.seed)

    numbers: dict[str, Any] = {"step": 0, "seconds": 0.0, "history": []}
    previous = config.out / "checkpoint.safetensors"
    # Other crops after a pause than those already seen.
    seed = config.seed + (os.stat(previous).st_mtime_ns % 10**6 if resume else 0)
    crops = Crops(held_in, pool, config.side, CONVENTIONS["caffe"].mean, seed)
    replay = Replay(crops.batches(config.batch), teachers, config.reuse, config.memory, seed)
    student = init(jax.random.key(config.seed))
    heads, variances = begin(replay, student)
    optimizer = make_optimizer(config)
    state = State(student, heads, optimizer.init((student, heads)))
    if resume:
        state, numbers = load_checkpoint(config.out, state)
        variances = numbers["variances"]
    numbers["variances"] = variances
    settings = {k: str(v) if isinstance(v, Path) else v for k, v in vars(config).items()}
    (config.out / "config.json").write_text(json.dumps(settings, indent=1))

    history: list[dict[str, Any]] = numbers["history"]
    variances = {k: jnp.float32(v) for k, v in variances.items()}
    window: list[dict[str, jax.Array]] = []
    before, begun = numbers["seconds"], time.monotonic()
    saved = looked = begun

    def checkpoint() -> None:
        numbers["seconds"] = before + time.monotonic() - begun
        save_checkpoint(config.out, state, numbers)
        (config.out / "history.json").write_text(json.dumps(history))
        plot(config.out, history)

    columns = (
        BarColumn(),
        TextColumn("{task.fields[words]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns) as bar:
        task = bar.add_task("train", total=1.0, words="")
        while True:
            now = time.monotonic()
            if config.steps is not None:
                progress = numbers["step"] / config.steps
            else:
                progress = (before + now - begun) / (60 * config.minutes)
            if progress >= 1:
                break
            x, targets = replay.draw()
            rate = jnp.float32(learning_rate(config.learning_rate, progress))
            state, ratios = train_step(optimizer, state, x, targets, variances, rate)
            window.append(ratios)
            numbers["step"] += 1
            if numbers["step"] % 50 == 0:
                train_ratios = {k: float(np.mean([w[k] for w in window])) for k in TARGETS}
                window.clear()
                history.append({"step": numbers["step"], "train": train_ratios})
                deep = " ".join(f"{train_ratios[f'relu{b}_1']:.3f}" for b in range(1, 6))
                words = f"step {numbers['step']}  1-R2 at reluX_1: {deep}"
                bar.update(task, completed=progress, words=words)
                if not bar.console.is_terminal:
                    print(f"{now - begun:7.0f} s  {words}", flush=True)
            if now - looked > 300:
                looked = now
                few = evaluate(state.student, state.heads, teachers, held_out[::5], EVALUATION_SIDE)
                history.append({"step": numbers["step"], "held_out": few})
            if now - saved > 60:
                saved = now
                checkpoint()
    final = evaluate(state.student, state.heads, teachers, held_out, EVALUATION_SIDE)
    history.append({"step": numbers["step"], "held_out": final})
    checkpoint()
    report = {"steps": numbers["step"], "seconds": numbers["seconds"], "held_out": final}
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
    add("--minutes", type=float, help="length of the run; the schedule ends with it")
    add("--steps", type=int, help="length of the run in steps instead (reproducible)")
    add("--batch", type=int, default=3, help="crops a step (%(default)s)")
    add("--side", type=int, default=112, help="pixels of a crop's side (%(default)s)")
    add("--learning-rate", type=float, default=2e-3, help="at the top (%(default)s)")
    add("--optimizer", choices=("muon", "adamw"), default="muon")
    add("--weight-decay", type=float, default=1e-4, help="decoupled (%(default)s)")
    add("--reuse", type=int, default=4, help="times a batch of targets is used (%(default)s)")
    add("--memory", type=int, default=128, help="batches kept for reuse (%(default)s: 2 GB)")
    add("--pool", type=int, default=400, help="generated pictures (%(default)s)")
    add("--seed", type=int, default=0)
    add("--resume", action="store_true", help="go on from the checkpoint in --out")
    arguments = vars(parser.parse_args())
    resume = arguments.pop("resume")
    config = Config(**arguments)
    if (config.minutes is None) == (config.steps is None):
        parser.error("give either --minutes or --steps")
    train(config, resume=resume)


if __name__ == "__main__":
    main()
