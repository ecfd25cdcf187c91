"""A few points of the cost model, run on this machine: seconds a step and the peak of memory.

    python experiments/scale/measured.py SIZE [--devices N] [--steps 3] [--tile N]

One size a process, as the peak is the process's. VGG-19 of random weights, the default recipe.
Devices of a CPU are one machine's: they show what sharing out costs, not what it brings.
"""

import argparse
import resource

import jax
import numpy as np
from costs import vgg19

import jaxstyle
from jaxstyle.engine.compilation import lower


def peak() -> float:
    """Megabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("size", type=int)
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--tile", type=int, default=0)
    given = parser.parse_args()
    jax.config.update("jax_num_cpu_devices", given.devices)
    rng = np.random.default_rng(0)
    shapes = vgg19()
    network = shapes.replace(
        params=jax.tree.map(
            lambda leaf: (
                rng.standard_normal(leaf.shape, np.float32)
                * np.float32((2 / max(1, np.prod(leaf.shape[:-1]))) ** 0.5)
            ),
            shapes.params,
        )
    )
    content, style = rng.random((2, given.size, given.size, 3), np.float32)
    recipe = jaxstyle.Recipe(style_loss="gram", size=0, steps=given.steps + 1, tile=given.tile)
    problem = jaxstyle.prepare(
        content, style, recipe=recipe, network=network, devices=given.devices
    )
    program = lower(problem).compile()
    memory, flops = program.memory_analysis(), program.cost_analysis()["flops"]
    needed = memory.argument_size_in_bytes + memory.temp_size_in_bytes
    seconds = []
    before = peak()
    for iterate in jaxstyle.iterates(problem, chunk_size=1):
        seconds.append(iterate.run_seconds)
    step = float(np.median(seconds[2:]))
    print(
        f"size {given.size}, devices {given.devices}, tile {given.tile}: {step:.2f} s a step, "
        f"{flops * given.devices / 1e9:.1f} GFLOP, {flops * given.devices / 1e9 / step:.0f} "
        f"GFLOP/s; program {needed * given.devices / 1e6:.0f} MB, peak of the process "
        f"{peak():.0f} MB, {before:.0f} before the first step"
    )


if __name__ == "__main__":
    main()
