"""The cells of a grid, with resolved recipes, images, weights and keys."""

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
from jaxstyle.provenance.inputs import InputImage, Inputs, named
from jaxstyle.provenance.unresolved import WEIGHTS
from jaxstyle.sweep.grid_file import HINTS, GridFile, Settings

OPTIMIZATION_SETTINGS = frozenset(
    {
        "init", "noise_std", "noise_blend", "seed", "steps", "scales", "scale_side", "scale_ratio",
        "scale_detail", "scale_content", "average", "optimizer", "learning_rate", "schedule",
        "decay", "momentum", "adam_b2", "history_size", "preconditioner", "bounds", "tile", "remat",
        "precision",
    }
)  # fmt: skip
"""Settings of a recipe that affect the optimization, but not the objective at full size."""


@dataclasses.dataclass(frozen=True, eq=False)
class Cell:
    """One combination of settings, with everything that its image depends on."""

    settings: Settings
    """Settings as in the grid file, base and axes."""
    axes: tuple[str, ...]
    """Names of the settings that vary over the grid."""
    recipe: Recipe
    """Resolved settings."""
    network: Network
    """Weights."""
    inputs: Inputs
    """Images."""

    @functools.cached_property
    def key(self) -> str:
        """Digest of the settings and inputs, on which the result depends."""
        return self._digest({"init"} if self.inputs.init else set(), set())

    @functools.cached_property
    def objective(self) -> str:
        """Digest of the settings and inputs of the objective.

        Losses are comparable between cells with equal digests only.
        """
        return self._digest(OPTIMIZATION_SETTINGS, {"init"})

    def _digest(self, settings: Collection[str], files: Collection[str]) -> str:
        """Return the digest of settings and inputs, without some settings and some files."""
        # The digests of files count instead of their names.
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
        """Name of the cell's files: the settings that vary and the beginning of the key."""
        parts = [f"{axis}={text}" for axis, text in self.labels().items()]
        readable = re.sub(r"[^\w.=+-]+", "_", ",".join(parts), flags=re.ASCII)[:100].strip("_.-")
        return f"{readable}-{self.key[:12]}" if readable else self.key[:12]

    def labels(self) -> dict[str, str]:
        """Return the settings that vary, as short texts by name."""
        return {axis: label(self.settings[axis]) for axis in self.axes}


def label(value: Any) -> str:
    """Return a setting's value as a short text, with files without folder and ending.

    Example:
      >>> label(1000.0), label("images/night.png")
      ('1000', 'night')
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, dict):
        return format_layers(tuple(value.items()))
    if isinstance(value, list):
        return "+".join(map(label, value))
    text = str(value)
    is_file = Path(text).suffix.lower() in (*images.SUFFIXES, ".safetensors")
    return Path(text).stem if is_file else text


def cells(
    grid: GridFile,
    load_network: Callable[[str], Network],
    *,
    max_pixels: int = images.MAX_PIXELS,
    first_frame: bool = False,
) -> list[Cell]:
    """Load the inputs of a grid and resolve every combination; nothing is written.

    Paths in the file are relative to its folder, or else to the current one.

    Args:
      grid: from `read`.
      load_network: returns weights by name or file.
      max_pixels: largest number of pixels of an image, as in `images.load_image`.
      first_frame: whether to read the first image of an animated file.

    Returns:
      The cells in the file's order, without duplicates of equal resolved settings.

    Raises:
      JaxstyleError: an image, network, layer or value cannot be used.
    """
    sources = _Sources(grid, load_network, max_pixels=max_pixels, first_frame=first_frame)
    axes = tuple(name for name, values in grid.axes.items() if len(values) > 1)
    by_key: dict[str, Cell] = {}
    for settings in grid.combinations():
        try:
            recipe, network = _recipe_and_network(settings, sources)
        except JaxstyleError as error:
            raise _placed(error, sources.where, grid) from None
        styles = settings["style"]
        inputs = Inputs.read(
            settings["content"],
            styles if isinstance(styles, list) else [styles],
            recipe,
            sources.image,
        )
        shapes = [style.pixels.shape for style in inputs.styles]
        recipe = resolve_scales(recipe, inputs.content.pixels.shape, shapes)
        cell = Cell(settings, axes, recipe, network, inputs)
        by_key.setdefault(cell.key, cell)
    return list(by_key.values())


class _Sources:
    """The images and networks that a grid names, each loaded once."""

    def __init__(
        self,
        grid: GridFile,
        load_network: Callable[[str], Network],
        *,
        max_pixels: int,
        first_frame: bool,
    ):
        self._grid = grid
        self._load_network = load_network
        self._load_image = functools.partial(
            images.load_image, max_pixels=max_pixels, first_frame=first_frame
        )
        self._networks: dict[str, Network] = {}
        self._images: dict[tuple[str, str], InputImage] = {}

    def where(self, key: str) -> str:
        """Return the place of a setting in the grid file, for error messages."""
        return f"{self._grid.path}: [{'grid' if key in self._grid.axes else 'base'}] {key}"

    def image(self, key: str, file: StrPath) -> InputImage:
        """Return the image of the setting `key`."""
        text = str(file)
        if (key, text) not in self._images:
            path = _located(text, self._grid.path.parent)
            pixels = self._load_image(path, argument=self.where(key))
            self._images[key, text] = InputImage.of(path, pixels)
        return self._images[key, text]

    def network(self, text: str) -> Network:
        """Return the weights of a name or file."""
        if text not in self._networks:
            located = _located(text, self._grid.path.parent)
            try:
                # A name of a network has priority over a file of that name.
                name = str(located) if located.suffix == ".safetensors" else text
                self._networks[text] = self._load_network(name)
            except JaxstyleError as error:
                raise JaxstyleError(f"{self.where('weights')}: {error}") from None
        return self._networks[text]


_TAKES_FLOATS = {name: float in (hint, *typing.get_args(hint)) for name, hint in HINTS.items()}
"""Whether a setting takes floats, by the names of all settings of a recipe."""


def _recipe_and_network(settings: Settings, sources: _Sources) -> tuple[Recipe, Network]:
    """Return the resolved recipe of a combination of settings, and its weights.

    The recipe's weights of the terms are not resolved, as the default style weight depends on the
    images of the cell (`losses.balance`).
    """
    # 1000 and 1000.0 must give equal keys.
    values = {
        name: float(value) if type(value) is int and _TAKES_FLOATS[name] else value
        for name, value in settings.items()
        if name in _TAKES_FLOATS
    }
    recipe = preset(settings.get("preset", "default"), values)
    network = sources.network(settings.get("weights", "auto"))
    unresolved = {name: getattr(recipe, name) for name in WEIGHTS}
    return dataclasses.replace(resolve_recipe(recipe, network), **unresolved), network


def _located(text: str, folder: Path) -> Path:
    """Return a path in the grid file, relative to its folder or else to the current one."""
    beside = folder / text
    return beside if beside.exists() or not Path(text).exists() else Path(text)


def _placed(error: JaxstyleError, where: Callable[[str], str], grid: GridFile) -> JaxstyleError:
    """Return the error with the file and table of the setting in its message."""
    message = str(error)
    if message.startswith(str(grid.path)):
        return error
    name, colon, rest = message.partition(":")
    name = name.split(" ")[0]
    if name in grid.base or name in grid.axes:
        return JaxstyleError(f"{where(name)}: {rest.strip() if colon else message}")
    return JaxstyleError(f"{grid.path}: {message}")
