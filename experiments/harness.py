"""What the experiments share: images, scales, running a grid, and writing down what was found.

An experiment is a folder with an `experiment.py` (its `EXPERIMENT`) and the grid files
it runs. `run.py` brings everything to a scale (`small` on two CPU cores, `full` on a GPU,
`tiny` in the tests), runs the grids with `jaxstyle grid`, has the numbers computed and writes
`results.json`, `sheet.jpg`, `plot.svg` and `README.md` into the folder.
"""

import csv
import dataclasses
import json
import os
import sys
import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import jaxstyle
from jaxstyle.cli.app import app
from jaxstyle.config.recipe import Recipe
from jaxstyle.files import write_atomically
from jaxstyle.images import load_image
from jaxstyle.images.sheets import contact_sheet
from jaxstyle.provenance.report import environment_report, to_json

HERE = Path(__file__).parent
LARGEST_SHEET = 400_000
"""Bytes: what a page that shows ten of them can bear."""

HOLDS, PARTLY, CONTRADICTED = "holds", "holds in part", "does not hold here"

Settings = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Scale:
    """How large an experiment is run: settings laid over those of its grid files."""

    name: str
    base: Settings
    elements: int | None = None
    """Cells at a time; chosen by the memory if not given."""


SCALES = {
    "small": Scale("small", {"weights": "compact"}),
    "full": Scale("full", {"weights": "vgg19", "size": 512}),
    # Two blocks suffice to see whether everything is computed.
    "tiny": Scale(
        "tiny",
        {
            "weights": "compact",
            "size": 32,
            "steps": 5,
            "content_layers": "relu2_2",
            "style_layers": "relu1_1,relu2_1",
        },
        # So that experiments share their programs.
        elements=2,
    ),
}


@dataclasses.dataclass(frozen=True)
class Cell:
    """A finished cell of a grid."""

    report: dict[str, Any]
    image_path: Path
    settings: dict[str, str]
    """Its row of results.csv."""

    @property
    def recipe(self) -> dict[str, Any]:
        """Every resolved setting."""
        return self.report["recipe"]

    @property
    def loss(self) -> float:
        """Of the saved image, clipped and rounded; infinite if there is none."""
        return _number(self.report["loss"], np.inf)

    @property
    def lowest(self) -> float:
        """Lowest loss that the optimizer saw; infinite if none is finite.

        Without bounds it may lie well below that of the saved image, which is clipped to [0, 1].
        """
        losses = self.history("loss")
        return float(np.min(losses[np.isfinite(losses)], initial=np.inf))

    @property
    def seconds(self) -> float:
        """Its share of its batch's running time."""
        return float(self.settings["seconds"])

    @cached_property
    def image(self) -> np.ndarray:
        """The returned image, RGB in [0, 1]."""
        return load_image(self.image_path)

    def history(self, name: str) -> np.ndarray:
        """`step`, `loss`, `content`, `style` or `tv` after each step; NaN where diverged."""
        return np.array([_number(v, np.nan) for v in self.report["history"][name]])


@dataclasses.dataclass
class Found:
    """What an experiment's measurement comes to."""

    verdict: str
    number: str
    """The claim's number in a few words, for the table of all experiments."""
    numbers: dict[str, Any]
    """Everything that was measured, by name."""
    said: list[str]
    """Sentences with the numbers in them."""
    table: list[dict[str, Any]] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Run:
    """What a measurement may look at."""

    scale: str
    out: Path
    content_path: Path
    style_path: Path
    weights: str
    cells: dict[str, list[Cell]]
    """Finished cells in the grid's order, by the name of the grid file."""

    @cached_property
    def network(self) -> jaxstyle.Network:
        """The weights that the cells were run with."""
        return jaxstyle.load_network(self.weights)

    @cached_property
    def content(self) -> np.ndarray:
        """The content image in its own size."""
        return load_image(self.content_path)

    @cached_property
    def style(self) -> np.ndarray:
        """The style image in its own size."""
        return load_image(self.style_path)

    def problem(self, cell: Cell, *, start: np.ndarray | str | None = None) -> jaxstyle.Problem:
        """Prepare the objective and the start of a cell."""
        recipe = Recipe.from_dict(cell.recipe)
        return jaxstyle.prepare(
            self.content, self.style, recipe=recipe, network=self.network, start=start
        )


