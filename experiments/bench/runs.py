"""Whole runs of L-BFGS against PyTorch's: seconds and memory.

    python experiments/bench/runs.py [--sizes 128 256 512x384] [--evaluations 200]
        [--networks full compact] [--repeats 3] [--only NAME ...] [--results FILE.json]
        [--plot FILE.svg] [--device cpu]

The same noise as images, weights and objective for both, float32; a fresh process a run, taken in
turns. Losses tell that both descend; how well on images, `lbfgs.py` tells. PyTorch runs channels
last with as many threads as cores, `torch.optim.LBFGS` without a line search (one evaluation a
step, as ours), on a GPU also with `torch.compile`. The compilation cache of JAX is off, but for
"jaxstyle, cached". Prints a Markdown table of medians and ratios. Needs PyTorch; the plot needs
matplotlib.
"""

import argparse
import dataclasses
import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from classical import CLASSICAL

from jaxstyle.losses.resolve import resolve_recipe

NAMES = ("jaxstyle", "jaxstyle, cached", "torch", "torch, compiled")


def ours(given: Path, evaluations: int) -> dict[str, float]:
    """Run ours in this process."""
    import jax

    import jaxstyle
    from jaxstyle.nn.preprocessing import Preprocessing

    content, style, network = _read(given)
    network = jaxstyle.Network(
        jax.tree.map(jax.numpy.asarray, network.params),
        network.topology,
        Preprocessing(**vars(network.convention)),
        normalized=network.normalized,
    )
    recipe = jaxstyle.Recipe(
        size=0, steps=evaluations - 1, bounds="none", history_size=20, **CLASSICAL
    )
    start = time.perf_counter()
    problem = jaxstyle.prepare(content, style, recipe=recipe, network=network)
    jax.block_until_ready(problem.targets)
    prepared = time.perf_counter() - start
    seen = [iterate._replace(carry=None, image=None) for iterate in jaxstyle.iterates(problem)]
    compiling = sum(iterate.compile_seconds for iterate in seen)
    running = sum(iterate.run_seconds for iterate in seen)
    evaluated = int(seen[-1].evaluations)
    return {
        "whole": time.perf_counter() - start,
        "compile": prepared + compiling,
        "evaluation": running / evaluated,
        "evaluations": evaluated,
        "loss": float(seen[-1].loss),
    }


def theirs(given: Path, evaluations: int, *, device: str, compiled: bool) -> dict[str, float]:
    """Run PyTorch's in this process."""
    import torch
    from torch_objective import TorchObjective, to_tensor

    content, style, network = _read(given)
    recipe = network.recipe
    torch.set_num_threads(os.cpu_count() or 1)
    start = time.perf_counter()
    objective = TorchObjective(network, content, style, recipe, device=device)
    image = to_tensor(content, device=device).contiguous().requires_grad_()
    called = torch.compile(objective) if compiled else objective
    optimizer = torch.optim.LBFGS(
        [image], max_iter=evaluations, max_eval=evaluations, tolerance_grad=0,
        tolerance_change=-1, history_size=20,
    )  # fmt: skip
    losses: list[float] = []
    begun: list[float] = []

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = called(image)
        loss.backward()
        losses.append(loss.item())
        begun.append(time.perf_counter())
        return loss

    optimizer.step(closure)
    whole = time.perf_counter() - start
    # The first evaluation also allocates and, compiled, compiles.
    evaluation = (begun[-1] - begun[0]) / (len(begun) - 1)
    return {
        "whole": whole,
        "compile": whole - evaluation * len(begun),
        "evaluation": evaluation,
        "evaluations": len(losses),
        "loss": min(losses),
    }


def _sides(size: str) -> tuple[int, int]:
    """Width and height of `256` and of `512x384`."""
    width, _, height = size.partition("x")
    return int(width), int(height or width)


def _give(size: str, name: str, file: str) -> None:
    """Write what both are given, in a process of its own: JAX's memory is not PyTorch's."""
    import jax
    from evaluation import random_vgg19

    import jaxstyle

    width, height = _sides(size)
    content, style = jax.random.uniform(jax.random.key(0), (2, height, width, 3))
    network = random_vgg19() if name == "full" else jaxstyle.load_network(name)
    recipe = resolve_recipe(jaxstyle.Recipe(size=0, **CLASSICAL), network)
    settings = {
        "topology": network.topology,
        "normalized": network.normalized,
        "layers": network.layers,
        "convention": dataclasses.asdict(network.convention),
        "recipe": recipe.as_dict(),
    }
    params = {f"{l}/{kind}": x for l, held in network.params.items() for kind, x in held.items()}
    np.savez(file, content=content, style=style, settings=json.dumps(settings), **params)


