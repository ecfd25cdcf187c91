"""What the image is optimized in: pixels, scaled frequencies, decorrelated colors.

    python experiments/bench/parametrization.py IMAGES [--size N] [--evaluations N] [--init NAME]

IMAGES is a folder with the files of `PAIRS`. For every pair and variant: how many evaluations it
takes to reach the loss that L-BFGS on plain pixels (`--preconditioner none`) has after 500, and the
loss then. Prints a Markdown table with the geometric means over the pairs.
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxstyle
from jaxstyle.images import load_image
from jaxstyle.optim.base import Optimizer
from jaxstyle.optim.first_order import first_order

PAIRS = (
    ("tubingen", "starry_night"),
    ("tubingen", "the_scream"),
    ("golden_gate", "shipwreck"),
    ("golden_gate", "seated-nude"),
)
REFERENCE = 500
# Colors of natural images vary mostly together: axes of brightness, blue to yellow and red to
# green with the ratios of their deviations, rounded from those of the images in `PAIRS`.
AXES = np.array([[1, 1, 1], [1, 0, -1], [1, -2, 1]]) / np.sqrt([[3], [2], [6]])
DEVIATIONS = np.array([1.0, 0.3, 0.15])

Linear = Callable[[jax.Array], jax.Array]


def frequencies(exponent: float) -> Linear:
    """Multiply each frequency of an image with f**-exponent, 1 at the highest."""

    def scaled(x: jax.Array) -> jax.Array:
        h, w, _ = x.shape
        f = jnp.hypot(jnp.fft.fftfreq(h)[:, None], jnp.fft.rfftfreq(w))
        gain = (jnp.maximum(f, 1 / max(h, w)) / 0.5) ** -exponent
        found = jnp.fft.irfft2(jnp.fft.rfft2(x, axes=(0, 1)) * gain[..., None], (h, w), (0, 1))
        return found.astype(x.dtype)

    return scaled


def colors(exponent: float) -> Linear:
    """Multiply each color axis with its deviation**exponent, to a mean gain of 1."""
    gains = DEVIATIONS**exponent
    matrix = jnp.asarray((AXES.T * (gains / gains.mean())) @ AXES, jnp.float32)
    return lambda x: jnp.matmul(x, matrix, precision=jax.lax.Precision.HIGHEST)


def both(first: Linear, second: Linear) -> Linear:
    """Apply one after the other; they commute, one works on places and one on colors."""
    return lambda x: first(second(x))


def inverse(make: Callable[[float], Linear], exponent: float) -> Linear:
    """Undo `make(exponent)`."""
    forward, backward = make(exponent), make(-exponent)
    one = jnp.ones((8, 8, 3))
    scale = jnp.mean(one) / jnp.mean(backward(forward(one)))
    return lambda x: scale * backward(x)


def adam(rate: float) -> Optimizer:
    return first_order(optax.scale_by_adam(), lambda count: rate)


def variants() -> dict[str, tuple[Optimizer, Linear, Linear]]:
    """By name: optimizer, coordinates to image, image to coordinates."""

    def same(x: jax.Array) -> jax.Array:
        return x

    found = {"L-BFGS, pixels": (jaxstyle.lbfgs(), same, same)}
    found["L-BFGS, spectrum"] = (jaxstyle.lbfgs(preconditioner=frequencies(0.6)), same, same)
    for c in (0.5, 1.0):
        found[f"L-BFGS, colors {c:g}"] = (jaxstyle.lbfgs(preconditioner=colors(c)), same, same)
        found[f"L-BFGS, spectrum and colors {c:g}"] = (
            jaxstyle.lbfgs(preconditioner=both(frequencies(0.6), colors(c))), same, same,
        )  # fmt: skip
    for rate in (0.02, 0.05):
        found[f"Adam {rate:g}, pixels"] = (adam(rate), same, same)
        for f, c in ((0.3, 0.0), (0.3, 0.5), (1.0, 1.0)):
            decode, encode = (
                both(frequencies(f), colors(c)),
                both(inverse(frequencies, f), inverse(colors, c)),
            )
            # Unit steps should move the image about as far as they do in pixels.
            found[f"Adam {rate:g}, frequencies {f:g}, colors {c:g}"] = adam(rate), decode, encode
    return found


@partial(jax.jit, static_argnames=("variant", "steps"))
def losses(problem: jaxstyle.Problem, start: jax.Array, variant: str, steps: int) -> jax.Array:
    """The objective after each evaluation."""
    optimizer, decode, encode = variants()[variant]
    inner = jaxstyle.make_objective(problem.network, problem.targets, problem.recipe)

    def objective(z: jax.Array) -> tuple[jax.Array, None]:
        return inner(decode(z))[0], None

    state = optimizer.init(objective, encode(start))
    _, found = jax.lax.scan(
        lambda state, _: (lambda new: (new[0], new[1].value))(optimizer.step(objective, state)),
        state, None, length=steps,
    )  # fmt: skip
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", type=Path)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--evaluations", type=int, default=500)
    parser.add_argument("--init", default="content")
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    network = jaxstyle.load_network("compact")
    recipe = jaxstyle.Recipe(style_loss="gram", size=arguments.size, init=arguments.init)
    problems = [
        jaxstyle.prepare(
            *(load_image(arguments.images / f"{name}.jpg") for name in pair),
            recipe=recipe, network=network,
        )
        for pair in PAIRS
    ]  # fmt: skip
    first = "L-BFGS, pixels"
    wanted = [
        float(np.min(losses(problem, problem.start, first, arguments.evaluations)[:REFERENCE]))
        for problem in problems
    ]
    names = " | ".join(f"{content} x {style}" for content, style in PAIRS)
    print(f"| {arguments.init} start | {names} | mean | loss at {REFERENCE}, ratio |")
    print("|---" * (len(PAIRS) + 3) + "|")
    for variant in variants():
        if arguments.only not in variant:
            continue
        needed, ratios = [], []
        for problem, target in zip(problems, wanted, strict=True):
            best = np.minimum.accumulate(
                np.nan_to_num(
                    losses(problem, problem.start, variant, arguments.evaluations), nan=np.inf
                )
            )
            reached = np.flatnonzero(best <= target)
            needed.append(reached[0] + 1 if len(reached) else np.inf)
            ratios.append(best[REFERENCE - 1] / target)
        shown = " | ".join(f"{n:g}" if np.isfinite(n) else "-" for n in needed)
        mean = np.exp(np.mean(np.log(needed))) if np.isfinite(needed).all() else np.inf
        ratio = np.exp(np.mean(np.log(ratios)))
        print(f"| {variant} | {shown} | {mean:.0f} | {ratio:.3f} |", flush=True)


if __name__ == "__main__":
    main()
