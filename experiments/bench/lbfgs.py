"""L-BFGS against L-BFGS: the loss that each reaches in the same number of evaluations.

    python experiments/bench/lbfgs.py CONTENT STYLE [--weights NAME] [--size N] [--evaluations N]

The same objective, start, history size and float32 for ours, jaxopt's, optax's and PyTorch's
(with and without its strong Wolfe search). Prints a Markdown table; needs PyTorch.
"""

import argparse
from collections.abc import Iterator

import numpy as np
import torch
from torch_objective import TorchObjective, to_tensor

import jaxstyle
from jaxstyle import Recipe
from jaxstyle.images import load_image

MARKS = (25, 50, 100, 200, 400, 800)


def ours(problem: jaxstyle.Problem, evaluations: int) -> Iterator[tuple[int, float]]:
    """Run one of our optimizers, giving (evaluations, loss) after each step."""
    for iterate in jaxstyle.iterates(problem, chunk_size=1):
        yield int(iterate.evaluations), float(iterate.history.loss[-1])
        if iterate.evaluations >= evaluations:
            return


def torchs(
    problem: jaxstyle.Problem, objective: TorchObjective, evaluations: int, search: str | None
) -> Iterator[tuple[int, float]]:
    """Run PyTorch's, giving the best loss so far after each evaluation."""
    # Contiguous, as its L-BFGS flattens the gradient.
    image = to_tensor(problem.start).contiguous().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [image], max_iter=evaluations, max_eval=evaluations, tolerance_grad=0,
        tolerance_change=-1, history_size=problem.recipe.history_size, line_search_fn=search,
    )  # fmt: skip
    losses: list[float] = []

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = objective(image)
        loss.backward()
        losses.append(loss.item())
        return loss

    optimizer.step(closure)
    yield from enumerate(np.minimum.accumulate(losses).tolist(), start=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("content")
    parser.add_argument("style")
    parser.add_argument("--weights", default="compact")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--evaluations", type=int, default=200)
    parser.add_argument("--history-size", type=int, default=20)
    arguments = parser.parse_args()

    network = jaxstyle.load_network(arguments.weights)
    content, style = load_image(arguments.content), load_image(arguments.style)
    marks = [m for m in MARKS if m <= arguments.evaluations]
    print("| start | optimizer | " + " | ".join(f"loss at {m}" for m in marks) + " |")
    print("|---" * (len(marks) + 2) + "|")
    for init in ("content", "noise"):
        for name in ("lbfgs", "jaxopt-lbfgs", "optax-lbfgs", "torch", "torch strong_wolfe"):
            recipe = Recipe(
                bounds="none",
                size=arguments.size, init=init, steps=arguments.evaluations,
                history_size=arguments.history_size,
                optimizer="lbfgs" if name.startswith("torch") else name,
            )  # fmt: skip
            problem = jaxstyle.prepare(content, style, recipe=recipe, network=network)
            if name.startswith("torch"):
                shrunk = jaxstyle.images.fit(style, arguments.size)
                sized = jaxstyle.images.fit(content, arguments.size)
                objective = TorchObjective(network, sized, shrunk, problem.recipe)
                search = "strong_wolfe" if "wolfe" in name else None
                curve = list(torchs(problem, objective, arguments.evaluations, search))
            else:
                curve = list(ours(problem, arguments.evaluations))
            # The best that was had for at most that many evaluations.
            reached = [min((loss for spent, loss in curve if spent <= m)) for m in marks]
            print(
                f"| {init} | {name} | " + " | ".join(f"{x:.4g}" for x in reached) + " |", flush=True
            )


if __name__ == "__main__":
    main()
