"""What a step of each method costs at the full size, over that of the default.

    python experiments/bench/methods.py CONTENT STYLE [--size 512] [--weights medium] [--steps 6]

The recipes of `experiments/quality/recipes.py`, at their largest scale alone. Prints a Markdown
table; a step is one evaluation of the objective and its gradient with the optimizer's update.
"""

import argparse
import dataclasses
import sys
from pathlib import Path

import jaxstyle
from jaxstyle.images import load_image

sys.path.append(str(Path(__file__).parents[1] / "quality"))
from recipes import RECIPES  # noqa: E402

NAMES = (
    "default", "gram", "covariance", "moments", "sliced", "patches", "nnst", "strotss"
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("content")
    parser.add_argument("style")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--weights", default="medium")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--recipes", nargs="+", default=NAMES, choices=RECIPES, metavar="NAME")
    arguments = parser.parse_args()
    network = jaxstyle.load_network(arguments.weights)
    images = load_image(arguments.content), load_image(arguments.style)
    print("| method | seconds a step | over the default | seconds to compile |")
    print("| --- | ---: | ---: | ---: |")
    first = None
    for name in arguments.recipes:
        recipe = dataclasses.replace(
            RECIPES[name], size=arguments.size, steps=arguments.steps, scales=1
        )
        result = jaxstyle.stylize(*images, recipe=recipe, network=network)
        seconds = result.run_seconds / result.evaluations
        first = first or seconds
        cells = name, f"{seconds:.3f}", f"{seconds / first:.2f}", f"{result.compile_seconds:.1f}"
        print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
