"""What rounding the network's maps to bfloat16 does to L-BFGS.

    python experiments/bench/precision.py CONTENT STYLE [--size 128] [--weights compact]
        [--style-loss gram] [--steps 400]

Runs `lbfgs` with each precision from the content image, at one scale and resolution with values
free. Prints, for each, the trials that were rejected, how far its values are from those of float32
at the same images (the median), and the lowest value of float32 so far over that of the first row.
"""

import argparse
import dataclasses

import jax
import numpy as np

import jaxstyle
from jaxstyle.images import fit, load_image
from jaxstyle.losses.objective import make_objective
from jaxstyle.optim.preconditioner import preconditioner

MARKS = (50, 100, 200, 400)


def trace(problem: jaxstyle.Problem, steps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the value, the value of float32 and whether the trial was accepted, of each step."""
    recipe = problem.recipe
    exact = dataclasses.replace(recipe, precision="float32")
    init, step = jaxstyle.lbfgs(
        history_size=recipe.history_size, preconditioner=preconditioner(recipe.preconditioner)
    )

    @jax.jit
    def run(network, targets, image):
        objective = make_objective(network, targets, recipe)
        reference = make_objective(network, targets, exact)

        def body(state, _):
            state, info = step(objective, state)
            return state, (info.value, reference(state.point.position)[0], info.accepted)

        return jax.lax.scan(body, init(objective, image), None, length=steps)[1]

    values, references, accepted = run(problem.network, problem.targets, problem.start)
    return np.asarray(values), np.asarray(references), np.asarray(accepted)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("content")
    parser.add_argument("style")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--weights", default="compact")
    parser.add_argument("--style-loss", default="gram")
    parser.add_argument("--steps", type=int, default=max(MARKS))
    given = parser.parse_args()
    network = jaxstyle.load_network(given.weights)
    content, style = (fit(load_image(file), given.size) for file in (given.content, given.style))
    marks = [mark for mark in MARKS if mark <= given.steps]
    print("| precision | rejected | off | " + " | ".join(map(str, marks)) + " |")
    print("| --- |" + " ---: |" * (2 + len(marks)))
    first = None
    for precision in ("float32", "bfloat16"):
        recipe = jaxstyle.Recipe(
            size=0, scales=1, pyramid=1, margin=0, bounds="none", precision=precision,
            style_loss=given.style_loss,
        )  # fmt: skip
        problem = jaxstyle.prepare(content, style, recipe=recipe, network=network)
        values, references, accepted = trace(problem, given.steps)
        lowest = np.minimum.accumulate(references)
        first = lowest if first is None else first
        cells = [precision, f"{np.sum(~accepted)}"]
        cells.append(f"{np.median(np.abs(values / references - 1)):.1e}")
        cells += [f"{lowest[mark - 1] / first[mark - 1]:.3f}" for mark in marks]
        print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
