"""Whole runs of presets beside those of the programs that they are named after.

    python experiments/bench/programs.py RESULTS IMAGES --weights PRESET=FILE ... [--json OUT.json]

RESULTS has what the programs made: `PROGRAM-CONTENT-STYLE.npz` with `image`, RGB `[h, w, 3]` in
units of [0, 1] before clipping, `losses`, what the program reported at each evaluation, and its
noise as `start`, if it began with noise; PROGRAM is a preset, or `PRESET-adam` for a run with Adam.
IMAGES has `CONTENT.png` and `STYLE.png`, which the programs were given in the size of the run. Each
preset is run on the same images with its file of weights, from the same start, for as many
evaluations.

Prints a Markdown table, a row a program, with geometric means over the pairs:

    agreement        largest |our objective / the program's - 1| at the program's final image,
                     where the program reports its loss there
    ours / program   lowest loss of the run, as optimized
    as saved         the same of the images, clipped to [0, 1]
    peak, program    largest loss of a run over its first
    peak, ours       likewise
    stopped          our runs that ended before their last step
"""

import argparse
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxstyle
from jaxstyle.config.presets import preset as make_preset
from jaxstyle.images import load_image

AVERAGED = ("crowson",)
"""Programs whose result is an average of iterates, where no loss was reported."""
ONE_SCALE = {"crowson": {"scales": 1}}
"""Settings of a run at the size of the images alone."""


class Pair(NamedTuple):
    """Two runs on one pair of images."""

    name: str
    agreement: float | None
    optimized: float
    saved: float
    peak_program: float
    peak_ours: float
    is_stopped: bool


def compare(
    program: str, file: Path, content: str, style: str, images: Path, network: jaxstyle.Network
) -> Pair:
    """Run a preset as a program was run and compare the two."""
    with np.load(file) as data:
        image, losses, start = data["image"], data["losses"], data.get("start")
    preset, adam = program.removesuffix("-adam"), program.endswith("-adam")
    settings: dict[str, Any] = {"optimizer": "adam"} if adam else {}
    settings |= ONE_SCALE.get(preset, {})
    sources = [load_image(images / f"{name}.png") for name in (content, style)]
    settings |= {"size": max(sources[0].shape[:2])}
    recipe = make_preset(preset, settings)
    recipe = dataclasses.replace(recipe, steps=len(losses) - 1)
    problem = jaxstyle.prepare(*sources, recipe=recipe, network=network, start=start)
    (ours,) = jaxstyle.finish(problem, list(jaxstyle.iterates(problem)))

    @jax.jit
    def loss(network: Any, targets: Any, image: jax.Array) -> jax.Array:
        return jaxstyle.make_objective(network, targets, problem.recipe)(image)[0]

    def at(image: np.ndarray) -> float:
        return float(loss(problem.network, problem.targets, jnp.asarray(image)))

    lowest = float(np.min(losses))
    # The last image was reported unless the optimizer moved it once more.
    agreement = None if preset in AVERAGED else abs(at(image) / losses[-1] - 1)
    return Pair(
        f"{content} x {style}",
        agreement,
        float(np.min(ours.history.loss)) / lowest,
        ours.loss / at(np.clip(image, 0, 1)),
        float(np.max(losses) / losses[0]),
        float(np.max(ours.history.loss) / ours.history.loss[0]),
        ours.steps < recipe.steps,
    )


def row(program: str, pairs: Sequence[Pair]) -> str:
    """Return a program's row of the table."""

    def mean(name: str) -> str:
        values = [getattr(pair, name) for pair in pairs]
        spread = f"{min(values):.2f} to {max(values):.2f}"
        return f"{np.exp(np.mean(np.log(values))):.2f} ({spread})"

    agreements = [pair.agreement for pair in pairs if pair.agreement is not None]
    cells = (
        program, f"{len(pairs)}", f"{max(agreements):.0e}" if agreements else "–",
        mean("optimized"), mean("saved"),
        *(f"{max(getattr(p, f'peak_{side}') for p in pairs):.2g}" for side in ("program", "ours")),
        f"{sum(pair.is_stopped for pair in pairs)}",
    )  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--weights", nargs="+", required=True, metavar="PRESET=FILE")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    weights = dict(word.split("=", 1) for word in arguments.weights)
    names = [path.stem for path in sorted(arguments.images.glob("*.png"))]
    columns = (
        "program", "pairs", "agreement", "ours / program", "as saved", "peak, program",
        "peak, ours", "stopped",
    )  # fmt: skip
    print("| " + " | ".join(columns) + " |\n" + "| --- " * len(columns) + "|")
    written = {}
    for preset, file in weights.items():
        network = jaxstyle.load_network(file)
        for program in (preset, f"{preset}-adam"):
            pairs = [
                compare(program, path, content, style, arguments.images, network)
                for content in names
                for style in names
                if (path := arguments.results / f"{program}-{content}-{style}.npz").exists()
            ]
            if pairs:
                print(row(program, pairs), flush=True)
                written[program] = [pair._asdict() for pair in pairs]
    if arguments.json:
        arguments.json.write_text(json.dumps(written, indent=1) + "\n")


if __name__ == "__main__":
    main()
