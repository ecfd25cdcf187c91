"""Turn a trained student into a weights file whose channels all have mean activation 1.

    python experiments/compact/export.py --run RUN --photos PHOTOS -o compact.safetensors

As Gatys et al. did with VGG-19, every channel is scaled so that its activation after the ReLU,
averaged over pictures and positions, is 1; the next layer's kernels are divided by the same
scales, so that no layer computes anything else than before. Otherwise the layers' Gram
matrices would weigh in the objective by accidents of training. The heads are left out.
"""

import argparse
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import student
from data import centre, load_photos, split
from safetensors import safe_open
from student import INPUT_SCALE, Tree
from train import EVALUATION_SIDE, to_input

from jaxstyle.vgg import CONVENTIONS, Network, activations
from jaxstyle.weights.file import save_network

LEAST_MEAN = 0.1
"""Channels whose mean is below this part of their layer's mean are scaled as if at it.

A channel that hardly ever fires has no mean to speak of; scaled to 1 its few peaks, or the
rounding of a dead one, would outweigh all others.
"""
SOURCE = (
    "Trained from a random start by feature distillation (experiments/compact): targets at relu1_1 "
    "to relu3_4 from VGG-19 (Simonyan & Zisserman, Oxford; CC BY 4.0) as normalised in "
    "ColorfulSoft/StyleTransfer-Colorization-SuperResolution @ 4004a611 (MIT), at relu4_1 to "
    "relu5_1 from MingSun-Tse/Collaborative-Distillation @ 4a269dc9 (MIT). Channels have mean "
    "activation 1."
)
LICENCE = (
    "Of the project. No array of a teacher is contained; the teachers are MIT (ColorfulSoft; "
    "MingSun-Tse) and CC BY 4.0 (Oxford VGG-19)."
)


def read_student(path: Path) -> Tree:
    """Read `student.safetensors` of a run."""
    trained: Tree = {}
    with safe_open(path, "numpy") as arrays:
        for key in arrays.keys():  # noqa: SIM118
            layer, part = key.split(".")
            trained.setdefault(layer, {})[part] = jnp.asarray(arrays.get_tensor(key))
    return trained


def as_network(trained: Tree, name: str = "compact") -> Network:
    """Fold the scale of the student's input into conv1_1, so that it takes the Caffe input."""
    params = dict(trained)
    params["conv1_1"] = {**params["conv1_1"], "kernel": params["conv1_1"]["kernel"] / INPUT_SCALE}
    return Network(params, "vgg19", CONVENTIONS["caffe"], name=name, source=SOURCE, licence=LICENCE)


def mean_activations(network: Network, pictures: list[np.ndarray]) -> dict[str, np.ndarray]:
    """Average every channel's activation after the ReLU over positions and pictures."""
    layers = tuple(c.replace("conv", "relu") for c in network.layers)

    @jax.jit
    def means(network: Network, x: jax.Array) -> dict[str, jax.Array]:
        found = activations(network, x, layers, pooling="max")
        return {name: found[name.replace("conv", "relu")].mean((0, 1)) for name in network.layers}

    every = [means(network, to_input(picture)) for picture in pictures]
    return {name: np.mean([np.asarray(one[name]) for one in every], 0) for name in network.layers}


def normalise(network: Network, pictures: list[np.ndarray]) -> tuple[Network, dict[str, int]]:
    """Scale every channel to mean activation 1; also count the channels held back, by layer.

    Max pooling and the ReLU commute with positive scales, so scaling a channel and dividing
    the next layer's kernels by the same number changes nothing else.
    """
    means = mean_activations(network, pictures)
    params, held_back, before = {}, {}, np.ones(3, np.float32)
    for name in network.layers:
        least = LEAST_MEAN * means[name].mean()
        held_back[name] = int((means[name] < least).sum())
        scale = (1.0 / np.maximum(means[name], least)).astype(np.float32)
        layer = network.params[name]
        params[name] = {
            "kernel": layer["kernel"] / before[:, None] * scale,
            "bias": layer["bias"] * scale,
        }
        before = scale
    return network.replace(params=params, normalised=True), held_back


def check(trained: Tree, network: Network, picture: np.ndarray) -> None:
    """Make sure that each channel of the export is the trained one, up to its scale."""
    x = to_input(picture)
    deepest = network.layers[-1].replace("conv", "relu")
    before = student.features(trained, x[None], (deepest,))[deepest][0]
    after = activations(network, x, (deepest,), pooling="max")[deepest]
    scale = (before * after).sum((0, 1)) / jnp.maximum((before * before).sum((0, 1)), 1e-12)
    error = float(jnp.abs(after - scale * before).max() / after.max())
    if not error < 1e-3:
        raise SystemExit(f"the export differs from the student by {error:.1e} at {deepest}")


def main() -> None:
    """Read the arguments, normalise, write the file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--run", type=Path, required=True, help="--out of train.py")
    add("--photos", type=Path, required=True, help="the photographs of the training")
    add("-o", "--output", type=Path, required=True, help="the .safetensors to write")
    add("--pictures", type=int, default=60, help="photographs to average over (%(default)s)")
    arguments = parser.parse_args()
    held_in, _ = split(load_photos(arguments.photos))
    pool = np.load(arguments.run / "pool.npy", mmap_mode="r")
    photos = [held_in[i * len(held_in) // arguments.pictures] for i in range(arguments.pictures)]
    generated = pool[: arguments.pictures // 2]
    pictures = [centre(p, EVALUATION_SIDE) for p in (*photos, *generated)]
    trained = read_student(arguments.run / "student.safetensors")
    network, held_back = normalise(as_network(trained), pictures)
    check(trained, network, pictures[0])
    save_network(network, arguments.output)
    after = mean_activations(network, pictures)
    print(
        json.dumps(
            {
                "bytes": arguments.output.stat().st_size,
                "held_back": held_back,
                "mean_activation": {
                    k: [float(v.min()), float(v.mean()), float(v.max())] for k, v in after.items()
                },
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
