"""The figures of `docs/maths.md`, from the images of `jaxstyle sample` and the network `compact`.

    python experiments/figures/maths.py docs/figures

On two cores this takes about two minutes.
"""

import argparse
import dataclasses
from pathlib import Path

import jax.numpy as jnp
import matplotlib
import numpy as np
from PIL import Image

import jaxstyle
from jaxstyle.images import fit, save_image
from jaxstyle.images.painted import paint
from jaxstyle.images.samples import load_photograph

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402


def images(size):
    """Return the photograph and the painted style of `jaxstyle sample`, `size` pixels long."""
    return fit(load_photograph("cat"), size), fit(paint(512, 512), size)


def gram_figure(path, network, content, style):
    layers = ["relu2_1", "relu4_1"]
    figure, axes = plt.subplots(2, 4, figsize=(9, 4.4), layout="constrained")
    for row, layer in enumerate(layers):
        for column, (name, image) in enumerate([("photograph", content), ("style", style)]):
            found = jaxstyle.features(network, jnp.asarray(image), [layer])[layer]
            if name == "photograph":
                # Away from the borders, where the padding shows.
                strongest = int(jnp.argmax(jnp.std(found[3:-3, 3:-3], axis=(0, 1))))
            axes[row, 2 * column].imshow(found[..., strongest], cmap="magma")
            axes[row, 2 * column].set_title(f"{name}, {layer}, map {strongest}", fontsize=8)
            gram = np.asarray(jaxstyle.gram_matrix(found))
            axes[row, 2 * column + 1].imshow(np.log10(gram + 1e-6), cmap="viridis")
            axes[row, 2 * column + 1].set_title(
                f"Gram matrix, {gram.shape[0]} channels", fontsize=8
            )
    for axis in axes.flat:
        axis.set_axis_off()
    figure.savefig(path, dpi=90)
    # A third of the bytes.
    Image.open(path).convert("RGB").quantize(128).save(path, optimize=True)


def weight_figure(path, network, content, style, steps):
    recipe = jaxstyle.Recipe(size=0, steps=steps)
    problem = jaxstyle.prepare(content, style, recipe=recipe, network=network)
    base = problem.recipe
    painted = []
    for factor in (0.1, 1.0, 10.0):
        recipe = dataclasses.replace(base, style_weight=factor * base.style_weight)
        changed = problem._replace(recipe=recipe)
        [result] = jaxstyle.finish(changed, list(jaxstyle.iterates(changed)))
        painted.append(result.image)
    gap = np.ones((content.shape[0], 4, 3), np.float32)
    strip = [content, gap, painted[0], gap, painted[1], gap, painted[2]]
    save_image(path, np.concatenate(strip, axis=1))


def optimizer_figure(path, network, content, style, steps):
    content, style = fit(content, 96), fit(style, 96)
    figure, axis = plt.subplots(figsize=(6, 3.4), layout="constrained")
    for optimizer in ("lbfgs", "adam", "momentum"):
        recipe = jaxstyle.Recipe(size=0, steps=steps, optimizer=optimizer)
        result = jaxstyle.stylize(content, style, recipe=recipe, network=network)
        # A step is one evaluation in each of the three.
        best = np.minimum.accumulate(np.nan_to_num(result.history.loss, nan=np.inf))
        axis.semilogy(result.history.step + 1, best, label=optimizer)
    axis.set(xlabel="evaluations", ylabel="best loss so far")
    axis.legend(frameon=False)
    axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=90)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", type=int, default=192)
    parser.add_argument("--steps", type=int, default=150)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    network = jaxstyle.load_network("compact")
    content, style = images(options.size)
    gram_figure(options.folder / "gram.png", network, content, style)
    weight_figure(options.folder / "style_weight.jpg", network, content, style, options.steps)
    optimizer_figure(options.folder / "optimisers.png", network, content, style, options.steps)


if __name__ == "__main__":
    main()
