"""Winograd's filtering against the direct convolution: time and rounding, layer by layer.

    python experiments/bench/convolutions.py [--repeats 5] [--quick]

Forward and gradient by the map, inside a compiled loop, CPU seconds of the process, medians of
alternating runs: what `convolution.pays` goes by. Errors are root mean squares against float64,
over the result's. Prints a Markdown table.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxstyle.nn import winograd
from jaxstyle.nn.convolution import convolve

# Side, channels in and out: VGG-19 at 256 pixels, and narrower networks.
SHAPES = (
    (256, 64, 64), (128, 64, 128), (128, 128, 128), (64, 128, 256), (64, 256, 256),
    (32, 256, 512), (32, 512, 512), (16, 512, 512), (256, 16, 32), (128, 32, 32), (64, 64, 64),
)  # fmt: skip
LOOP = 2


def both(forward: Callable[..., jax.Array], backward: Callable[..., jax.Array]) -> Callable:
    """Return a compiled loop of a convolution and of the one that its gradient is."""

    @jax.jit
    def run(x: jax.Array, kernel: jax.Array) -> jax.Array:
        def step(x: jax.Array, _: None) -> tuple[jax.Array, None]:
            return x + 1e-12 * backward(forward(x, kernel), kernel), None

        return jax.lax.scan(step, x, None, length=LOOP)[0]

    return run


def direct(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return convolve(x, kernel, None)


def direct_back(y: jax.Array, kernel: jax.Array) -> jax.Array:
    _, back = jax.vjp(lambda x: direct(x, kernel), jnp.zeros((*y.shape[:2], kernel.shape[2])))
    return back(y)[0]


def fast_back(y: jax.Array, transformed: jax.Array) -> jax.Array:
    return winograd.convolve(y, transformed, flipped=True)


def error(found: jax.Array, wanted: np.ndarray) -> float:
    difference = np.square(np.asarray(found, np.float64) - wanted).mean()
    return float(np.sqrt(difference / np.square(wanted).mean()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="the last three shapes only")
    arguments = parser.parse_args()
    print("| side | channels | direct (s) | Winograd (s) | ratio | error | direct's |")
    print("|---" * 7 + "|")
    rng = np.random.default_rng(0)
    runs = both(direct, direct_back), both(winograd.convolve, fast_back)
    for side, channels, width in SHAPES[-3:] if arguments.quick else SHAPES:
        x = rng.normal(size=(side, side, channels))
        kernel = rng.normal(size=(3, 3, channels, width)) * np.sqrt(2 / (9 * channels))
        image, weights = jnp.asarray(x, jnp.float32), jnp.asarray(kernel, jnp.float32)
        given = weights, winograd.transform(weights)
        results = direct(image, weights), winograd.convolve(image, given[1])
        with jax.enable_x64(True):
            exact = np.asarray(
                direct(jnp.asarray(image, jnp.float64), jnp.asarray(weights, jnp.float64))
            )
        seconds: tuple[list[float], list[float]] = [], []
        for _ in range(arguments.repeats + 1):
            for run, kernels, of_one in zip(runs, given, seconds, strict=True):
                start = time.process_time()
                run(image, kernels).block_until_ready()
                of_one.append((time.process_time() - start) / LOOP)
        # The first of each compiles.
        slow, quick = (statistics.median(of_one[1:]) for of_one in seconds)
        print(
            f"| {side} | {channels} to {width} | {slow:.4f} | {quick:.4f} | {quick / slow:.2f} "
            f"| {error(results[1], exact):.1e} | {error(results[0], exact):.1e} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
