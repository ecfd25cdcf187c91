"""The images of a command, read from files and identified."""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxstyle import images
from jaxstyle.cli.streams import tell
from jaxstyle.config.recipe import Recipe
from jaxstyle.files import StrPath
from jaxstyle.images import Array
from jaxstyle.provenance.inputs import InputImage, Inputs
from jaxstyle.weights import auto_notice, cache_folder

# How messages name a file that is no flag of the recipe.
_ARGUMENTS = {"content": "CONTENT", "style": "STYLE"}


def argument_of(key: str) -> str:
    """Return the name of a setting's file for messages."""
    return _ARGUMENTS.get(key, "--" + key.replace("_", "-"))


def tell_weights(weights: str, *, quiet: bool = False) -> None:
    """Print that `"auto"` is the embedded network, if it is, and how to get VGG-19.

    Once for a cache folder, on standard error: a file there says that it has been written.
    """
    if quiet or weights != "auto" or not (notice := auto_notice()):
        return
    told = cache_folder() / "recommended"
    if told.exists():
        return
    tell(notice)
    with contextlib.suppress(OSError):
        told.parent.mkdir(parents=True, exist_ok=True)
        told.touch()


class Sources(NamedTuple):
    """The images of a run."""

    inputs: Inputs
    alpha: Array | None
    """Opacity of the content image `[h, w]`, if it has any to tell."""

    @property
    def content(self) -> Array:
        """The content image."""
        return self.inputs.content.pixels

    @property
    def styles(self) -> list[Array]:
        """The style images."""
        return [style.pixels for style in self.inputs.styles]

    def start(self, recipe: Recipe) -> Any:
        """Return the initial image, or the name of one (`prepare.initial_image`)."""
        return self.inputs.init.pixels if self.inputs.init else recipe.init


def read_sources(
    content: Path,
    styles: Sequence[Path],
    recipe: Recipe,
    *,
    max_pixels: int,
    first_frame: bool,
    known: Mapping[tuple[str, StrPath], InputImage] | None = None,
) -> Sources:
    """Read the content, the styles and every image that the recipe names.

    Args:
      content: file of the content image.
      styles: files of the style images.
      recipe: may name further files.
      max_pixels: as in `images.load_image`.
      first_frame: likewise.
      known: images that have been read, by the setting that names them and the file.

    Raises:
      JaxstyleError: one that cannot be read, named by its argument.
    """
    alpha: Array | None = None

    def load(key: str, file: StrPath) -> InputImage:
        nonlocal alpha
        if known and (key, file) in known:
            return known[key, file]
        pixels, opacity = images.load_with_alpha(
            file, argument=argument_of(key), max_pixels=max_pixels, first_frame=first_frame
        )
        if key == "content":
            alpha = opacity
        return InputImage.of(Path(file), pixels)

    return Sources(Inputs.read(content, styles, recipe, load), alpha)
