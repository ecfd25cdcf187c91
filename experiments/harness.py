"""What the experiments share: images, scales, running a grid, and writing down what was found.

An experiment is a folder with an `experiment.py` (its `EXPERIMENT`) and the grid files
it runs. `run.py` brings everything to a scale (`small` on two CPU cores, `full` on a GPU,
`tiny` in the tests), runs the grids with `jaxstyle grid`, has the numbers computed and writes
`results.json`, `sheet.jpg`, `plot.svg` and `README.md` into the folder.
"""

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
from jaxstyle.files import write_atomically
from jaxstyle.images import load_image, save_image
from jaxstyle.images.painted import paint
from jaxstyle.images.samples import load_photograph
from jaxstyle.images.sheets import contact_sheet
from jaxstyle.provenance.report import environment_report, to_json
from jaxstyle.sweep import FinishedCell, read_results

HERE = Path(__file__).parent
LARGEST_SHEET = 600_000
"""Bytes: what a page that shows eleven of them can bear."""

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
    # As the grid files have it.
    "small": Scale("small", {}),
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
class Pair:
    """A photograph of `images.samples` and a painting of the project's own painter."""

    photograph: str
    painting: str
    """Its palette."""
    seed: int
    width: int | None = None
    """Pixels of the photograph that are kept; both photographs are 3:2 and share programs."""


PAIRS = {
    "cat": Pair("cat", "night", 0, width=450),
    "coffee": Pair("coffee", "embers", 3),
}


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
    """An experiment's cells of one pair: what a measurement may look at."""

    scale: str
    pair: str
    folder: Path
    """Holds the grids' folders; for what else is slow to compute."""
    content_path: Path
    style_path: Path
    weights: str
    cells: dict[str, list[FinishedCell]]
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

    def problem(self, cell: FinishedCell, **changes: Any) -> jaxstyle.Problem:
        """Prepare the objective and the start of a cell, with some settings changed."""
        return jaxstyle.prepare(
            self.content,
            self.style,
            recipe=dataclasses.replace(cell.recipe, **changes),
            network=self.network,
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
    """Draws one pair's panels of a matplotlib figure (`plots.figure`)."""
    sheet: Callable[[Run], tuple[Sequence[np.ndarray], Sequence[str], int]]
    """One pair's images, labels and columns of the contact sheet."""
    seen: str = ""
    """What one sees on the sheet of `results.json`'s run."""
    panels: int = 2
    """Of a pair, in a row of the plot."""
    pairs: tuple[str, ...] = tuple(PAIRS)
    full: Settings = dataclasses.field(default_factory=dict)
    """Settings of the article, for `--full`."""
    tiny: Settings = dataclasses.field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return HERE / self.name


def inputs(out: Path, pair: Pair) -> tuple[Path, Path]:
    """Write a pair's photograph and painting, unless they are there."""
    out.mkdir(parents=True, exist_ok=True)
    name = {value: key for key, value in PAIRS.items()}[pair]
    content, style = out / f"{name}.png", out / f"{pair.painting}.png"
    if not content.exists():
        save_image(content, load_photograph(pair.photograph)[:, : pair.width])
    if not style.exists():
        save_image(style, paint(512, 512, seed=pair.seed, palette=pair.painting))
    return content, style


def run(experiment: Experiment, scale: Scale, out: Path, pair: str) -> Run:
    """Run an experiment's grids on a pair, or what is left of them, and give its cells."""
    content, style = inputs(out, PAIRS[pair])
    folder = out / scale.name / experiment.name / pair
    folder.mkdir(parents=True, exist_ok=True)
    cells = {}
    for path in sorted(experiment.folder.glob("*.toml")):
        base, grid = brought_to(experiment, scale, path)
        base |= {"content": str(content.resolve()), "style": str(style.resolve())}
        written = folder / path.name
        write_atomically(written, as_toml({"base": base, "grid": grid}).encode())
        cells[path.stem] = run_grid(written, folder / path.stem, scale.elements)
    return Run(scale.name, pair, folder, content, style, base["weights"], cells)


def brought_to(experiment: Experiment, scale: Scale, path: Path) -> tuple[Settings, Settings]:
    """Read a grid file of an experiment and lay over it the settings of a scale and its own."""
    own = {"full": experiment.full, "tiny": experiment.tiny}.get(scale.name, {})
    tables = tomllib.loads(path.read_text(encoding="utf-8"))
    base, grid = tables.get("base", {}), tables.get("grid", {})
    for over in (scale.base, own):
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


def run_grid(file: Path, folder: Path, elements: int | None = None) -> list[FinishedCell]:
    """Run `jaxstyle grid`, which goes on where it stopped, and read what it wrote."""
    arguments = ["grid", str(file), "-o", str(folder)]
    if elements:
        arguments += ["--lanes", str(elements)]
    print("jaxstyle", *arguments, file=sys.stderr, flush=True)
    code = app.main(args=arguments, prog_name="jaxstyle", standalone_mode=False)
    if code:
        raise KeyboardInterrupt
    return read_results(folder)


def overall(verdicts: Sequence[str]) -> str:
    """Return the verdict of all pairs: theirs if they agree, else that the claim holds in part."""
    return verdicts[0] if len(set(verdicts)) == 1 else PARTLY


def write_results(
    experiment: Experiment, found: Sequence[Found], runs: Sequence[Run], folder: Path
) -> dict[str, Any]:
    """Write results.json: what was found, with what, on what."""
    cells = [cell for run in runs for cells in run.cells.values() for cell in cells]
    results = {
        "experiment": experiment.name,
        "claim": experiment.claim,
        "verdict": overall([one.verdict for one in found]),
        "pairs": {run.pair: dataclasses.asdict(one) for run, one in zip(runs, found, strict=True)},
        "scale": runs[0].scale,
        "weights": {"name": runs[0].network.name, "sha256": runs[0].network.digest},
        "sizes": sorted({cell.report["images"]["output"]["size"][0] for cell in cells}),
        "cells": len(cells),
        "evaluations": sum(cell.report["evaluations"] for cell in cells),
        "seconds": sum(cell.seconds for cell in cells),
        "machine": f"{os.cpu_count()} CPU cores",
        "environment": environment_report(),
        "date": time.strftime("%Y-%m-%d"),
    }
    write_atomically(folder / "results.json", to_json(results).encode())
    return results


def write_sheet(
    path: Path, images: Sequence[np.ndarray], labels: Sequence[str], columns: int
) -> None:
    """Write a contact sheet as JPEG of at most `LARGEST_SHEET` bytes."""
    sheet = contact_sheet(images, columns=columns, labels=labels)
    image = Image.fromarray((np.clip(sheet, 0, 1) * 255).round().astype(np.uint8))
    for quality in (90, 85, 80, 75, 70, 60, 50):
        image.save(path, "JPEG", quality=quality, optimize=True)
        if path.stat().st_size <= LARGEST_SHEET:
            return
    raise ValueError(f"{path} stays above {LARGEST_SHEET} bytes; show fewer images")
