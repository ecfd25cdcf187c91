"""Time of one evaluation of loss and gradient against PyTorch on the same machine.

    python experiments/bench/evaluation.py [--size 256] [--repeats 7]

The same image, weights and objective in float32; alternating runs in one process, medians.
Ours is timed as a run has it: inside a compiled loop, with the kernels transformed before it.
Prints a Markdown table and the time of compiling; needs PyTorch.
"""

import argparse
import dataclasses
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import torch
from classical import CLASSICAL
from torch_objective import TorchObjective, to_tensor

import jaxstyle
from jaxstyle.config.layers import convolutions
from jaxstyle.engine.program import common_arguments
from jaxstyle.nn.network import Network
from jaxstyle.nn.preprocessing import CONVENTIONS

FULL = (64, 128, 256, 512, 512)
LOOP = 3


def random_vgg19(widths: tuple[int, ...] = FULL) -> Network:
    """Draw a VGG-19 of He-scaled noise: as fast as a trained one."""
    params, width = {}, 3
    for i, layer in enumerate(convolutions("vgg19")):
        out = widths[int(layer[4]) - 1]
        kernel = jax.random.normal(jax.random.key(i), (3, 3, width, out)) * (2 / (9 * width)) ** 0.5
        params[layer] = {"kernel": kernel, "bias": jnp.zeros(out)}
        width = out
    return Network(params, "vgg19", CONVENTIONS["caffe"], name="random vgg19")


@jax.jit
def descend(network: Network, targets: object, recipe: object, image: jax.Array) -> jax.Array:
    """Take `LOOP` tiny gradient steps."""
    objective = jaxstyle.make_objective(network, targets, recipe)

    def step(image: jax.Array, _: None) -> tuple[jax.Array, None]:
        return image - 1e-12 * jax.grad(lambda x: objective(x)[0])(image), None

    return jax.lax.scan(step, image, None, length=LOOP)[0]


def clock(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    side = arguments.size
    content, style = jax.random.uniform(jax.random.key(0), (2, side, side, 3))
    print("| network | jaxstyle (s) | PyTorch (s) | ratio | first call less running (s) |")
    print("|---|---|---|---|---|")
    for network in (random_vgg19(), jaxstyle.load_network("compact")):
        recipe = jaxstyle.Recipe(size=0, **CLASSICAL)
        problem = jaxstyle.prepare(content, style, recipe=recipe, network=network)
        program = dataclasses.replace(problem.recipe, init="content")
        rival = TorchObjective(network, content, style, problem.recipe)
        image = to_tensor(content).requires_grad_()

        (network, _, _), _ = common_arguments(problem)

        def ours(
            problem: jaxstyle.Problem = problem,
            program: jaxstyle.Recipe = program,
            network: Network = network,
        ) -> None:
            descend(network, problem.targets, program, problem.start).block_until_ready()

        def theirs(rival: TorchObjective = rival, image: torch.Tensor = image) -> None:
            image.grad = None
            rival(image).backward()

        first, pairs = clock(ours), []
        theirs()
        for _ in range(arguments.repeats):
            pairs.append((clock(ours) / LOOP, clock(theirs)))
        mine, other = (statistics.median(times) for times in zip(*pairs, strict=True))
        print(
            f"| {network.name} | {mine:.3f} | {other:.3f} | {mine / other:.2f} "
            f"| {first - LOOP * mine:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
