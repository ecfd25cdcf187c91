"""What optimisers gain by taking along what they have learnt at a smaller scale.

    python experiments/bench/scales.py PICTURES [--size N] [--steps N] [--scales N]

PICTURES is a folder with the files of `parametrization.PAIRS`. The loss after some steps of the
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


def curve(job: jaxstyle.Job) -> np.ndarray:
    """The best loss so far after each step of the last scale."""
    (result,) = jaxstyle.finish(job, [i._replace(carry=None) for i in jaxstyle.iterates(job)])
    return np.minimum.accumulate(result.history.loss[-job.recipe.steps :])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--scales", type=int, default=3)
    arguments = parser.parse_args()
    network = jaxstyle.load_network("compact")
    marks = [m for m in MARKS if m <= arguments.steps]
    print("| optimiser | " + " | ".join(f"after {m}" for m in marks) + " |")
    print("|---" * (len(marks) + 1) + "|")
    for optimizer in ("lbfgs", "adam"):
        recipe = jaxstyle.Recipe(
            size=arguments.size, steps=arguments.steps, scales=arguments.scales, optimizer=optimizer
        )
        jobs = [
            jaxstyle.prepare(
                *(load_image(arguments.pictures / f"{name}.jpg") for name in pair),
                recipe=recipe, network=network,
            )
            for pair in PAIRS
        ]  # fmt: skip
        carried = [curve(job) for job in jobs]
        jax.clear_caches()
        with patch("jaxstyle.programs.carried", fresh):
            restarted = [curve(job) for job in jobs]
        jax.clear_caches()
        ratios = np.exp(np.mean(np.log(np.array(carried) / np.array(restarted)), 0))
        print(f"| {optimizer} | " + " | ".join(f"{ratios[m - 1]:.3f}" for m in marks) + " |")


if __name__ == "__main__":
    main()