@dataclasses.dataclass(frozen=True)
class Experiment:
    """One claim of the article and how it is put to the test."""

    name: str
    title: str
    claim: str
    method: str
    measure: Callable[[Run], Found]
    draw: Callable[[Run, Found, Any], None]
    """Draws on a matplotlib figure (`plots.figure`)."""
    sheet: Callable[[Run], tuple[Sequence[np.ndarray], Sequence[str], int]]
    """Images, labels and columns of the contact sheet."""
    panels: tuple[int, int] = (1, 2)
    """Rows and columns of the plot."""
    full: Settings = dataclasses.field(default_factory=dict)
    """Settings of the article, for `--full`."""
    tiny: Settings = dataclasses.field(default_factory=dict)
    exact: Settings | None = None
    """Settings for a network of three blocks, where the claim can be tested on one."""

    @property
    def folder(self) -> Path:
        return HERE / self.name


def inputs(out: Path) -> tuple[Path, Path]:
    """Write the content photograph and the style painting, unless they are there."""
    sys.path.insert(0, str(HERE / "demo"))
    from paint import paint
    from skimage import data

    out.mkdir(parents=True, exist_ok=True)
    content, style = out / "content.png", out / "style.png"
    if not content.exists():
        # Stéfan van der Walt's cat, CC0; square, so that sizes are plain.
        Image.fromarray(data.chelsea()[:, 75:375]).save(content)
    if not style.exists():
        painted = paint(512, 512, seed=0)
        Image.fromarray((painted * 255).round().astype(np.uint8)).save(style)
    return content, style


def run(experiment: Experiment, scale: Scale, out: Path, *, exact: Path | None = None) -> Run:
    """Run an experiment's grids, or what is left of them, and give its cells."""
    content, style = inputs(out)
    folder = out / scale.name / experiment.name / (exact.stem if exact else "")
    folder.mkdir(parents=True, exist_ok=True)
    weights = str(exact.resolve()) if exact else scale.base["weights"]
    cells = {}
    for path in sorted(experiment.folder.glob("*.toml")):
        base, grid = brought_to(experiment, scale, path, exact=exact is not None)
        base |= {
            "weights": weights,
            "content": str(content.resolve()),
            "style": str(style.resolve()),
        }
        written = folder / path.name
        write_atomically(written, as_toml({"base": base, "grid": grid}).encode())
        cells[path.stem] = run_grid(written, folder / path.stem, scale.elements)
    return Run(scale.name, folder, content, style, weights, cells)


def brought_to(
    experiment: Experiment, scale: Scale, path: Path, *, exact: bool = False
) -> tuple[Settings, Settings]:
    """Read a grid file of an experiment and lay over it the settings of a scale and its own."""
    own = {"full": experiment.full, "tiny": experiment.tiny}.get(scale.name, {})
    tables = tomllib.loads(path.read_text(encoding="utf-8"))
    base, grid = tables.get("base", {}), tables.get("grid", {})
    for over in (scale.base, own, (experiment.exact or {}) if exact else {}):
        base, grid = scaled({"base": base, "grid": grid}, over)
    return base, grid


def scaled(tables: Mapping[str, Settings], over: Settings) -> tuple[Settings, Settings]:
    """Lay settings over a grid file's: one value over the base, a list over the axis of that name.

    What is an axis of the file stays one, and a list for which the file has no axis is left out.
    """
    base, grid = dict(tables.get("base", {})), dict(tables.get("grid", {}))
    for key, value in over.items():
        table, other = (grid, base) if isinstance(value, list) else (base, grid)
        if key not in other and (key in grid or table is base):
            table[key] = value
    return base, grid


