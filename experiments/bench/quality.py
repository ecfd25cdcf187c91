"""Time to quality: what it takes to reach the loss that the classical recipe reaches.

    python experiments/bench/quality.py IMAGES [--size 128] [--evaluations 500]
        [--weights compact] [--pyramid-steps N] [--only NAME ...] [--results FILE.json]

IMAGES is a folder with the files of `parametrization.PAIRS`; their middle squares are taken, so
that all pairs share their programs. The classical recipe is L-BFGS that takes every step in whole,
with 100 pairs and values free. Of the image that it saves after all its evaluations, values
clipped to [0, 1], the loss is the mark: one for each pair and start.

The others keep their values in [0, 1] as they go, by default, so that the losses of their
histories are those of images as saved. They run until the best loss is at the mark or the
evaluations are spent. "lbfgs-fixed" among them is the classical optimizer with the bounds and the
history of the others; sgd is left out, as momentum is the same and faster. With three scales each
scale has the same number of steps, a third of the evaluations unless `--pyramid-steps` says
otherwise, and only the losses of the last count.

Columns: plain counts of evaluations of all scales, wherever their size; the same where one of a
smaller image counts as its share of the pixels; seconds of running, after a warm-up; seconds of
compiling, which is the first run less a second. The ratios are the classical recipe's evaluations
and seconds over these. A step of jaxopt's and optax's L-BFGS also computes the loss once more
without its gradient: the seconds have that, the evaluations do not. Within a chunk of five steps,
seconds (and evaluations, where a step may take several) are interpolated.

Prints a Markdown table with geometric means over the pairs. Where not every pair reaches its mark,
it says how many did, and gives the loss over the mark of those that did not.
"""

import argparse
import dataclasses
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from parametrization import PAIRS

import jaxstyle
from jaxstyle import Network, Problem, Recipe
from jaxstyle.engine.scales import scale_at
from jaxstyle.images import load_image

STARTS = ("content", "noise")
CLASSICAL = "classical"
OPTIMIZERS = ("lbfgs", "lbfgs-fixed", "optax-lbfgs", "jaxopt-lbfgs", "adam", "rmsprop", "momentum")
SCALES = 3
PYRAMIDS = {f"{name}, {SCALES} scales": name for name in ("lbfgs", "adam")}
NAMES = (*OPTIMIZERS, *PYRAMIDS)
EVERY = 5

Pair = tuple[np.ndarray, np.ndarray]


class Curve(NamedTuple):
    """A run, as arrays with one value a step of all its scales."""

    loss: np.ndarray
    """The best so far; infinite at smaller scales, whose losses are of other objectives."""
    evaluations: np.ndarray
    weighed: np.ndarray
    """Evaluations, each times its image's share of the last scale's pixels."""
    seconds: np.ndarray


class Outcome(NamedTuple):
    """Where a run met its mark or, if it did not, where its evaluations were spent."""

    reached: bool
    evaluations: float
    weighed: float
    seconds: float
    loss: float
    mark: float


