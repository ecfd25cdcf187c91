"""A process with eight devices, whatever the machine has: runs shared out over them and alone.

`python sharded.py FOLDER` writes what `test_sharding.py` looks at. One process for all, as
JAX must be told the number of devices before anything else.
"""

import dataclasses
import json
import os
import re
import sys
from pathlib import Path

os.environ["XLA_FLAGS"] = " ".join(
    [os.environ.get("XLA_FLAGS", ""), "--xla_force_host_platform_device_count=8"]
)

import jax
import numpy as np
from helpers import STYLE_LOSS
from helpers import make_image as _make_image
from helpers import make_network as _make_network

from jaxstyle import Masks, Recipe, finish, iterates, prepare
from jaxstyle.cli import main
from jaxstyle.engine import compilation
from jaxstyle.engine.iterate import run_state
from jaxstyle.engine.problem import shard_batch, stack
from jaxstyle.engine.scales import default_chunk_size
from jaxstyle.provenance.checkpoint import load_state, read_checkpoint, save_checkpoint
from jaxstyle.weights import save_network

COLLECTIVE = re.compile(
    r"= (.*?) (all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter)(-start)?\("
)
FOLDER = Path(sys.argv[1])
SMALL = Recipe(
    scales=1,
    steps=4,
    history_size=3,
    tv_weight=1e-3,
    content_layers="relu2_1",
    style_layers="relu1_1,relu2_1",
    style_weight=100,
)
STYLE = _make_image(27, 18, seed=2)
network = _make_network(blocks=3)


def specs(tree):
    named = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): [list(x.shape), str(x.sharding.spec)] for path, x in named}


def collectives(problem):
    """Kinds and shapes of what the compiled chunk exchanges: the program that `iterates` runs."""
    text = (
        compilation.lower(problem, chunk_size=default_chunk_size(problem.start)).compile().as_text()
    )
    found = COLLECTIVE.findall(text)
    return [[kind, re.sub(r"\{.*?\}|/\*.*?\*/", "", shapes)] for shapes, kind, _ in found]


def gradient(problem):
    point = next(iterates(problem)).carry.state.point
    height = problem.size[0]
    assert not np.asarray(point.grad)[height:].any(), "nothing pulls at the rows that were added"
    return np.asarray(point.grad)[:height]


def pair(name, recipe, height, network=network, devices=8, masks=None):
    """The same image on one device and on several; its first gradient is kept."""
    content = _make_image(height, 18, seed=1)
    given = {"recipe": recipe, "network": network, "masks": masks}
    alone = prepare(content, STYLE, **given)
    shared = prepare(content, STYLE, **given, devices=devices)
    both = [gradient(problem) for problem in (alone, shared)]
    np.savez(FOLDER / f"{name}.npz", alone=both[0], shared=both[1])
    return alone, shared


def keep(name, results):
    np.savez(
        FOLDER / f"{name}.npz",
        images=[result.image for result in results],
        losses=[result.history.loss for result in results],
        last=[result.loss for result in results],
    )


def rows():
    # 45 rows do not divide by 8, nor by the cells of relu2_1.
    alone, shared = pair("odd", SMALL, 45)
    keep("odd-alone", finish(alone, list(iterates(alone))))
    seen = list(iterates(shared))
    keep("odd-shared", finish(shared, seen))
    facts = {
        "state": specs(seen[-1].carry.state),
        "targets": specs(shared.targets),
        "collectives": collectives(shared),
    }
    # A checkpoint of eight devices goes on with one and with eight.
    for iterate in iterates(shared, chunk_size=2):
        seen = [*seen, iterate] if iterate.step else [iterate]
        if iterate.step == 2:
            break
    image = {"path": "x", "sha256": "0" * 64, "size": [18, 45]}
    inputs = {"content": image, "styles": [image], "init": None}
    path = FOLDER / "run.checkpoint"
    save_checkpoint(path, run_state(seen), problem=shared, weights="x", inputs=inputs)
    for name, problem in (("one", alone), ("eight", shared)):
        state = load_state(read_checkpoint(path), problem)
        keep(f"resumed-{name}", finish(problem, list(iterates(problem, state=state))))
    return facts


