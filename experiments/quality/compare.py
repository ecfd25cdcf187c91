"""Table and sheet of the methods that `protocol.py` was run with.

    python experiments/quality/compare.py OUT --images IMAGES --size 512 --weights medium
        --recipes default covariance ... [--rows K] --sheet SHEET.jpg

OUT is the folder that `protocol.py` wrote. Prints a Markdown table, means over the pairs that every
method has: the protocol's measures, then the numbers of `jaxstyle evaluate --metrics`, which are
printed for the photographs and the paintings themselves too. Writes a sheet with the results of the
first K pairs.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import judge
import numpy as np
from pairs import PAIRS, load
from PIL import Image as Pillow

import jaxstyle
from jaxstyle import images
from jaxstyle.images.sheets import contact_sheet

Pair = tuple[str, str]
Image = np.ndarray
MEASURES = ("patch", "worst", "content", "grain_chroma", "fringe", "unpainted")
SHOWN = 380
"""Longer side of the images on the sheet, in pixels."""
METRICS = ("content_fidelity", "global_effects", "local_patterns", "cfsd", "ssim")


def rows_of(folder: Path, size: int, network: str) -> dict[tuple[str, Pair], dict[str, Any]]:
    """Return the protocol's results by method and pair."""
    rows = json.loads((folder / "results.json").read_text())
    return {
        (row["recipe"], (row["photograph"], row["painting"])): row
        for row in rows
        if row["size"] == size and row["network"] == network
    }


def means(values: Sequence[Mapping[str, float]], names: Sequence[str]) -> list[str]:
    """Return the means as text."""
    return [f"{np.mean([value[name] for value in values]):.3f}" for name in names]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("output", type=Path)
    parser.add_argument("--images", type=Path, help="folder of the photographs and paintings")
    parser.add_argument(
        "--judge", type=Path, required=True, help="folder of the exact VGG-16 blocks"
    )
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--weights", default="medium")
    parser.add_argument("--recipes", nargs="+", required=True, metavar="NAME")
    parser.add_argument("--rows", type=int, default=3, help="pairs on the sheet (%(default)s)")
    parser.add_argument("--sheet", type=Path, required=True)
    arguments = parser.parse_args()
    network = jaxstyle.load_network(arguments.weights)
    referee = judge.read_judge(arguments.judge)
    rows = rows_of(arguments.output, arguments.size, arguments.weights)
    pairs = [pair for pair in PAIRS if all((name, pair) in rows for name in arguments.recipes)]
    recipe = jaxstyle.Recipe(size=arguments.size)

    def metrics(image: Image, pair: Pair) -> dict[str, float]:
        content, style = (load(name, arguments.images) for name in pair)
        found = jaxstyle.measure(image, content, style, network=network, recipe=recipe)
        return found._asdict()

    def result(name: str, pair: Pair) -> Image:
        words = (name, arguments.weights, arguments.size, *pair)
        return images.load_image(arguments.output / f"{'-'.join(map(str, words))}.png")

    def original(pair: Pair, which: int) -> Image:
        return images.fit(load(pair[which], arguments.images), arguments.size)

    print(f"Means over {len(pairs)} pairs: " + ", ".join(" x ".join(pair) for pair in pairs))
    columns = ("method", *MEASURES, *METRICS)
    print("| " + " | ".join(columns) + " |\n| --- |" + " ---: |" * (len(columns) - 1))
    for which, name in enumerate(("photograph", "painting")):
        found = []
        for pair in pairs:
            content, style = (load(n, arguments.images) for n in pair)
            image = original(pair, which)
            measured = judge.measure(referee, image, content, style)._asdict() if not which else {}
            found.append(measured | metrics(image, pair))
        cells = means(found, MEASURES) if not which else ["–"] * len(MEASURES)
        print("| " + " | ".join([name, *cells, *means(found, METRICS)]) + " |", flush=True)
    for name in arguments.recipes:
        found = [rows[name, pair] | metrics(result(name, pair), pair) for pair in pairs]
        print("| " + " | ".join([name, *means(found, (*MEASURES, *METRICS))]) + " |", flush=True)
    shown = pairs[: arguments.rows]
    sheet = contact_sheet(
        [images.fit(result(name, pair), SHOWN) for pair in shown for name in arguments.recipes],
        columns=-(-len(arguments.recipes) // 2),
        labels=[name for _ in shown for name in arguments.recipes],
    )
    data = (np.clip(sheet, 0, 1) * 255).round().astype(np.uint8)
    Pillow.fromarray(data).save(arguments.sheet, quality=82, optimize=True)


if __name__ == "__main__":
    main()
