"""The image files of a run, and their entries in its record."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxstyle.config.choices import INITS
from jaxstyle.config.recipe import Recipe
from jaxstyle.config.validation import WHOLE
from jaxstyle.errors import JaxstyleError
from jaxstyle.files import StrPath
from jaxstyle.images import Array
from jaxstyle.losses.masks import Masks
from jaxstyle.provenance.report import image_report


class InputImage(NamedTuple):
    """An image that was read from a file."""

    pixels: Array
    """RGB `[h, w, 3]` in [0, 1]."""
    report: dict[str, Any]
    """Path, digest and size, for reports; empty if the image is not of a file."""

    @classmethod
    def of(cls, path: Path, pixels: Array) -> "InputImage":
        """Build the entry of an image that was read from `path`."""
        return cls(pixels, image_report(path, pixels))


Load = Callable[[str, StrPath], InputImage]
"""`(setting that names the file, file) -> image`; raises a `JaxstyleError`."""
Pair = tuple[InputImage | None, InputImage | None]


class Inputs(NamedTuple):
    """The image files that a run depends on."""

    content: InputImage
    """Content image; the gray one of a texture is not of a file."""
    styles: tuple[InputImage, ...]
    """Style images in order."""
    init: InputImage | None = None
    """Initial image, if it is a file."""
    content_mask: InputImage | None = None
    """Mask of the content, if any."""
    masks: tuple[Pair, ...] = ()
    """For each style, the region of the output and that of the style; None is the whole image."""

    @classmethod
    def read(
        cls, content: StrPath | InputImage, styles: Sequence[StrPath], recipe: Recipe, load: Load
    ) -> "Inputs":
        """Read content, if it is a file, styles and the files that the recipe names."""

        def optional(key: str, file: str | None, absent: Sequence[str | None]) -> InputImage | None:
            if file is None or file in absent:
                return None
            try:
                return load(key, file)
            except JaxstyleError as error:
                if key != "init" or Path(file).exists():
                    raise
                raise JaxstyleError(f"{error}, or one of {', '.join(INITS)}") from None

        return cls(
            content if isinstance(content, InputImage) else load("content", content),
            tuple(load("style", style) for style in styles),
            optional("init", recipe.init, INITS),
            optional("content_mask", recipe.content_mask, (None,)),
            tuple(
                (optional("mask", region, (WHOLE,)), optional("mask", of_style, (WHOLE,)))
                for region, of_style in recipe.mask
            ),
        )

    @property
    def arrays(self) -> Masks:
        """The masks as arrays, an argument of `prepare`."""
        return Masks(
            _pixels(self.content_mask), tuple((_pixels(a), _pixels(b)) for a, b in self.masks)
        )

    def report(self) -> dict[str, Any]:
        """Return the files' paths, digests and sizes, an argument of `report.record`."""
        entries: dict[str, Any] = {
            "content": self.content.report or None,
            "styles": [style.report for style in self.styles],
            "init": _report(self.init),
        }
        if self.content_mask:
            entries["content_mask"] = self.content_mask.report
        if self.masks:
            entries["masks"] = [[_report(image) for image in pair] for pair in self.masks]
        return entries


def recipe_files(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """Yield the files that a recipe names, each with the name of its setting first."""
    if recipe.init not in INITS:
        yield "init", recipe.init
    if recipe.content_mask is not None:
        yield "content_mask", recipe.content_mask
    yield from (("mask", file) for pair in recipe.mask for file in pair if file != WHOLE)


def named(report: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the images of an `Inputs.report`, each with its name first."""
    yield "content", report["content"]
    for number, style in enumerate(report["styles"], start=1):
        yield f"style {number}", style
    yield "init", report.get("init")
    yield "content mask", report.get("content_mask")
    for number, (region, of_style) in enumerate(report.get("masks", ()), start=1):
        yield f"mask {number}", region
        yield f"style mask {number}", of_style


def _pixels(image: InputImage | None) -> Array | None:
    return image and image.pixels


def _report(image: InputImage | None) -> dict[str, Any] | None:
    return image and image.report
