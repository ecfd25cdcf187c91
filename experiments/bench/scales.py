"""What optimizers gain by taking along what they have learnt at a smaller scale.

    python experiments/bench/scales.py IMAGES [--size N] [--steps N] [--scales N]

IMAGES is a folder with the files of `parametrization.PAIRS`. The loss after some steps of the
last scale, with the state carried, over that with a fresh state at every scale. Prints a Markdown
table with geometric means over the pairs.
"""

import argparse
from pathlib import Path
from unittest.mock import patch

import jax
import numpy as np
from parametrization import PAIRS

import jaxstyle
from jaxstyle.images import load_image

MARKS = (1, 3, 10, 30)


def fresh(old: object, new: object, recipe: jaxstyle.Recipe) -> object:
    """Take nothing along."""
    return new


def curve(problem: jaxstyle.Problem) -> np.ndarray:
    """The best loss so far after each step of the last scale."""
    (result,) = jaxstyle.finish(
        problem, [i._replace(carry=None) for i in jaxstyle.iterates(problem)]
    )
    return np.minimum.accumulate(result.history.loss[-problem.recipe.steps :])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", type=Path)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--scales", type=int, default=3)
    arguments = parser.parse_args()
    network = jaxstyle.load_network("compact")
    marks = [m for m in MARKS if m <= arguments.steps]
    print("| optimizer | " + " | ".join(f"after {m}" for m in marks) + " |")
    print("|---" * (len(marks) + 1) + "|")
    for optimizer in ("lbfgs", "adam"):
        recipe = jaxstyle.Recipe(
            style_loss="gram", size=arguments.size, steps=arguments.steps, scales=arguments.scales,
            optimizer=optimizer,
        )  # fmt: skip
        problems = [
            jaxstyle.prepare(
                *(load_image(arguments.images / f"{name}.jpg") for name in pair),
                recipe=recipe, network=network,
            )
            for pair in PAIRS
        ]  # fmt: skip
        carried = [curve(problem) for problem in problems]
        jax.clear_caches()
        with patch("jaxstyle.engine.chunk.carry_over", fresh):
            restarted = [curve(problem) for problem in problems]
        jax.clear_caches()
        ratios = np.exp(np.mean(np.log(np.array(carried) / np.array(restarted)), 0))
        print(f"| {optimizer} | " + " | ".join(f"{ratios[m - 1]:.3f}" for m in marks) + " |")


if __name__ == "__main__":
    main()
