"""Turn a trained student into a weights file whose layers all have mean activation 1.

    python experiments/compact/export.py --run RUN --photos PHOTOS -o medium.safetensors

Every channel is scaled by the factor that training found for it (`scale`, with which the products
of activations at two positions are as the teacher's), and every layer so that its activation
after the ReLU, averaged over channels, images and positions, is 1, as Gatys et al. have it in each
channel of VGG-19. The next layer's kernels are divided by the same scales, so that no layer
computes anything else than before. Otherwise the layers' Gram matrices would weigh in the
objective by accidents of training. The heads are left out.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import student
import torch
from data import center, load_photos, split
from student import INPUT_SCALE, Arrays
from train import EVALUATION_SIDE, as_input, to_input

from jaxstyle.nn.network import Network
from jaxstyle.nn.preprocessing import CONVENTIONS
from jaxstyle.nn.vgg import activations
from jaxstyle.weights.weight_file import read_network, save_network

LEAST_MEAN = 0.1
"""Channels whose mean is below this part of their layer's mean are scaled as if at it.

A channel that hardly ever fires has no mean to speak of; scaled to 1 its few peaks, or the
rounding of a dead one, would outweigh all others.
"""
LARGEST_RMS = 4.0
"""Channels are scaled down to this root mean square on the image where it is largest.

Gram matrices hold squares: a channel that is silent on most images and large on some would
otherwise be nearly all of their style loss, and L-BFGS would spend its steps on it.
"""
SOURCE = (
    "Trained by feature distillation (experiments/compact), from the weights of this project's "
    "network compact: targets at relu1_1 "
    "to relu3_4 from VGG-19 (Simonyan & Zisserman, Oxford; CC BY 4.0) as normalized in "
    "ColorfulSoft/StyleTransfer-Colorization-SuperResolution @ 4004a611 (MIT), at relu4_1 to "
    "relu5_1 from MingSun-Tse/Collaborative-Distillation @ 4a269dc9 (MIT). Layers have mean "
    "activation 1."
)
LICENSE = (
    "Of the project. No array of a teacher is contained; the teachers are MIT (ColorfulSoft; "
    "MingSun-Tse) and CC BY 4.0 (Oxford VGG-19)."
)


def read_student(path: Path) -> dict[str, dict[str, np.ndarray]]:
    """Read `student.npz` of a run."""
    trained: dict[str, dict[str, np.ndarray]] = {}
    with np.load(path) as arrays:
        for key in arrays:
            layer, part = key.split(".")
            trained.setdefault(layer, {})[part] = arrays[key]
    return {name: trained[name] for name in sorted(trained)}


def as_network(trained: Arrays, name: str) -> Network:
    """Fold the scale of the student's input into conv1_1, so that it takes the Caffe input."""
    params = {
        layer: {part: jnp.asarray(array) for part, array in p.items()}
        for layer, p in trained.items()
    }
    params["conv1_1"]["kernel"] /= INPUT_SCALE
    convention = CONVENTIONS["caffe"].replace(padding="reflect")
    return Network(params, "vgg19", convention, name=name, source=SOURCE, license=LICENSE)


def mean_activations(network: Network, images: list[np.ndarray]) -> dict[str, np.ndarray]:
    """Average every channel's activation after the ReLU over positions and images."""
    return {name: means.mean(0) for name, means in activation_moments(network, images, 1).items()}


def activation_moments(
    network: Network, images: list[np.ndarray], power: int
) -> dict[str, np.ndarray]:
    """Average a power of every channel's activation over positions, `[images, channels]`."""
    layers = tuple(c.replace("conv", "relu") for c in network.layers)

    @jax.jit
    def means(network: Network, x: jax.Array) -> dict[str, jax.Array]:
        found = activations(network, x, layers, pooling="max")
        return {
            name: (found[name.replace("conv", "relu")] ** power).mean((0, 1))
            for name in network.layers
        }

    found = [means(network, jnp.asarray(to_input(image))) for image in images]
    return {name: np.stack([np.asarray(one[name]) for one in found]) for name in network.layers}


def normalize(network: Network, images: list[np.ndarray]) -> tuple[Network, dict[str, int]]:
    """Scale every channel to mean activation 1; also count the channels held back, by layer."""
    means = mean_activations(network, images)
    squares = activation_moments(network, images, 2)
    scales, held_back = {}, {}
    for name, mean in means.items():
        largest = np.sqrt(squares[name].max(0)) / LARGEST_RMS
        least = np.maximum(LEAST_MEAN * mean.mean(), largest)
        held_back[name] = int((mean < least).sum())
        scales[name] = 1.0 / np.maximum(mean, least)
    return rescale(network, scales), held_back


