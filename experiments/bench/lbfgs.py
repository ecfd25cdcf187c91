"""L-BFGS against PyTorch's: the loss that each reaches in the same number of evaluations.

    python experiments/bench/lbfgs.py IMAGES [--weights NAME] [--size 128] [--start content]
        [--history 20 50 100] [--content-layers LAYERS] [--style-layers LAYERS] [--libraries]
        [--results FILE.json]

IMAGES is a folder with the files of `parametrization.PAIRS`; their middle squares are taken, so
that all pairs share their programs. The mark is PyTorch's L-BFGS as style transfer programs use it:
fixed steps, 100 pairs, images of 0 to 255, values free. It descends our objective, compiled by JAX,
so that both have the same numbers. Needs PyTorch.

A cell is the loss over PyTorch's after as many evaluations, the geometric mean over the pairs and
the largest of them. The loss is that of the best image so far, and that of this image as saved,
values clipped to [0, 1]. Prints a Markdown table.
"""

import argparse
import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import torch
from parametrization import PAIRS
from quality import mean, square

import jaxstyle
from jaxstyle import Problem, Recipe, make_objective

MARKS = (50, 100, 200)
REFERENCE = {"optimizer": "torch", "bounds": "none", "history_size": 100}
SCALE = 255.0

Curve = Iterator[tuple[int, float, np.ndarray]]
"""Evaluations so far, the best loss so far and its image."""


@jax.jit
def value_and_grad(
    network: jaxstyle.Network, targets: jaxstyle.Targets, numbers: Any, image: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Compute the objective of an image with values free; `numbers` is a wrapped recipe."""
    objective = make_objective(network, targets, numbers.recipe)
    (value, _), grad = jax.value_and_grad(objective, has_aux=True)(image)
    return value, grad


@jax.tree_util.register_static
class Settings:
    """A recipe as a static argument."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Settings) and self.recipe == other.recipe

    def __hash__(self) -> int:
        return hash(self.recipe)


def evaluated(problem: Problem, image: np.ndarray) -> tuple[float, np.ndarray]:
    """Compute the loss of an image and its gradient."""
    network = problem.recipe.configure_network(problem.network)
    value, grad = value_and_grad(network, problem.targets, Settings(problem.recipe), image)
    return float(value), np.asarray(grad)


def ours(problem: Problem) -> Curve:
    """Run an optimizer that a recipe can name."""
    for iterate in jaxstyle.iterates(problem, chunk_size=1):
        yield int(iterate.evaluations), float(iterate.loss), np.asarray(iterate.image)


def torchs(problem: Problem, search: str | None) -> Curve:
    """Run PyTorch's, with or without its strong Wolfe search."""
    position = torch.tensor(SCALE * np.asarray(problem.start)).requires_grad_()
    evaluations = problem.recipe.steps + 1
    optimizer = torch.optim.LBFGS(
        [position], max_iter=evaluations, max_eval=evaluations, tolerance_grad=0,
        tolerance_change=-1, history_size=problem.recipe.history_size, line_search_fn=search,
    )  # fmt: skip
    found: list[tuple[int, float, np.ndarray]] = []

    def closure() -> torch.Tensor:
        image = position.detach().numpy() / SCALE
        value, grad = evaluated(problem, image)
        position.grad = torch.tensor(grad / SCALE)
        if not found or value < found[-1][1]:
            found.append((len(found) + 1, value, image))
        else:
            found.append((len(found) + 1, *found[-1][1:]))
        return torch.tensor(value)

    optimizer.step(closure)
    yield from found


def losses(problem: Problem, curve: Curve) -> list[tuple[float, float]]:
    """Return the best loss at each mark, and that of its image as saved."""
    reached = dict.fromkeys(MARKS, (np.inf, np.asarray(problem.start)))
    for spent, loss, image in curve:
        reached |= {mark: (loss, image) for mark in MARKS if spent <= mark}
        if spent >= MARKS[-1]:
            break
    return [(loss, evaluated(problem, image.clip(0, 1))[0]) for loss, image in reached.values()]


def variants(histories: Sequence[int], libraries: bool) -> dict[str, dict[str, Any]]:
    """Return the settings of each row, the reference first."""
    found: dict[str, dict[str, Any]] = {"PyTorch, fixed steps, 100 pairs": REFERENCE}
    for bounds, preconditioner, pairs in itertools.product(
        ("none", "soft"), ("spectrum", "none"), histories
    ):
        name = f"lbfgs, {pairs} pairs"
        name += "" if preconditioner == "spectrum" else ", no preconditioner"
        name += ", bounds soft" if bounds == "soft" else ", values free"
        found[name] = {
            "bounds": bounds, "preconditioner": preconditioner, "history_size": pairs,
        }  # fmt: skip
    if libraries:
        for name in ("torch strong_wolfe", "optax-lbfgs", "jaxopt-lbfgs"):
            found[f"{name}, 100 pairs"] = {**REFERENCE, "optimizer": name}
    return found


def run(problem: Problem, optimizer: str) -> list[tuple[float, float]]:
    """Run one variant on one pair."""
    if optimizer.startswith("torch"):
        curve = torchs(problem, "strong_wolfe" if "wolfe" in optimizer else None)
    else:
        curve = ours(problem)
    return losses(problem, curve)


def row(name: str, found: np.ndarray, reference: np.ndarray) -> str:
    """Return a line of the table; arrays are `[pairs, marks, 2]`."""
    ratios = (found / reference).reshape(len(found), -1)
    cells = [f"{mean(column):.3f} ({column.max():.3f})" for column in ratios.T]
    return f"| {name} | " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", type=Path)
    parser.add_argument("--weights", default="compact")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--start", default="content")
    parser.add_argument("--history", type=int, nargs="+", default=[20, 50, 100])
    parser.add_argument("--content-layers", default="relu4_2")
    parser.add_argument("--style-layers")
    parser.add_argument("--libraries", action="store_true", help="optax's and jaxopt's too")
    parser.add_argument("--results", type=Path)
    arguments = parser.parse_args()
    network = jaxstyle.load_network(arguments.weights)
    squares = {name: square(arguments.images / f"{name}.jpg") for name in sum(PAIRS, ())}
    columns = [f"{mark}, {kind}" for mark in MARKS for kind in ("free", "saved")]
    print("| run | " + " | ".join(columns) + " |")
    print("|---" * (len(columns) + 1) + "|", flush=True)
    results: dict[str, Any] = {}
    for name, settings in variants(arguments.history, arguments.libraries).items():
        optimizer = settings.get("optimizer", "lbfgs")
        recipe = Recipe(
            **{**settings, "optimizer": "lbfgs" if optimizer.startswith("torch") else optimizer},
            style_loss="gram", scales=1, size=arguments.size, init=arguments.start, steps=MARKS[-1],
            content_layers=arguments.content_layers, style_layers=arguments.style_layers,
        )  # fmt: skip
        found = []
        for content, style in PAIRS:
            problem = jaxstyle.prepare(
                squares[content], squares[style], recipe=recipe, network=network
            )
            found.append(run(problem, optimizer))
        results[name] = found
        reference = next(iter(results.values()))
        print(row(name, np.array(found), np.array(reference)), flush=True)
        if arguments.results:
            arguments.results.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
