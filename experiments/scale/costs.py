"""What a step costs, by the compiled programs: work, memory and exchange against size and devices.

    python experiments/scale/costs.py [--sizes 256 512] [--devices 1 2 4 8] [--batches 8]

Compiles VGG-19's default recipe (L-BFGS, 20 pairs) from shapes alone for devices that need not
be there: nothing is run. Prints a Markdown table, all numbers a device and step; see
`docs/scale.md`, which has the model that they are checked against.
"""

import argparse
import re
import time

import jax
import jax.numpy as jnp

import jaxstyle
from jaxstyle.config.layers import convolutions
from jaxstyle.engine.compilation import lower
from jaxstyle.engine.problem import Problem, shard_rows
from jaxstyle.losses.resolve import resolve_recipe
from jaxstyle.nn.network import Network
from jaxstyle.nn.preprocessing import CONVENTIONS
from jaxstyle.nn.sharding import BatchSharding

WIDTHS = (64, 128, 256, 512, 512)
# Exchanged a device: what an instruction gives, but for a sum, which goes round a ring twice.
FACTOR = {"all-reduce": 2, "all-gather": 1, "all-to-all": 1, "collective-permute": 1}
BYTES = {"f32": 4, "c64": 8, "s32": 4, "pred": 1}
INSTRUCTION = re.compile(rf"= (.*?) ({'|'.join(FACTOR)})(?:-start)?\(")
ARRAY = re.compile(r"\b(f32|c64|s32|pred)\[([\d,]*)\]")


def vgg19() -> Network:
    """The network's shapes."""
    params, width = {}, 3
    for layer in convolutions("vgg19"):
        out = WIDTHS[int(layer[4]) - 1]
        params[layer] = {"kernel": shape(3, 3, width, out), "bias": shape(out)}
        width = out
    return Network(params, "vgg19", CONVENTIONS["caffe"], name="vgg19")


def shape(*sizes: int, sharding: jax.sharding.Sharding | None = None) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(sizes, jnp.float32, sharding=sharding)


def problem_of(size: int, batch: int, devices: int, tile: int) -> Problem:
    """A problem of shapes, of square images."""
    network = vgg19()
    recipe = resolve_recipe(jaxstyle.Recipe(style_loss="gram", tile=tile), network)
    several = jax.devices()[:devices]
    rows = shard_rows(several, size, recipe) if devices > 1 and batch == 1 else None

    def compute(network: Network, content: jax.Array, style: jax.Array) -> jaxstyle.Targets:
        return jaxstyle.compute_targets(network, content, [style], recipe, rows=rows)

    image = shape(size, size, 3)
    targets = jax.eval_shape(compute, network, image, image)

    def placed(tree: object, sharding: jax.sharding.Sharding) -> object:
        return jax.tree.map(lambda leaf: shape(*leaf.shape, sharding=sharding), tree)

    if rows is not None:
        targets = targets._replace(
            content=placed(targets.content, rows.by_row),
            style=placed(targets.style, rows.replicated),
        )
        start = shape(rows.padded, size, 3, sharding=rows.by_row)
        return Problem(placed(network, rows.replicated), targets, recipe, start, layout=rows)
    start = shape(batch, size, size, 3) if batch > 1 else image
    if devices == 1:
        return Problem(network, targets, recipe, start)
    layout = BatchSharding.over(several, batch)
    targets = placed(targets, layout.replicated)
    start = placed(start, layout.by_element)
    return Problem(placed(network, layout.replicated), targets, recipe, start, layout=layout)


def exchanged(text: str) -> dict[str, tuple[int, int]]:
    """Count instructions and bytes a device, by kind."""
    found = {kind: (0, 0) for kind in FACTOR}
    for arrays, kind in INSTRUCTION.findall(text):
        count, total = found[kind]
        for element, sizes in ARRAY.findall(re.sub(r"/\*.*?\*/", "", arrays)):
            number = 1
            for size in filter(None, sizes.split(",")):
                number *= int(size)
            total += BYTES[element] * number * FACTOR[kind]
        found[kind] = count + 1, total
    return found


def row(size: int, batch: int, devices: int, tile: int) -> str:
    start = time.perf_counter()
    # The direct convolution, as GPUs and TPUs have it: Winograd's filtering is for CPUs.
    program = lower(problem_of(size, batch, devices, tile), direct=True).compile()
    seconds = time.perf_counter() - start
    cost, memory = program.cost_analysis(), program.memory_analysis()
    sent = exchanged(program.as_text())
    kept = memory.argument_size_in_bytes
    cells = (
        f"{size}", f"{tile or '–'}", f"{batch}", f"{devices}", f"{cost['flops'] / 1e9:.1f}",
        f"{cost['bytes accessed'] / 1e9:.2f}", f"{kept / 1e6:.0f}",
        f"{memory.temp_size_in_bytes / 1e6:.0f}",
        *(f"{sent[kind][0]} / {sent[kind][1] / 1e6:.3f}"
          for kind in ("collective-permute", "all-reduce", "all-to-all", "all-gather")),
        f"{seconds:.0f}",
    )  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512])
    parser.add_argument("--devices", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--batches", type=int, nargs="*", default=[8])
    parser.add_argument("--tile", type=int, default=0)
    given = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", max(given.devices))
    columns = (
        "size", "tile", "batch", "devices", "GFLOP", "GB accessed", "MB kept", "MB temporary",
        "rows: n / MB", "sums: n / MB", "columns: n / MB", "gathered: n / MB", "s to compile",
    )  # fmt: skip
    print("| " + " | ".join(columns) + " |\n" + "| --- " * len(columns) + "|")
    for size in given.sizes:
        for batch in (1, *given.batches):
            for devices in given.devices if batch == 1 else {1, max(given.devices)}:
                print(row(size, batch, devices, given.tile), flush=True)


if __name__ == "__main__":
    main()