def _read(file: Path) -> tuple[np.ndarray, np.ndarray, Any]:
    """Read both images, and a network with a recipe that stands in for ours."""
    with np.load(file) as arrays:
        network = SimpleNamespace(**json.loads(str(arrays["settings"])))
        network.params = {
            layer: {kind: arrays[f"{layer}/{kind}"] for kind in ("kernel", "bias")}
            for layer in network.layers
        }
        network.convention = SimpleNamespace(**network.convention)
        network.recipe = SimpleNamespace(**network.recipe)
        for name in ("content_layers", "style_layers"):
            setattr(network.recipe, name, tuple(getattr(network.recipe, name).items()))
        return arrays["content"], arrays["style"], network


def one(name: str, size: str, evaluations: int, network: str, device: str) -> dict[str, float]:
    """Run one in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "JAX_PLATFORMS": "" if device == "cuda" else device}
        cached = name == "jaxstyle, cached"
        if cached:
            environment |= {
                "JAX_COMPILATION_CACHE_DIR": folder,
                "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            }
        given = str(Path(folder) / "given.npz")
        subprocess.run([sys.executable, __file__, "--given", size, network, given], check=True)
        settings = [name, given, str(evaluations), device]
        for _ in range(2 if cached else 1):
            done = subprocess.run(
                [sys.executable, __file__, "--one", *settings],
                env=environment, capture_output=True, text=True, check=True,
            )  # fmt: skip
        return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def _one(name: str, given: str, evaluations: str, device: str) -> None:
    if name.startswith("jaxstyle"):
        found = ours(Path(given), int(evaluations))
    else:
        compiled = name.endswith("compiled")
        found = theirs(Path(given), int(evaluations), device=device, compiled=compiled)
    # Linux counts kilobytes.
    found["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps(found))


def plot(results: list[dict[str, Any]], file: Path) -> None:
    """Draw seconds an evaluation and peak memory against size."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    import plots

    networks = list(dict.fromkeys(row["network"] for row in results))
    made, axes = plots.figure(2, rows=len(networks))
    for network, seconds, memory in zip(networks, axes[::2], axes[1::2], strict=True):
        mine = [row for row in results if row["network"] == network]
        for name in dict.fromkeys(row["name"] for row in mine):
            rows = [row for row in mine if row["name"] == name]
            sides = [max(_sides(row["size"])) for row in rows]
            seconds.plot(sides, [row["evaluation"] for row in rows], "o-", label=name)
            memory.plot(sides, [row["peak"] / 1e9 for row in rows], "o-", label=name)
        title = "VGG-19" if network == "full" else network
        plots.label(seconds, x="longer side (px)", y="evaluation (s)", title=title, log="xy")
        plots.label(memory, x="longer side (px)", y="peak memory (GB)", title=title, log="x")
        memory.set_ylim(bottom=0)
        for axis in (seconds, memory):
            axis.set_xticks(sides, [str(side) for side in sides])
            axis.set_xticks([], minor=True)
    plots.names(axes[0])
    plots.save(made, file)


def _line(
    network: str, size: str, name: str, found: dict[str, float], rival: dict[str, float] | None
) -> str:
    def ratio(key: str) -> str:
        return f"{found[key] / rival[key]:.2f}" if rival else "-"

    return (
        f"| {network} | {size} | {name} | {found['whole']:.1f} | {ratio('whole')} "
        f"| {found['compile']:.1f} | {found['evaluation']:.3f} | {ratio('evaluation')} "
        f"| {found['peak'] / 1e9:.2f} | {ratio('peak')} | {found['loss']:.4g} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", nargs="+", default=["128", "256", "512"])
    parser.add_argument("--evaluations", type=int, default=200)
    parser.add_argument("--networks", nargs="+", default=["full"], help="full, or weights by name")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=NAMES, default=None)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--results", type=Path)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--given", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.given:
        return _give(*arguments.given)
    if arguments.one:
        return _one(*arguments.one)
    names = arguments.only or NAMES[: 4 if arguments.device == "cuda" else 3]
    print("| network | size | run | whole (s) | to torch | compile (s) | evaluation (s) | to torch "
          "| peak (GB) | to torch | loss |")  # fmt: skip
    print("|---" * 11 + "|")
    results: list[dict[str, Any]] = []
    for network, size in itertools.product(arguments.networks, arguments.sizes):
        runs: dict[str, list[dict[str, float]]] = {name: [] for name in names}
        for _ in range(arguments.repeats):
            for name in names:
                runs[name].append(one(name, size, arguments.evaluations, network, arguments.device))
        medians = {
            name: {key: statistics.median(run[key] for run in of_name) for key in of_name[0]}
            for name, of_name in runs.items()
        }
        for name, found in medians.items():
            results.append({"network": network, "name": name, "size": size, **found})
            print(_line(network, size, name, found, medians.get("torch")), flush=True)
    if arguments.results:
        arguments.results.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    if arguments.plot:
        plot(results, arguments.plot)
    return None


if __name__ == "__main__":
    main()