def as_toml(tables: Mapping[str, Settings]) -> str:
    """Write tables of plain values; JSON's texts, numbers and lists are TOML's too."""
    lines = []
    for name, table in tables.items():
        lines.append(f"[{name}]")
        lines += [f"{key} = {json.dumps(value)}" for key, value in table.items()]
    return "\n".join(lines) + "\n"


def run_grid(file: Path, folder: Path, elements: int | None = None) -> list[Cell]:
    """Run `jaxstyle grid`, which goes on where it stopped, and read what it wrote."""
    arguments = ["grid", str(file), "-o", str(folder)]
    if elements:
        arguments += ["--lanes", str(elements)]
    print("jaxstyle", *arguments, file=sys.stderr, flush=True)
    code = app.main(args=arguments, prog_name="jaxstyle", standalone_mode=False)
    if code:
        raise KeyboardInterrupt
    with open(folder / "results.csv", encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    return [
        Cell(
            json.loads((folder / row["image"]).with_suffix(".json").read_bytes()),
            folder / row["image"],
            row,
        )
        for row in rows
    ]


def write_results(
    experiment: Experiment, found: Found, run: Run, seconds: float, folder: Path
) -> dict[str, Any]:
    """Write results.json, keeping second opinions that were there before."""
    path = folder / "results.json"
    results = {
        "experiment": experiment.name,
        "claim": experiment.claim,
        **describe(found, run, seconds),
        "second_opinions": {},
    }
    if path.exists():
        results["second_opinions"] = json.loads(path.read_bytes()).get("second_opinions", {})
    write_atomically(path, to_json(results).encode())
    return results


def add_opinion(found: Found, run: Run, seconds: float, folder: Path, name: str) -> dict[str, Any]:
    """Put what another network says beside the results."""
    path = folder / "results.json"
    results = json.loads(path.read_bytes())
    results["second_opinions"][name] = describe(found, run, seconds)
    write_atomically(path, to_json(results).encode())
    return results


def describe(found: Found, run: Run, seconds: float) -> dict[str, Any]:
    """What was found, with what, on what."""
    cells = [cell for cells in run.cells.values() for cell in cells]
    return {
        "verdict": found.verdict,
        "number": found.number,
        "found": found.said,
        "numbers": found.numbers,
        "table": found.table,
        "scale": run.scale,
        "weights": {"name": run.network.name, "sha256": run.network.digest},
        "sizes": sorted({cell.report["images"]["output"]["size"][0] for cell in cells}),
        "cells": len(cells),
        "evaluations": sum(cell.report["evaluations"] for cell in cells),
        # Of all cells, whenever they were run; `seconds` is this run alone.
        "cell_seconds": sum(cell.seconds for cell in cells),
        "seconds": seconds,
        "machine": f"{os.cpu_count()} CPU cores",
        "environment": environment_report(),
        "date": time.strftime("%Y-%m-%d"),
    }


def write_sheet(path: Path, images: Sequence[np.ndarray], labels: Sequence[str], columns: int):
    """Write a contact sheet as JPEG of at most 400 kB."""
    # Small images are shown large enough for their strokes, and their labels, to be seen.
    times = max(1, 192 // max(img.shape[1] for img in images))
    enlarged = [img.repeat(times, 0).repeat(times, 1) for img in images]
    sheet = contact_sheet(enlarged, columns=columns, labels=labels)
    image = Image.fromarray((np.clip(sheet, 0, 1) * 255).round().astype(np.uint8))
    for quality in (90, 80, 70, 55, 40, 25):
        image.save(path, "JPEG", quality=quality, optimize=True)
        if path.stat().st_size <= LARGEST_SHEET:
            return
    raise ValueError(f"{path} stays above {LARGEST_SHEET} bytes; show fewer images")


def _number(value: float | None, missing: float) -> float:
    return missing if value is None else float(value)