def normalize_layers(
    network: Network, scales: Mapping[str, np.ndarray], images: list[np.ndarray], largest: float
) -> Network:
    """Scale every channel as `scales` say, and every layer to mean activation 1.

    A channel's root mean square is then at most about `largest` on any of the images.
    """
    means = mean_activations(network, images)
    squares = activation_moments(network, images, 2)
    scales = {
        k: np.minimum(s, largest * (s * means[k]).mean() / np.sqrt(squares[k].max(0)))
        for k, s in scales.items()
    }
    return rescale(network, {k: s / (s * means[k]).mean() for k, s in scales.items()})


def rescale(network: Network, scales: Mapping[str, np.ndarray]) -> Network:
    """Multiply channels by positive numbers.

    Max pooling and the ReLU commute with positive scales, so scaling a channel and dividing
    the next layer's kernels by the same number changes nothing else.
    """
    params, before = {}, np.ones(3, np.float32)
    for name in network.layers:
        scale, layer = scales[name].astype(np.float32), network.params[name]
        params[name] = {
            "kernel": layer["kernel"] / before[:, None] * scale,
            "bias": layer["bias"] * scale,
        }
        before = scale
    return network.replace(params=params, normalized=True)


def error(trained: Arrays, network: Network, image: np.ndarray) -> float:
    """Compute how far the channels of an export are from the trained ones up to their scales.

    Returns:
      The largest difference at the deepest layer, as a part of that layer's largest value.
    """
    x = to_input(image)
    deepest = network.layers[-1].replace("conv", "relu")
    found = student.features(
        student.from_arrays(trained), as_input(x[None]), (deepest,), dtype=torch.float32
    )
    before = found[deepest][0].permute(1, 2, 0).numpy()
    after = np.asarray(activations(network, jnp.asarray(x), (deepest,), pooling="max")[deepest])
    scale = (before * after).sum((0, 1)) / np.maximum((before * before).sum((0, 1)), 1e-12)
    return float(np.abs(after - scale * before).max() / after.max())


def narrowed(network: Network) -> Network:
    """Round all arrays to float16, as the file holds them."""
    return network.replace(params=jax.tree.map(lambda a: a.astype(jnp.float16), network.params))


def widened(network: Network) -> Network:
    """Return all arrays in float32, as reading the file does."""
    return network.replace(params=jax.tree.map(lambda a: a.astype(jnp.float32), network.params))


def main() -> None:
    """Read the arguments, normalize, write the file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--run", type=Path, required=True, help="--out of train.py")
    add("--photos", type=Path, required=True, help="the photographs of the training")
    add("-o", "--output", type=Path, required=True, help="the .safetensors to write")
    add("--name", default="medium", help="of the network (%(default)s)")
    add("--images", type=int, default=60, help="photographs to average over (%(default)s)")
    add("--largest-rms", type=float, default=np.inf, help="of a channel on an image (none)")
    arguments = parser.parse_args()
    held_in, _ = split(load_photos(arguments.photos))
    pool = np.load(arguments.run / "pool.npy", mmap_mode="r")
    photos = [held_in[i * len(held_in) // arguments.images] for i in range(arguments.images)]
    generated = pool[: arguments.images // 2]
    images = [center(p, EVALUATION_SIDE) for p in (*photos, *generated)]
    trained = read_student(arguments.run / "student.npz")
    scales = {layer: p.pop("scale") for layer, p in trained.items()}
    exact = normalize_layers(
        as_network(trained, arguments.name), scales, images, arguments.largest_rms
    )
    wrong = error(trained, exact, images[0])
    if not wrong < 1e-3:
        raise SystemExit(f"the export differs from the student by {wrong:.1e}")
    network = narrowed(exact)
    save_network(network, arguments.output)
    network = widened(network)
    after = mean_activations(network, images)
    report = {
        "bytes": arguments.output.stat().st_size,
        "digest": read_network(arguments.output).digest,
        "dead": {k: int((v == 0).sum()) for k, v in after.items()},
        "largest_rms": {
            k: float(np.sqrt(v.max())) for k, v in activation_moments(network, images, 2).items()
        },
        "error_by_float16": error(trained, network, images[0]),
        "mean_activation": {
            k: [float(v.min()), float(v.mean()), float(v.max())] for k, v in after.items()
        },
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
