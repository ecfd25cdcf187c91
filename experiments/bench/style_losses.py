"""How long the gradients of the style losses are: what their default weights come from.

    python experiments/bench/style_losses.py IMAGES [--size N] [--weights NAME]

IMAGES is a folder with the files of `parametrization.PAIRS`. The length of each loss's gradient
by the image, over that of the Gram loss, each with its default weight and layers: at the content
image, and where 50 steps on the Gram loss lead. Prints a Markdown table with geometric means over
the pairs. Where a ratio is far from 1, the weight divided by it is what would be alike.
"""

import argparse
import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from parametrization import PAIRS

import jaxstyle
from jaxstyle.images import load_image
from jaxstyle.losses.style_losses import STYLE_LOSSES


@jax.jit
def length(problem: jaxstyle.Problem, image: jax.Array) -> jax.Array:
    """The length of the style term's gradient."""
    objective = jaxstyle.make_objective(problem.network, problem.targets, problem.recipe)
    return jnp.linalg.norm(jax.grad(lambda x: objective(x)[1].style)(image))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", type=Path)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--weights", default="compact")
    arguments = parser.parse_args()
    network = jaxstyle.load_network(arguments.weights)
    recipe = jaxstyle.Recipe(size=arguments.size, steps=50)
    found: dict[str, list[list[float]]] = {name: [] for name in STYLE_LOSSES}
    for pair in PAIRS:
        content, style = (load_image(arguments.images / f"{name}.jpg") for name in pair)
        painted = jaxstyle.stylize(content, style, recipe=recipe, network=network).image
        for name in STYLE_LOSSES:
            problem = jaxstyle.prepare(
                content, style, network=network, recipe=dataclasses.replace(recipe, style_loss=name)
            )
            found[name].append([float(length(problem, x)) for x in (problem.start, painted)])
    print("| style loss | at the content | after 50 steps |")
    print("|---|---|---|")
    for name, values in found.items():
        ratios = np.exp(np.mean(np.log(np.array(values) / np.array(found["gram"])), 0))
        print(f"| {name} | {ratios[0]:.2f} | {ratios[1]:.2f} |")


if __name__ == "__main__":
    main()
