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

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"

import jax
import numpy as np
from conftest import _make_network, _make_picture

from jaxstyle import Recipe
from jaxstyle import run as runs
from jaxstyle.checkpoint import load_state, read_checkpoint, save_checkpoint
from jaxstyle.cli import main
from jaxstyle.prepare import prepare, spread, stack
from jaxstyle.weights import save_network

COLLECTIVE = re.compile(
    r"= (.*?) (all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter)(-start)?\("
)
FOLDER = Path(sys.argv[1])
SMALL = Recipe(
    steps=4,
    history_size=3,
    tv_weight=1e-3,
    content_layers="relu2_2",
    style_layers="relu1_1,relu3_1",
    style_weight=100,
)
STYLE = _make_picture(27, 18, seed=2)
network = _make_network(blocks=3)


def specs(tree):
    named = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): [list(x.shape), str(x.sharding.spec)] for path, x in named}


def collectives(job):
    """Kinds and shapes of what the compiled step exchanges."""
    text = runs.lowered(job).compile().as_text()
    return [
        [kind, re.sub(r"\{.*?\}|/\*.*?\*/", "", of)] for of, kind, _ in COLLECTIVE.findall(text)
    ]


def gradient(job):
    point = next(runs.iterates(job)).carry.state.point
    height = job.size[0]
    assert not np.asarray(point.grad)[height:].any(), "nothing pulls at the rows that were added"
    return np.asarray(point.grad)[:height]


def pair(name, recipe, height, network=network, devices=8):
    """The same picture on one device and on several; its first gradient is kept."""
    content = _make_picture(height, 18, seed=1)
    alone = prepare(content, STYLE, recipe=recipe, network=network)
    shared = prepare(content, STYLE, recipe=recipe, network=network, devices=devices)
    both = [gradient(job) for job in (alone, shared)]
    np.savez(FOLDER / f"{name}.npz", alone=both[0], shared=both[1])
    return alone, shared


def whole_run(name, alone, shared):
    for key, job in (("alone", alone), ("shared", shared)):
        seen = list(runs.iterates(job, every=1))
        results = runs.finish(job, seen)
        np.savez(
            FOLDER / f"{name}-{key}.npz",
            images=[result.image for result in results],
            losses=[result.history.loss for result in results],
            last=[result.loss for result in results],
        )
    return specs(seen[-1].carry.state)


def rows():
    # 45 rows do not divide by 8, nor by the cells of relu3_1.
    alone, shared = pair("odd", SMALL, 45)
    state = whole_run("odd", alone, shared)
    facts = {"state": state, "targets": specs(shared.targets), "collectives": collectives(shared)}
    # A checkpoint of eight devices goes on with one, and with three.
    seen = []
    for iterate in runs.iterates(shared, every=1):
        seen.append(iterate)
        if iterate.step == 2:
            break
    picture = {"path": "x", "sha256": "0" * 64, "size": [18, 45]}
    inputs = {"content": picture, "styles": [picture], "init": None}
    path = FOLDER / "run.checkpoint"
    save_checkpoint(path, runs.run_state(seen), job=shared, weights="x", inputs=inputs)
    content = _make_picture(45, 18, seed=1)
    three = prepare(content, STYLE, recipe=SMALL, network=network, devices=3)
    for name, job in (("one", alone), ("three", three)):
        state = load_state(read_checkpoint(path), job)
        last = runs.finish(job, list(runs.iterates(job, every=1, state=state)))[0]
        np.savez(FOLDER / f"resumed-{name}.npz", losses=last.history.loss, image=last.image)
    return facts


def other_objectives():
    short = dataclasses.replace(SMALL, steps=1, optimizer="adam")
    pair("tiles", dataclasses.replace(short, tile=8), 45, devices=3)
    reflect = _make_network(blocks=2, padding="reflect")
    peer = dataclasses.replace(
        short, style_layers="relu1_1,relu2_1", variation="nine-point", content_reduction="sum",
        gram_normalization="positions",
    )  # fmt: skip
    pair("reflect", peer, 21, network=reflect, devices=3)
    for variation in ("squared", "mean-squared", "power"):
        recipe = dataclasses.replace(
            short, variation=variation, content_layers=(), style_layers="relu1_1"
        )
        pair(variation, recipe, 13, devices=3)


def lanes():
    recipe = dataclasses.replace(SMALL, init="noise")
    jobs = [
        prepare(
            _make_picture(20, 18, seed=k), STYLE, network=network,
            recipe=dataclasses.replace(recipe, seed=k, style_weight=50.0 * (k + 1)),
        )
        for k in range(4)
    ]  # fmt: skip
    alone = stack(jobs)
    shared = spread(alone, jax.devices()[:4])
    state = whole_run("lanes", alone, shared)
    # What each device runs: its own lane, alone in a batch.
    one = [runs.finish(job, list(runs.iterates(job, every=1)))[0] for job in map(single, jobs)]
    np.savez(FOLDER / "lanes-one.npz", images=[r.image for r in one])
    return {"state": state, "collectives": collectives(shared)}


def single(job):
    return stack([job])


def command(*arguments):
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as ended:
        return ended.code or 0


def commands():
    from PIL import Image

    for name, shape in (("content", (45, 18)), ("style", (27, 18))):
        pixels = _make_picture(*shape, seed=1) * 255
        Image.fromarray(pixels.astype(np.uint8)).save(FOLDER / f"{name}.png")
    save_network(network.replace(source="random"), FOLDER / "narrow.safetensors")
    grid = FOLDER / "grid.toml"
    grid.write_text(
        '[base]\ncontent = "content.png"\nstyle = "style.png"\nsteps = 2\n'
        'weights = "narrow.safetensors"\ncontent_layers = "relu2_2"\nstyle_layers = "relu1_1"\n'
        "[grid]\nstyle_weight = [1.0, 10.0, 100.0]\n"
    )
    settings = (
        "--weights", FOLDER / "narrow.safetensors", "--steps", 2, "--quiet",
        "--content-layers", "relu2_2", "--style-layers", "relu1_1",
    )  # fmt: skip
    pictures = FOLDER / "content.png", FOLDER / "style.png"
    done = {
        "grid": command("grid", grid, "-o", FOLDER / "grid", "--devices", 2, "--quiet"),
        "grid-alone": command("grid", grid, "-o", FOLDER / "grid-alone", "--lanes", 1, "--quiet"),
    }
    for name, flags in {
        "one": (), "rows": ("--devices", 2), "lanes": ("--batch", 2, "--devices", "all"),
        "uneven": ("--batch", 3, "--devices", 2), "many": ("--devices", 9),
    }.items():  # fmt: skip
        output = FOLDER / f"command-{name}.png"
        done[name] = command("stylize", *pictures, "-o", output, *settings, *flags)
    return done


if __name__ == "__main__":
    facts = {"rows": rows(), "lanes": lanes()}
    other_objectives()
    facts["commands"] = commands()
    (FOLDER / "facts.json").write_text(json.dumps(facts))
