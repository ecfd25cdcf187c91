"""Reading of a command's input images."""

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

# Names in messages of files that are positional arguments.
_ARGUMENTS = {"content": "CONTENT", "style": "STYLE"}


def argument_of(key: str) -> str:
    """Return the argument or flag of an input image, for messages."""
    return _ARGUMENTS.get(key, "--" + key.replace("_", "-"))


def tell_weights(weights: str, *, quiet: bool = False) -> None:
    """Print a notice if `weights` is `"auto"` and that is an embedded network.

    The notice says how to get VGG-19. It goes to standard error, once per cache folder, in which an
    empty file marks that it was printed.
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
    """Alpha channel of the content image, `[h, w]`; None if it is opaque."""

    @property
    def content(self) -> Array:
        """The content image."""
        return self.inputs.content.pixels

    @property
    def styles(self) -> list[Array]:
        """The style images."""
        return [style.pixels for style in self.inputs.styles]

    def start(self, recipe: Recipe) -> Any:
        """Return the initial image of a file, or else the name in `Recipe.init`."""
        return self.inputs.init.pixels if self.inputs.init else recipe.init


def read_sources(
    content: Path | InputImage,
    styles: Sequence[Path],
    recipe: Recipe,
    *,
    max_pixels: int,
    first_frame: bool,
    known: Mapping[tuple[str, StrPath], InputImage] | None = None,
) -> Sources:
    """Read the content image, the style images and all images that the recipe names.

    Args:
      content: file of the content image, or the image itself.
      styles: files of the style images.
      recipe: settings, which may name files of an initial image and masks.
      max_pixels: as in `images.load_image`.
      first_frame: as in `images.load_image`.
      known: images that were read before, by setting and file.

    Raises:
      JaxstyleError: an image cannot be read; the message names its argument.
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
