"""Compare recipes on several pairs and sizes by a network that no optimizer used.

    python experiments/quality/protocol.py --judge WEIGHTS --images IMAGES -o OUT \
        [--sizes 256 512 1024] [--recipes default old ...] [--weights NAME_OR_FILE ...]

WEIGHTS is the folder of the exact VGG-16 blocks (`judge.FILE`). Each result is a PNG in OUT; a
run that is repeated computes only what is missing. Writes `results.json`, `table.md` (a row a
recipe, network and size; `judge.Measures` defines the columns) and, for each size, recipe and
network, a sheet with all results at full size.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import judge
import numpy as np
from pairs import PAIRS, load
from recipes import RECIPES

import jaxstyle
from jaxstyle import images
from jaxstyle.images.sheets import contact_sheet

MEASURES = judge.Measures._fields


def result(
    path: Path, pair: tuple[str, str], recipe: jaxstyle.Recipe, network: jaxstyle.Network,
    folder: Path | None,
) -> tuple[np.ndarray, float | None]:  # fmt: skip
    """Return the image of a pair, from its file if it is there, and the seconds it took."""
    if path.exists():
        return images.load_image(path), None
    content, style = (load(name, folder) for name in pair)
    begun = time.monotonic()
    found = jaxstyle.stylize(content, style, recipe=recipe, network=network)
    images.save_image(path, found.image)
    return images.load_image(path), time.monotonic() - begun


def table(rows: list[dict[str, Any]]) -> str:
    """Return the means over the pairs as Markdown, a row a recipe, network and size."""
    heads = ("recipe", "network", "size", "pairs", *MEASURES)
    lines = ["| " + " | ".join(heads) + " |", "| --- | --- |" + " ---: |" * (len(heads) - 2)]
    groups: dict[tuple[str, str, int], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["recipe"], row["network"], row["size"]), []).append(row)
    for (recipe, network, size), members in sorted(groups.items(), key=lambda g: (g[0][2], g[0])):
        means = [np.mean([row[name] for row in members]) for name in MEASURES]
        cells = [recipe, network, size, len(members), *(f"{mean:.3f}" for mean in means)]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run what is missing, measure, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--judge", type=Path, required=True, help="folder of the exact VGG-16 blocks")
    add("--images", type=Path, help="folder of the photographs and paintings")
    add("--sizes", type=int, nargs="+", default=[256, 512, 1024], metavar="N")
    add("--recipes", nargs="+", default=["default", "before"], choices=RECIPES, metavar="NAME")
    add("--weights", nargs="+", default=["compact"], metavar="NAME|FILE")
    add("--pairs", type=int, default=len(PAIRS), help="only the first K pairs (%(default)s)")
    add("-o", "--output", type=Path, required=True, help="folder to write to")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    referee = judge.read_judge(arguments.judge)
    known = arguments.output / "results.json"
    rows: list[dict[str, Any]] = json.loads(known.read_text()) if known.exists() else []
    done = {(r["recipe"], r["network"], r["size"], r["photograph"], r["painting"]) for r in rows}
    for size in arguments.sizes:
        for weights in arguments.weights:
            network = jaxstyle.load_network(weights)
            for name in arguments.recipes:
                recipe = RECIPES[name].updated({"size": size, "upscale": True})
                sheet, key = [], (name, Path(weights).stem, size)
                for content, style in PAIRS[: arguments.pairs]:
                    path = arguments.output / f"{'-'.join(map(str, key))}-{content}-{style}.png"
                    image, seconds = result(
                        path, (content, style), recipe, network, arguments.images
                    )
                    sheet.append(image)
                    if (*key, content, style) in done:
                        continue
                    originals = (load(n, arguments.images) for n in (content, style))
                    found = judge.measure(referee, image, *originals)
                    row = dict(zip(("recipe", "network", "size"), key, strict=True))
                    row |= {"photograph": content, "painting": style, "seconds": seconds}
                    rows.append(row | found._asdict())
                    known.write_text(json.dumps(rows, indent=1) + "\n")
                    print(row, found, flush=True)
                images.save_image(
                    arguments.output / f"sheet-{'-'.join(map(str, key))}.jpg",
                    contact_sheet(sheet, columns=3),
                )
    (arguments.output / "table.md").write_text(table(rows))
    print(table(rows))


if __name__ == "__main__":
    main()
