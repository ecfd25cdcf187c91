"""The program of a run, compiled for a TPU v5e or an H100 that need not be there, and looked into.

    pip install "jax[tpu]==0.10.1" jax-cuda12-plugin==0.10.1 jax-cuda12-pjrt==0.10.1 \
        nvidia-cuda-nvcc-cu12
    python experiments/scale/targets.py tpu-v5e h100 [--size 384 512] [--batch 1 4]
        [--precision tf32 float32 bfloat16] [--effort -0.5] [--resolutions 1]
        [--style-loss gram] [--keep FOLDER]

In an environment of its own, beside the project's requirements. Compiles a chunk of steps of L-BFGS
with VGG-19 from shapes alone: nothing is run. Prints a line of a Markdown table for each program.
Exits with 1 if a program has what it must not have: another number of convolutions than the network
forward and to the image, a transfer to the host, or a copy of a whole feature map. `docs/scale.md`
has the results.
"""

import argparse
import math
import os
import re
import sys
import time
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

# Before JAX is imported. A CPU has no GPU to time kernels on, and a machine no TPU to ask about.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_SKIP_CUDA_CONSTRAINTS_CHECK"] = "1"
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_gpu_autotune_level=0"
os.environ["ALLOW_MULTIPLE_LIBTPU_LOAD"] = "1"
os.environ["TPU_SKIP_MDS_QUERY"] = "1"
os.environ["TPU_WORKER_HOSTNAMES"] = "localhost"
os.environ["TPU_ACCELERATOR_TYPE"] = "v5litepod-1"

import jax  # noqa: E402
from jax.experimental import topologies  # noqa: E402

from jaxstyle import Recipe  # noqa: E402
from jaxstyle.config.accelerators import ACCELERATORS  # noqa: E402
from jaxstyle.config.layers import convolutions  # noqa: E402
from jaxstyle.engine import compilation, memory  # noqa: E402
from jaxstyle.engine.problem import Problem  # noqa: E402
from jaxstyle.engine.roofline import step_cost  # noqa: E402
from jaxstyle.losses.statistics import network_layers  # noqa: E402
from jaxstyle.nn.network import Network  # noqa: E402
from jaxstyle.nn.preprocessing import CONVENTIONS  # noqa: E402

WIDTHS = {"vgg19": (64, 128, 256, 512, 512), "compact": (16, 32, 64, 128, 128)}
H100 = {
    "gpu_device_info": {
        "threads_per_block_limit": 1024,
        "threads_per_warp": 32,
        "shared_memory_per_block": 48 * 1024,
        "shared_memory_per_core": 228 * 1024,
        "shared_memory_per_block_optin": 227 * 1024,
        "threads_per_core_limit": 2048,
        "registers_per_core_limit": 2**16,
        "registers_per_block_limit": 2**16,
        "core_count": 132,
        "fpus_per_core": 128,
        "block_dim_limit_x": 2**31 - 1,
        "block_dim_limit_y": 2**16 - 1,
        "block_dim_limit_z": 2**16 - 1,
        "memory_bandwidth": 3_352_320_000_000,
        "l2_cache_size": 50 * 2**20,
        "clock_rate_ghz": 1.98,
        "device_memory_size": 80 * 10**9,
        "cuda_compute_capability": {"major": 9},
        "device_vendor": "NVIDIA Corporation",
        "device_address_bits": 64,
        "name": "NVIDIA H100 80GB HBM3",
    },
    "platform_name": "CUDA",
    "dnn_version_info": {"major": 9, "minor": 10},
    "device_description_str": "NVIDIA H100 80GB HBM3",
}
"""Limits of compute capability 9.0 (CUDA C++ Programming Guide, technical specifications) and of
the H100 SXM, in the words by which XLA describes a GPU."""


def as_text(message: dict[str, Any]) -> str:
    """Return a protocol buffer's text format."""
    parts = []
    for name, value in message.items():
        if isinstance(value, dict):
            parts.append(f"{name} {{ {as_text(value)} }}")
        else:
            parts.append(f'{name}: "{value}"' if isinstance(value, str) else f"{name}: {value}")
    return " ".join(parts)