def recipes(
    size: int, evaluations: int, pyramid_steps: int | None, names: Sequence[str]
) -> dict[str, Recipe]:
    """Return the contenders' recipes by name."""
    # The start is an evaluation too, one at each scale.
    plain = Recipe(style_loss="gram", size=size, steps=max(1, evaluations - 1))
    steps = pyramid_steps or max(1, evaluations // SCALES - 1)
    found = {name: dataclasses.replace(plain, optimizer=name) for name in OPTIMIZERS}
    for name, optimizer in PYRAMIDS.items():
        found[name] = dataclasses.replace(plain, optimizer=optimizer, scales=SCALES, steps=steps)
    return {name: found[name] for name in names}


def square(file: Path) -> np.ndarray:
    """Read an image and cut its middle square."""
    image = load_image(file)
    side = min(image.shape[:2])
    top, left = ((length - side) // 2 for length in image.shape[:2])
    return image[top : top + side, left : left + side]


def compile_seconds(pair: Pair, recipe: Recipe, network: Network) -> float:
    """Compile all programs of a recipe; how many seconds longer than running them that took."""
    # Two chunks a scale: what a chunk gives may be typed otherwise than what the start gives (as
    # optax's search is), and is then compiled for once more.
    short = dataclasses.replace(recipe, steps=EVERY + 1)
    problem = jaxstyle.prepare(*pair, recipe=short, network=network)
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        seen = [i._replace(carry=None) for i in jaxstyle.iterates(problem, chunk_size=EVERY)]
        seconds.append(time.perf_counter() - start)
    # Scores the image by a program of its own, once a run and not timed.
    jaxstyle.finish(problem, seen)
    return seconds[0] - seconds[1]


def classical(problem: Problem) -> Outcome:
    """Run the classical recipe to its end; its loss, of the image as saved, is the mark."""
    seen = [i._replace(carry=None) for i in jaxstyle.iterates(problem, chunk_size=EVERY)]
    (result,) = jaxstyle.finish(problem, seen)
    spent, seconds = float(result.evaluations), result.run_seconds
    return Outcome(True, spent, spent, seconds, result.loss, result.loss)


def curve(problem: Problem, *, mark: float, evaluations: int) -> Curve:
    """Run until the loss is at the mark or the evaluations are spent."""
    shares = [float(np.prod(scale.size)) / float(np.prod(problem.size)) for scale in problem.scales]
    last = len(shares) - 1
    chunks = []
    spent, weighed, seconds, level = 0, 0.0, 0.0, 0
    for iterate in jaxstyle.iterates(problem, chunk_size=EVERY):
        before, level = level, scale_at(problem, iterate.step)
        losses = iterate.history.loss
        part = np.arange(1, len(losses) + 1)
        # A larger scale begins with an evaluation that is no step.
        begun = int(level > before)
        fresh = int(iterate.evaluations) - spent
        within = begun + part * (fresh - begun) / len(losses)
        chunks.append(
            (
                losses if level == last else np.full(len(losses), np.inf),
                spent + within,
                weighed + within * shares[level],
                seconds + part * iterate.run_seconds / len(losses),
            )
        )
        spent, weighed = spent + fresh, weighed + fresh * shares[level]
        seconds += iterate.run_seconds
        if spent >= evaluations or (level == last and np.any(losses <= mark)):
            break
    loss, *others = (np.concatenate(values) for values in zip(*chunks, strict=True))
    # A loss that is not a number is never the best.
    return Curve(np.fmin.accumulate(loss), *others)


def outcome(found: Curve, *, mark: float, evaluations: int) -> Outcome:
    """Find the first step at the mark, or the last one that the evaluations allow."""
    allowed = found.evaluations <= evaluations
    hits = np.flatnonzero(allowed & (found.loss <= mark))
    step = hits[0] if len(hits) else np.flatnonzero(allowed)[-1]
    loss, spent, weighed, seconds = (float(values[step]) for values in found)
    return Outcome(len(hits) > 0, spent, weighed, seconds, loss, mark)


def mean(values: Sequence[float]) -> float:
    """The geometric mean."""
    return float(np.exp(np.mean(np.log(values))))


def line(
    start: str, name: str, found: Sequence[Outcome], rivals: Sequence[Outcome], compiling: float
) -> str:
    """Return a row of the table; `rivals` are the classical runs, pair by pair."""
    missed = [run for run in found if not run.reached]
    reached = f"{len(found) - len(missed)} of {len(found)}"
    cells = [start, name, reached, "not reached", "-", "-", "-", "-", "-", f"{compiling:.1f}"]
    if not missed:
        both = list(zip(found, rivals, strict=True))
        cells[3:8] = [
            f"{mean([run.evaluations for run in found]):.0f}",
            f"{mean([run.weighed for run in found]):.0f}",
            f"{mean([rival.evaluations / run.evaluations for run, rival in both]):.2f}",
            f"{mean([run.seconds for run in found]):.2f}",
            f"{mean([rival.seconds / run.seconds for run, rival in both]):.2f}",
        ]
    else:
        cells[8] = f"{mean([run.loss / run.mark for run in missed]):.3f}"
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", type=Path)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--evaluations", type=int, default=500)
    parser.add_argument("--weights", default="compact")
    parser.add_argument("--pyramid-steps", type=int, help="of each scale")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, metavar="NAME")
    parser.add_argument("--results", type=Path)
    arguments = parser.parse_args()
    budget = arguments.evaluations
    network = jaxstyle.load_network(arguments.weights)
    squares = {name: square(arguments.images / f"{name}.jpg") for name in sum(PAIRS, ())}
    pairs: list[Pair] = [(squares[content], squares[style]) for content, style in PAIRS]
    reference = Recipe(
        style_loss="gram", optimizer="lbfgs-fixed", bounds="none", history_size=100,
        size=arguments.size, steps=max(1, budget - 1),
    )  # fmt: skip
    runs = {CLASSICAL: reference}
    runs |= recipes(arguments.size, budget, arguments.pyramid_steps, arguments.only)
    compiling: dict[str, float] = {}
    results: list[dict[str, Any]] = []
    columns = (
        "start", "run", "reached", "evaluations", "by pixels", "fewer, times", "seconds",
        "faster, times", "loss / mark if not reached", "compile (s)",
    )  # fmt: skip
    print("| " + " | ".join(columns) + " |")
    print("|---" * len(columns) + "|", flush=True)
    for start in STARTS:
        rivals: list[Outcome] = []
        for name, recipe in runs.items():
            recipe = dataclasses.replace(recipe, init=start)
            # The start does not shape the programs, so both starts share them.
            if name not in compiling:
                compiling[name] = compile_seconds(pairs[0], recipe, network)
            problems = [jaxstyle.prepare(*pair, recipe=recipe, network=network) for pair in pairs]
            if name == CLASSICAL:
                found = rivals = [classical(problem) for problem in problems]
            else:
                found = []
                for problem, rival in zip(problems, rivals, strict=True):
                    run = curve(problem, mark=rival.mark, evaluations=budget)
                    found.append(outcome(run, mark=rival.mark, evaluations=budget))
            print(line(start, name, found, rivals, compiling[name]), flush=True)
            for pair, one in zip(PAIRS, found, strict=True):
                row = {"start": start, "name": name, "pair": pair, **one._asdict()}
                results.append({**row, "compile": compiling[name]})
    if arguments.results:
        arguments.results.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