def other_objectives():
    short = dataclasses.replace(SMALL, steps=1, optimizer="adam", style_loss=STYLE_LOSS)
    deep = dataclasses.replace(short, style_layers="relu3_1")
    pair("deep", deep, 45, devices=3)
    pair("tiles", dataclasses.replace(short, tile=8), 45, devices=3)
    reflect = _make_network(blocks=2, padding="reflect")
    peer = dataclasses.replace(
        short, variation="nine-point", content_reduction="sum", gram_normalization="positions"
    )  # fmt: skip
    pair("reflect", peer, 21, network=reflect, devices=3)
    left, top = np.zeros((45, 18), np.float32), np.zeros((27, 18), np.float32)
    left[:, :9] = top[:9] = 1
    controls = dataclasses.replace(
        short,
        style_layers="relu2_1",
        style_loss=SMALL.style_loss,
        preserve_color="luminance",
        average=0.5,
    )
    problems = pair("controls", controls, 45, devices=3, masks=Masks(left, ((left, top),)))
    keep("controls-runs", [finish(problem, list(iterates(problem)))[0] for problem in problems])


def elements():
    recipe = dataclasses.replace(SMALL, init="noise")
    problems = [
        prepare(
            _make_image(20, 18, seed=k), STYLE, network=network,
            recipe=dataclasses.replace(recipe, seed=k, style_weight=50.0 * (k + 1)),
        )
        for k in range(4)
    ]  # fmt: skip
    shared = shard_batch(stack(problems), jax.devices()[:4])
    seen = list(iterates(shared))
    keep("lanes-shared", finish(shared, seen))
    # What each device runs: its own batch element, alone in a batch.
    alone = [stack([problem]) for problem in problems]
    keep("lanes-alone", [finish(problem, list(iterates(problem)))[0] for problem in alone])
    return {"state": specs(seen[-1].carry.state), "collectives": collectives(shared)}


def command(*arguments):
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as ended:
        return ended.code or 0


def commands():
    from PIL import Image

    for name, shape in (("content", (45, 18)), ("style", (27, 18))):
        pixels = _make_image(*shape, seed=1) * 255
        Image.fromarray(pixels.astype(np.uint8)).save(FOLDER / f"{name}.png")
    save_network(network.replace(source="random"), FOLDER / "narrow.safetensors")
    grid = FOLDER / "grid.toml"
    grid.write_text(
        '[base]\ncontent = "content.png"\nstyle = "style.png"\nsteps = 2\n'
        'weights = "narrow.safetensors"\ncontent_layers = "relu1_2"\nstyle_layers = "relu1_1"\n'
        f'style_loss = "{STYLE_LOSS}"\n'
        "[grid]\nstyle_weight = [1.0, 10.0, 100.0]\n"
    )
    settings = (
        "--weights", FOLDER / "narrow.safetensors", "--steps", 2, "--quiet", "--scales", 1,
        "--content-layers", "relu1_2", "--style-layers", "relu1_1", "--style-loss", STYLE_LOSS,
    )  # fmt: skip
    images = FOLDER / "content.png", FOLDER / "style.png"
    done = {
        "grid": command(
            "grid", grid, "-o", FOLDER / "grid", "--devices", 2, "--lanes", 1, "--quiet"
        ),
    }
    for name, flags in {
        "one": (), "rows": ("--devices", 2),
        "uneven": ("--batch", 3, "--devices", 2), "many": ("--devices", 9),
        "scales": ("--devices", 2, "--scales", 2),
        "growing": (
            "--devices", 2, "--scales", 2, "--batch", 2, "--size", 96, "--upscale",
            "--style-scale", 2,
        ),
    }.items():  # fmt: skip
        output = FOLDER / f"command-{name}.png"
        done[name] = command("stylize", *images, "-o", output, *settings, *flags)
    return done


if __name__ == "__main__":
    facts = {"rows": rows(), "lanes": elements()}
    other_objectives()
    facts["commands"] = commands()
    (FOLDER / "facts.json").write_text(json.dumps(facts))