def tpu_v5e() -> Any:
    """Return a TPU v5e, described."""
    return topologies.get_topology_desc(
        platform="tpu", topology_name="v5e:1x1", chips_per_host_bounds=(1, 1, 1)
    ).devices[0]


def h100() -> Any:
    """Return an H100, described."""
    return topologies.get_topology_desc(
        "1x1x1", platform="cuda", topology="1x1x1", target_config=as_text(H100)
    ).devices[0]


TARGETS = {"tpu-v5e": tpu_v5e, "h100": h100}


def network_of_shapes(name: str) -> Network:
    """Return a network whose arrays are shapes."""
    params, width = {}, 3
    for layer in convolutions("vgg19"):
        out = WIDTHS[name][int(layer[4]) - 1]
        kernel, bias = (jax.ShapeDtypeStruct(s, "float32") for s in ((3, 3, width, out), (out,)))
        params[layer] = {"kernel": kernel, "bias": bias}
        width = out
    return Network(params, "vgg19", CONVENTIONS["caffe"], name=name)


def loop_of(text: str) -> list[str]:
    """Return the instructions of a program's loops and of all that they call.

    Args:
      text: of the compiled program.
    """
    computations: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith(("%", "ENTRY")) and line.endswith("{"):
            name = line.removeprefix("ENTRY ").split(" ", 1)[0].lstrip("%")
            lines = computations[name] = []
        elif line.startswith("  "):
            lines.append(line)
    whole = "\n".join(line for lines in computations.values() for line in lines)
    waiting = re.findall(r" while\(.*body=%?([\w.\-]+)", whole)
    found: dict[str, list[str]] = {}
    while waiting:
        name = waiting.pop()
        if name in computations and name not in found:
            found[name] = computations[name]
            named = "\n".join(found[name])
            waiting += re.findall(r"(?:calls|to_apply|body|condition)=%?([\w.\-]+)", named)
            for several in re.findall(r"(?:branch_computations|calls)={([^}]*)}", named):
                waiting += [one.strip().lstrip("%") for one in several.split(",")]
    return [line for lines in found.values() for line in lines]


INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?[\w.\-]+ = (\(.*?\)|\S+) ([\w\-]+)\(")
HOST = ("infeed", "outfeed", "send", "recv", "callback", "HostCompute", "MoveToHost")
MOVES = ("copy", "transpose")


class Contents(NamedTuple):
    """What is in the loop of a program."""

    convolutions: int
    """Those of 3x3 kernels; TPUs have products of matrices as convolutions too."""
    host: list[str]
    """Instructions that exchange something with the host."""
    moved: list[str]
    """Instructions that only bring a whole feature map into another order."""


def contents(text: str, map_size: int) -> Contents:
    """Return what is in the loop of a program.

    Args:
      text: of the compiled program.
      map_size: elements of the largest feature map.
    """
    found = Contents(0, [], [])
    for line in loop_of(text):
        match = INSTRUCTION.match(line)
        if not match:
            continue
        shapes, kind = match.groups()
        target = re.search(r'custom_call_target="([^"]*)"', line)
        kind = target.group(1) if target else kind
        if any(word in kind for word in HOST):
            found.host.append(line.strip())
        arrays = re.findall(r"\b[a-z]+\d+\[([\d,]*)\]", shapes)
        largest = max((math.prod(map(int, filter(None, a.split(",")))) for a in arrays), default=0)
        if kind in MOVES and largest >= map_size:
            found.moved.append(line.strip())
        if "conv" in kind and re.search(r"window={size=(?:1x)?3x3\b", line):
            found = found._replace(convolutions=found.convolutions + 1)
    return found


class Compiled(NamedTuple):
    """A compiled program, and what it took."""

    program: jax.stages.Compiled
    problem: Problem
    seconds: float
    """To compile."""
    busy: float
    """Seconds of all cores while it compiled."""
    contents: Contents
    expected: int
    """Convolutions that there must be."""

    @property
    def bytes(self) -> int:
        """Arguments, results and temporaries."""
        found = self.program.memory_analysis()
        return (
            found.argument_size_in_bytes + found.output_size_in_bytes
            - found.alias_size_in_bytes + found.temp_size_in_bytes
        )  # fmt: skip

    @property
    def is_right(self) -> bool:
        """Whether it has what it must and nothing else."""
        found = self.contents
        return found.convolutions == self.expected and not found.host and not found.moved


def compiled(
    target: str, network: Network, size: tuple[int, int], recipe: Recipe, *,
    batch: int = 1, effort: float = 0.0,
) -> Compiled:  # fmt: skip
    """Compile a chunk of a run for a target.

    Args:
      target: key of `TARGETS`.
      network: its shapes.
      size: height and width.
      recipe: of the run.
      batch: images.
      effort: of the compiler to make fast programs, from -1 to 1.
    """
    recipe = memory.resolved_for_size(recipe, network, *size)
    problem = memory.problem_of_shapes(*size, recipe=recipe, network=network, batch=batch)
    lowered = compilation.lower(problem, chunk_size=5, device=TARGETS[target]())
    start, busy = time.perf_counter(), time.process_time()
    program = lowered.compile(compiler_options={"exec_time_optimization_effort": effort})
    seconds, busy = time.perf_counter() - start, time.process_time() - busy
    first = network.params["conv1_1"]["bias"].shape[0]
    found = contents(program.as_text(), batch * math.prod(size) * first)
    deepest = max(layer.replace("relu", "conv") for layer in network_layers(recipe))
    of_one = 2 * (1 + network.layers.index(deepest))
    return Compiled(program, problem, seconds, busy, found, of_one * (recipe.pyramid or 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="+", choices=list(TARGETS))
    parser.add_argument("--size", type=int, nargs=2, default=[384, 512], help="height and width")
    parser.add_argument("--batch", type=int, nargs="+", default=[1])
    parser.add_argument("--precision", nargs="+", default=["tf32"])
    parser.add_argument("--network", default="vgg19", choices=list(WIDTHS))
    parser.add_argument("--resolutions", type=int, default=1, help="of the image pyramid")
    parser.add_argument("--style-loss", default=Recipe().style_loss)
    parser.add_argument("--effort", type=float, default=0.0)
    parser.add_argument("--keep", type=Path, help="folder for the text of the programs")
    given = parser.parse_args()
    columns = (
        "target", "precision", "images", "s to compile", "s of cores", "GB", "plan's GB", "GFLOP",
        "plan's GFLOP", "GB accessed", "convolutions", "to the host", "maps copied",
    )  # fmt: skip
    print("| " + " | ".join(columns) + " |\n" + "| --- " * len(columns) + "|")
    right = True
    for target, precision, batch in product(given.targets, given.precision, given.batch):
        recipe = Recipe(
            scales=1, margin=0, pyramid=given.resolutions, history_size=20, precision=precision,
            style_loss=given.style_loss,
        )  # fmt: skip
        network = network_of_shapes(given.network)
        found = compiled(
            target, network, tuple(given.size), recipe, batch=batch, effort=given.effort
        )
        right &= found.is_right
        cost = found.program.cost_analysis() or {}
        planned = memory.program_bytes(found.problem, accelerator=ACCELERATORS[target])
        flops = step_cost(found.problem, ACCELERATORS[target]).flops
        cells = (
            target, precision, f"{batch}", f"{found.seconds:.0f}", f"{found.busy:.0f}",
            f"{found.bytes / 1e9:.2f}", f"{planned / 1e9:.2f}",
            # Library calls, as of cuDNN, are not counted.
            f"{cost['flops'] / 1e9:.0f}" if cost.get("flops") else "–", f"{flops / 1e9:.0f}",
            f"{cost['bytes accessed'] / 1e9:.1f}" if cost.get("bytes accessed") else "–",
            f"{found.contents.convolutions} of {found.expected}", f"{len(found.contents.host)}",
            f"{len(found.contents.moved)}",
        )  # fmt: skip
        print("| " + " | ".join(cells) + " |", flush=True)
        if given.keep:
            given.keep.mkdir(parents=True, exist_ok=True)
            (given.keep / f"{target}-{precision}-{batch}.txt").write_text(found.program.as_text())
    sys.exit(not right)


if __name__ == "__main__":
    main()
