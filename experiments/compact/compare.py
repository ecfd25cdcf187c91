"""Stylize with the embedded networks, an untrained one and a teacher, and let VGG judge.

    python experiments/compact/compare.py --photos PHOTOS --teachers WEIGHTS \\
        [--images IMAGES] [--networks compact medium] -o OUT

Content x style pairs, the same recipe for all networks: with `--images` those of `PAIRS`,
from that folder's photographs and paintings; without it those of `FREE_PAIRS`, scikit-image's
free photographs and styles that the project paints, whose sheet may be shown to anyone.

The untrained network has the student's layers with a random start, the teacher is the distilled
VGG-19 that taught blocks 4 and 5; both are normalized as the embedded ones are, so that one recipe
suits all. The judges are the exact first three blocks of VGG-16 and VGG-19, which no optimizer
saw:

    style   = mean over relu1_1, relu2_1, relu3_1 of |G - A|^2 / |A|^2    (Frobenius)
    content = mean((F - P)^2) / var(P) at relu3_3

of the result against the style and the content image. Writes `comparison.json`,
`comparison.md` and `comparison.jpg`.
"""

import argparse
import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from data import center, load_photos, split
from export import as_network, normalize
from generate import blots, cells, painted
from student import init, parse_widths, to_arrays
from teachers import DISTILLED_FILE, EXACT_FILE, read_distilled, read_exact

import jaxstyle
from jaxstyle import images
from jaxstyle.images import sheets
from jaxstyle.images.painted import paint
from jaxstyle.images.samples import load_photograph

UNTRAINED_WIDTHS = "16/32/64/128/128"
VGG16_FILE = "vgg16_caffe_bgr_conv1_1-conv3_3.npz"
STYLE_LAYERS = ("relu1_1", "relu2_1", "relu3_1")
CONTENT_LAYER = "relu3_3"
PAIRS = (
    ("tubingen", "starry_night"),
    ("tubingen", "the_scream"),
    ("tubingen", "shipwreck"),
    ("golden_gate", "starry_night"),
    ("golden_gate", "seated-nude"),
    ("golden_gate", "cells"),
    ("tubingen", "strokes"),
)
FREE_PAIRS = (
    ("cat", "night"),
    ("cat", "cells"),
    ("coffee", "strokes"),
    ("coffee", "blots"),
    ("astronaut", "night"),
    ("astronaut", "strokes"),
)
Array = np.ndarray


def load_images(names: Sequence[str], folder: Path | None, size: int) -> dict[str, Array]:
    """Find images by name, longest side `size`: files, free photographs, generated styles."""

    def load(name: str) -> Array:
        rng = np.random.default_rng(7)
        if name == "cells":
            return as_floats(cells(rng, size))
        if name == "blots":
            return as_floats(blots(rng, size))
        if name == "strokes":
            return as_floats(painted(rng, to_bytes(load_photograph("rocket")), size))
        if name == "night":
            return paint(size, size)
        if folder is not None:
            return images.fit(images.load_image(folder / f"{name}.jpg"), size)
        return images.fit(load_photograph(name), size)

    return {name: load(name) for name in names}


def to_bytes(image: Array) -> Array:
    """Turn [0, 1] into uint8."""
    return np.rint(image * 255).astype(np.uint8)


def as_floats(image: Array) -> Array:
    """Turn uint8 into [0, 1]."""
    return image.astype(np.float32) / 255


