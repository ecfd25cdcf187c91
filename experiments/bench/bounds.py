"""Values kept in [0, 1] while optimising, against clipping at the end.

    python experiments/bench/bounds.py PICTURES [--size N] [--steps N]

PICTURES is a folder with the files of `parametrization.PAIRS`. Four ways to end with a picture:
`free` optimises any values and clips the last; `project` clips every iterate; `sigmoid` optimises z
with x = sigmoid(z); `penalty` adds the squared distance from [0, 1]. For L-BFGS and Adam: the
loss of the saved picture, the share of its values that are 0 or 1, and by how much clipping raised
the loss. Prints a Markdown table with means over the pairs.
"""

import argparse
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from parametrization import PAIRS

import jaxstyle
from jaxstyle.images import load_image
from jaxstyle.optimisers import Optimiser
from jaxstyle.optimisers.first_order import first_order
from jaxstyle.optimisers.preconditioner import spectrum

EDGE = 1 / 510
"""Half a step of 8 bits: nearer to 0 or 1 a value is saved as that."""
MARGIN = 1e-3
"""What a sigmoid's start is kept away from 0 and 1."""


def make(name: str) -> Optimiser:
    if name == "L-BFGS":
        return jaxstyle.lbfgs(preconditioner=spectrum)
    return first_order(optax.scale_by_adam(), lambda count: 0.02)


@partial(jax.jit, static_argnames=("way", "optimiser", "steps"))
def run(job: jaxstyle.Job, way: str, optimiser: str, steps: int) -> tuple[jax.Array, jax.Array]:
    """The best picture, not clipped, and its loss."""
    inner = jaxstyle.make_objective(job.network, job.targets, job.recipe)
    start, scale = job.start, 0.25
    # At grey a step of z is one of x, as in the other ways.
    decode = (lambda z: jax.nn.sigmoid(z / scale)) if way == "sigmoid" else lambda z: z
    if way == "sigmoid":
        start = scale * jax.scipy.special.logit(jnp.clip(start, MARGIN, 1 - MARGIN))

    def objective(z: jax.Array) -> tuple[jax.Array, None]:
        x = decode(z)
        if way == "project":
            # The objective of the projection, and back inside where the value has none to tell.
            x = jnp.clip(x, 0, 1)
        value = inner(x)[0]
        if way == "penalty":
            value += 1e3 * jnp.mean(jnp.square(x - jnp.clip(x, 0, 1)))
        return value, None

    init, step = make(optimiser)[:2]

    def projected(state):
        position = state.point.position
        inside = jnp.clip(position, 0, 1)
        return state._replace(point=state.point._replace(position=inside))

    def advance(carry, _):
        state, best, loss = carry
        state, _ = step(objective, state)
        if way == "project":
            state = projected(state)
        better = state.point.value < loss
        best = jnp.where(better, state.point.position, best)
        return (state, best, jnp.where(better, state.point.value, loss)), None

    state = init(objective, start)
    (_, best, loss), _ = jax.lax.scan(
        advance, (state, start, state.point.value), None, length=steps
    )
    return decode(best), loss


@jax.jit
def value(job: jaxstyle.Job, image: jax.Array) -> jax.Array:
    return jaxstyle.make_objective(job.network, job.targets, job.recipe)(image)[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--steps", type=int, default=200)
    arguments = parser.parse_args()
    network = jaxstyle.load_network("compact")
    recipe = jaxstyle.Recipe(size=arguments.size)
    jobs = [
        jaxstyle.prepare(
            *(load_image(arguments.pictures / f"{name}.jpg") for name in pair),
            recipe=recipe, network=network,
        )
        for pair in PAIRS
    ]  # fmt: skip
    jobs = [job._replace(recipe=job.recipe.for_program()) for job in jobs]
    print("| optimiser | way | saved loss, ratio to free | at 0 or 1 | outside | clipping costs |")
    print("|---" * 6 + "|")
    for optimiser in ("L-BFGS", "Adam"):
        free: list[float] = []
        for way in ("free", "project", "sigmoid", "penalty"):
            rows = []
            for job in jobs:
                image, loss = run(job, way, optimiser, arguments.steps)
                saved = jnp.clip(image, 0, 1)
                edge = jnp.mean((saved <= EDGE) | (saved >= 1 - EDGE))
                beyond = jnp.mean((image < -EDGE) | (image > 1 + EDGE))
                rows.append([float(v) for v in (value(job, saved), edge, beyond, loss)])
            rows = np.array(rows)
            free = rows[:, 0] if way == "free" else free
            ratio = np.exp(np.mean(np.log(rows[:, 0] / free)))
            cost = np.exp(np.mean(np.log(rows[:, 0] / rows[:, 3]))) - 1
            print(
                f"| {optimiser} | {way} | {ratio:.3f} | {rows[:, 1].mean():.1%} | "
                f"{rows[:, 2].mean():.1%} | {cost:.1%} |", flush=True,
            )  # fmt: skip


if __name__ == "__main__":
    main()
