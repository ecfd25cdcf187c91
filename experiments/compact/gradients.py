"""Compare the gradients of networks with those of the teachers, on held-out images.

    python experiments/compact/gradients.py --photos PHOTOS --teachers WEIGHTS \\
        --networks compact medium [--pairs 8] [--side 192]

For each layer the cosine between two gradients with respect to the image: of the network's loss
and of the teacher's. Style: the squared difference of Gram matrices over the style's squared
Gram matrix (Gatys et al. 2016, equations 3 to 5). Content: the mean squared difference of
activations (equation 1). The teachers are those of the training (`teachers.py`), with reflection.

Content and style are held-out photographs. The image is where an optimization passes: the
content, noise, the content with noise, half content and half style, and a flat gray with noise of
1 / 255. Prints a Markdown table of means over pairs.
"""

import argparse
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from data import center, load_photos, split
from teachers import DISTILLED_FILE, EXACT_FILE, MAPPED, read_distilled, read_exact

import jaxstyle
from jaxstyle.nn.network import Network
from jaxstyle.nn.vgg import features

STYLE = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
CONTENT = ("relu2_2", "relu3_2", "relu4_1")
LAYERS = tuple(dict.fromkeys((*STYLE, *CONTENT)))
Array = jax.Array


def gram(act: Array) -> Array:
    """Compute activations' second moments `[c, c]`."""
    rows = act.reshape(-1, act.shape[-1])
    return rows.T @ rows / len(rows)


def of_network(network: Network, image: Array) -> dict[str, Array]:
    """Compute one network's activations."""
    return features(network, image, LAYERS)


def of_teachers(given: tuple[Network, Network, dict], image: Array) -> dict[str, Array]:
    """Compute VGG-19's activations as far as they are had, then those that the other stands for."""
    exact, distilled, maps = given
    found = features(exact, image, [k for k in LAYERS if k < "relu4"])
    deep = features(distilled, image, MAPPED)
    return found | {k: deep[k] @ maps[k]["kernel"] + maps[k]["bias"] for k in MAPPED}


def gradients(of: Callable, given: object, image: Array, content: Array, style: Array) -> dict:
    """Compute each loss's gradient with respect to the image."""
    p, a = of(given, content), of(given, style)
    grams = {k: gram(a[k]) for k in STYLE}

    def losses(image: Array) -> dict[str, Array]:
        x = of(given, image)
        style_losses = {
            f"style {k}": jnp.square(gram(x[k]) - grams[k]).sum() / jnp.square(grams[k]).sum()
            for k in STYLE
        }
        return style_losses | {f"content {k}": jnp.square(x[k] - p[k]).mean() for k in CONTENT}

    values, back = jax.vjp(losses, image)
    zeros = dict.fromkeys(values, jnp.float32(0))
    return {k: back(zeros | {k: jnp.float32(1)})[0] for k in values}


def images(content: np.ndarray, style: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Make the images at which gradients are compared, by name."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=content.shape).astype(np.float32)
    return {
        "content": content + noise / 255,
        "noise": 0.5 + 0.2 * noise,
        "content + noise": content + 0.1 * noise,
        "half content, half style": (content + style) / 2,
        "flat": np.full_like(content, 0.5) + noise / 255,
    }


def main() -> None:
    """Read the arguments, compute, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--photos", type=Path, required=True, help="the photographs of the training")
    add("--teachers", type=Path, required=True, help="folder of the teachers' npz files")
    add("--networks", nargs="+", default=["compact", "medium"], help="names or files")
    add("--pairs", type=int, default=8, help="of content and style (%(default)s)")
    add("--side", type=int, default=192, help="pixels (%(default)s)")
    arguments = parser.parse_args()
    _, held_out = split(load_photos(arguments.photos))
    photos = [center(p, arguments.side).astype(np.float32) / 255 for p in held_out]
    exact = read_exact(arguments.teachers / EXACT_FILE)
    convention = exact.convention.replace(padding="reflect")
    teachers = (
        exact.replace(convention=convention),
        *read_distilled(arguments.teachers / DISTILLED_FILE),
    )
    networks = {name: jaxstyle.load_network(name) for name in arguments.networks}
    ours, theirs = (jax.jit(gradients, static_argnums=0) for _ in range(2))
    cosines: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for i in range(arguments.pairs):
        content, style = photos[2 * i], photos[2 * i + 1]
        for where, image in images(content, style, i).items():
            right = theirs(of_teachers, teachers, image, content, style)
            for name, network in networks.items():
                found = ours(of_network, network, image, content, style)
                for loss in right:
                    g, t = found[loss].ravel(), right[loss].ravel()
                    size = jnp.linalg.norm(g) * jnp.linalg.norm(t)
                    cosines[name, where, loss].append(float(g @ t / jnp.maximum(size, 1e-20)))
    losses = [*(f"style {k}" for k in STYLE), *(f"content {k}" for k in CONTENT)]
    print("| network | image | " + " | ".join(losses) + " |")
    print("| --- | --- |" + " ---: |" * len(losses))
    for name in networks:
        places = list(dict.fromkeys(where for n, where, _ in cosines if n == name))
        for where in places:
            row = [f"{np.mean(cosines[name, where, loss]):.3f}" for loss in losses]
            print(f"| {name} | {where} | " + " | ".join(row) + " |")
        mean = [np.mean([np.mean(cosines[name, w, loss]) for w in places]) for loss in losses]
        print(f"| {name} | mean | " + " | ".join(f"{m:.3f}" for m in mean) + " |")


if __name__ == "__main__":
    main()
