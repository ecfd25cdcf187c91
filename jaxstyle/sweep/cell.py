"""The cells of a grid file, with resolved recipes, images, weights and keys."""

import dataclasses
import functools
import hashlib
import json
import re
import typing
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from jaxstyle import images
from jaxstyle.config.layers import format_layers
from jaxstyle.config.presets import preset
from jaxstyle.config.recipe import Recipe
from jaxstyle.engine.sizes import resolve_scales
from jaxstyle.errors import JaxstyleError
from jaxstyle.files import StrPath
from jaxstyle.losses.resolve import resolve_recipe
from jaxstyle.nn.network import Network
from jaxstyle.provenance.asked import WEIGHTS
from jaxstyle.provenance.inputs import InputImage, Inputs, named
from jaxstyle.sweep.grid_file import HINTS, GridFile, Settings

OPTIMIZATION_SETTINGS = frozenset(
    {
        "init", "noise_std", "noise_blend", "seed", "steps", "scales", "scale_ratio",
        "scale_detail", "average", "optimizer", "learning_rate", "schedule", "decay", "momentum",
        "adam_b2", "history_size", "preconditioner", "bounds", "tile", "remat", "precision",
    }
)  # fmt: skip
"""Settings of a recipe that name images, apart from what these contain."""


@dataclasses.dataclass(frozen=True, eq=False)
class Cell:
    """One combination of settings, with everything that its image depends on."""

    settings: Settings
    """As in the grid file, base and axes."""
    axes: tuple[str, ...]
    """The settings that vary over the grid."""
    recipe: Recipe
    """Resolved."""
    network: Network
    inputs: Inputs

    @functools.cached_property
    def key(self) -> str:
        """Digest of all that the result depends on but the program: settings and inputs."""
        return self._digest({"init"} if self.inputs.init else set(), set())

    @functools.cached_property
    def objective(self) -> str:
        """Digest of all that the loss of a given image depends on.

        Only the losses of cells that share it can be compared.
        """
        return self._digest(OPTIMIZATION_SETTINGS, {"init"})

    def _digest(self, settings: Collection[str], files: Collection[str]) -> str:
        """Return the digest of settings and inputs, without some settings and some files."""
        # Of files the digest counts and not the name.
        recipe = self.recipe.as_dict() | {"content_mask": None, "mask": None}
        recipe |= dict.fromkeys(settings)
        digests = {
            name: file and file["sha256"]
            for name, file in named(self.inputs.report())
            if name not in files
        }
        inputs = {"recipe": recipe, "weights": self.network.digest, "files": digests}
        return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()

    @property
    def name(self) -> str:
        """Name of the cell's files: what varies, in words, and the key's beginning."""
        parts = [f"{axis}={text}" for axis, text in self.labels().items()]
        readable = re.sub(r"[^\w.=+-]+", "_", ",".join(parts), flags=re.ASCII)[:100].strip("_.-")
        return f"{readable}-{self.key[:12]}" if readable else self.key[:12]

    def labels(self) -> dict[str, str]:
        """What varies, as short texts by setting."""
        return {axis: label(self.settings[axis]) for axis in self.axes}


def label(value: Any) -> str:
    """Return a setting's value as a short text: numbers plainly, images without their folder."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, dict):
        return format_layers(tuple(value.items()))
    if isinstance(value, list):
        return "+".join(map(label, value))
    text = str(value)
    is_file = re.search(r"[^.]\.(png|jpe?g|webp|tiff?|bmp|gif|safetensors)$", text, re.I)
    return Path(text).stem if is_file else text


def cells(
    grid: GridFile,
    load_network: Callable[[str], Network],
    *,
    max_pixels: int = images.MAX_PIXELS,
    first_frame: bool = False,
) -> list[Cell]:
    """Load the inputs of a grid and resolve every combination; nothing is written.

    Paths in the file are looked for in its folder, then in the current one.

    Args:
      grid: from `read`.
      load_network: weights by name or file.
      max_pixels: of an image that is read, as in `images.load_image`.
      first_frame: whether to read the first image of an animated file.

    Returns:
      The cells in the file's order, without those that come to the same settings.

    Raises:
      JaxstyleError: an image, weights, layer or value that cannot be used.
    """
    networks: dict[str, Network] = {}
    imgs: dict[tuple[str, str], InputImage] = {}

    def where(key: str) -> str:
        return f"{grid.path}: [{'grid' if key in grid.axes else 'base'}] {key}"

    def image(key: str, file: StrPath) -> InputImage:
        text = str(file)
        if (key, text) not in imgs:
            path = _located(text, grid.path.parent)
            pixels = images.load_image(
                path, argument=where(key), max_pixels=max_pixels, first_frame=first_frame
            )
            imgs[key, text] = InputImage.of(path, pixels)
        return imgs[key, text]

    def network(text: str) -> Network:
        if text not in networks:
            located = _located(text, grid.path.parent)
            try:
                # A name may also be that of a file beside the grid; the name wins.
                named = str(located) if located.suffix == ".safetensors" else text
                networks[text] = load_network(named)
            except JaxstyleError as error:
                raise JaxstyleError(f"{where('weights')}: {error}") from None
        return networks[text]

    fields = {name: float in (hint, *typing.get_args(hint)) for name, hint in HINTS.items()}
    by_key: dict[str, Cell] = {}
    for settings in grid.combinations():
        given = {name: value for name, value in settings.items() if name in fields}
        # 1000 and 1000.0 are one number and must give one key.
        given = {n: float(v) if type(v) is int and fields[n] else v for n, v in given.items()}
        try:
            recipe = preset(settings.get("preset", "default"), given)
            weights = network(settings.get("weights", "auto"))
            # The images of the cell decide the default style weight (`losses.balance`).
            asked = {name: getattr(recipe, name) for name in WEIGHTS}
            recipe = dataclasses.replace(resolve_recipe(recipe, weights), **asked)
        except JaxstyleError as error:
            raise _placed(error, where, grid) from None
        several = settings["style"]
        inputs = Inputs.read(
            settings["content"],
            several if isinstance(several, list) else [several],
            recipe,
            image,
        )
        shapes = [style.pixels.shape for style in inputs.styles]
        cell = Cell(
            settings=settings,
            axes=tuple(name for name, values in grid.axes.items() if len(values) > 1),
            recipe=resolve_scales(recipe, inputs.content.pixels.shape, shapes),
            network=weights,
            inputs=inputs,
        )
        by_key.setdefault(cell.key, cell)
    return list(by_key.values())


def _located(text: str, folder: Path) -> Path:
    """Return a path of the grid file: relative to it, or else to the current folder."""
    beside = folder / text
    return beside if beside.exists() or not Path(text).exists() else Path(text)


def _placed(error: JaxstyleError, where: Callable[[str], str], grid: GridFile) -> JaxstyleError:
    """Return an error whose message names the table of the setting that it begins with."""
    message = str(error)
    if message.startswith(str(grid.path)):
        return error
    name, colon, rest = message.partition(":")
    name = "preset" if name.startswith("preset ") else name.split(" ")[0]
    if name in grid.base or name in grid.axes:
        return JaxstyleError(f"{where(name)}: {rest.strip() if colon else message}")
    return JaxstyleError(f"{grid.path}: {message}")