def networks(arguments: argparse.Namespace) -> dict[str, jaxstyle.Network]:
    """Return the networks by name, with the same normalization."""
    held_in, _ = split(load_photos(arguments.photos))
    some = [center(p, 192) for p in held_in[:: len(held_in) // 40]]
    untrained = as_network(to_arrays(init(parse_widths(UNTRAINED_WIDTHS), 1)), "untrained")
    teacher, _ = read_distilled(arguments.teachers / DISTILLED_FILE)
    return {
        **{Path(name).stem: jaxstyle.load_network(name) for name in arguments.networks},
        "untrained": normalize(untrained, some)[0],
        "teacher": normalize(teacher, some)[0],
    }


@jax.jit
def _seen(network: jaxstyle.Network, image: jax.Array) -> dict[str, jax.Array]:
    found = jaxstyle.features(network, image, (*STYLE_LAYERS, CONTENT_LAYER))
    return {CONTENT_LAYER: found[CONTENT_LAYER]} | {
        layer: jaxstyle.gram_matrix(found[layer]) for layer in STYLE_LAYERS
    }


def judge(
    network: jaxstyle.Network, image: Array, content: Array, style: Array
) -> dict[str, float]:
    """Measure the two distances that the head of this file defines."""
    x, p, a = (_seen(network, jnp.asarray(i)) for i in (image, content, style))
    ratios = [jnp.sum((x[k] - a[k]) ** 2) / jnp.sum(a[k] ** 2) for k in STYLE_LAYERS]
    spread = jnp.mean((p[CONTENT_LAYER] - p[CONTENT_LAYER].mean((0, 1))) ** 2)
    return {
        "style": float(np.mean(ratios)),
        "content": float(jnp.mean((x[CONTENT_LAYER] - p[CONTENT_LAYER]) ** 2) / spread),
    }


def table(rows: list[Mapping[str, object]], names: list[str]) -> str:
    """Write the measurements as a Markdown table, VGG-19 / VGG-16 in each cell."""
    head = [f"{what}, {n}" for what in ("style", "content") for n in names]
    lines = ["| pair | " + " | ".join(head) + " |", "| --- |" + " ---: |" * len(head)]
    for row in rows:
        cells_ = [
            f"{row[n]['vgg19'][what]:.3f} / {row[n]['vgg16'][what]:.3f}"  # type: ignore[index]
            for what in ("style", "content")
            for n in names
        ]
        lines.append(f"| {row['content']} × {row['style']} | " + " | ".join(cells_) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Read the arguments, stylize, measure, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--images", type=Path, help="folder of the content and style images of PAIRS")
    add("--photos", type=Path, required=True, help="the photographs of the training")
    add("--teachers", type=Path, required=True, help="folder of the teachers' npz files")
    add("--networks", nargs="+", default=["compact", "medium"], help="names or files")
    add("-o", "--output", type=Path, required=True, help="folder to write to")
    add("--size", type=int, default=256, help="longest side (%(default)s)")
    add("--steps", type=int, help="instead of the recipe's")
    add("--init", default="content", help="content or noise (%(default)s)")
    add("--style-layers", help="layer:weight,… instead of the recipe's")
    add("--style-weight", type=float, help="instead of the recipe's")
    add("--tv-weight", type=float, help="instead of the recipe's")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)

    settings = {"size": arguments.size, "init": arguments.init} | {
        name: value
        for name in ("steps", "style_layers", "style_weight", "tv_weight")
        if (value := getattr(arguments, name)) is not None
    }
    recipe = dataclasses.replace(jaxstyle.presets["default"], **settings)
    pairs = FREE_PAIRS if arguments.images is None else PAIRS
    names = list(dict.fromkeys(name for pair in pairs for name in pair))
    loaded = load_images(names, arguments.images, arguments.size)
    contestants = networks(arguments)
    judges = {
        "vgg19": read_exact(arguments.teachers / EXACT_FILE),
        "vgg16": read_exact(arguments.teachers / VGG16_FILE, topology="vgg16"),
    }
    rows: list[dict[str, object]] = []
    sheet: list[Array] = []
    labels: list[str] = []
    for content_name, style_name in pairs:
        content, style = loaded[content_name], loaded[style_name]
        row: dict[str, object] = {"content": content_name, "style": style_name}
        sheet += [content, style]
        labels += [content_name, style_name]
        for name, network in contestants.items():
            result = jaxstyle.stylize(content, style, recipe=recipe, network=network)
            row[name] = {k: judge(j, result.image, content, style) for k, j in judges.items()}
            sheet.append(result.image)
            labels.append(name)
            print(content_name, style_name, name, row[name], flush=True)
        rows.append(row)
    images.save_image(
        arguments.output / "comparison.jpg",
        sheets.contact_sheet(sheet, columns=2 + len(contestants), labels=labels),
    )
    report = {"recipe": recipe.as_dict(), "pairs": rows}
    (arguments.output / "comparison.json").write_text(json.dumps(report, indent=1) + "\n")
    (arguments.output / "comparison.md").write_text(table(rows, list(contestants)))


if __name__ == "__main__":
    main()
