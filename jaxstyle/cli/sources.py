"""The pictures of a command, read from files and identified."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxstyle import images
from jaxstyle.images import Array
from jaxstyle.recipe import INITS
from jaxstyle.report import picture_report


class Sources(NamedTuple):
    """What a run reads."""

    content: Array
    alpha: Array | None
    """Opacity of the content picture `[h, w]`, if it has any to tell."""
    styles: list[Array]
    start: Any
    """Initial picture, or the name of one (`prepare.initial_picture`)."""
    inputs: dict[str, Any]
    """Which files they were, as `report.record` wants it."""


def read_sources(
    content: Path, styles: Sequence[Path], init: str, *, max_pixels: int, first_frame: bool
) -> Sources:
    """Read the content, the styles and the initial picture, if it is a file's.

    Raises:
      JaxstyleError: one that cannot be read, named by its argument.
    """
    bounds: dict[str, Any] = {"max_pixels": max_pixels, "first_frame": first_frame}
    picture, alpha = images.load_with_alpha(content, argument="CONTENT", **bounds)
    style_pictures = [images.load_image(style, argument="STYLE", **bounds) for style in styles]
    start: Any = init
    inputs: dict[str, Any] = {
        "content": picture_report(content, picture),
        "styles": [picture_report(*pair) for pair in zip(styles, style_pictures, strict=True)],
        "init": None,
    }
    if init not in INITS:
        start = images.load_image(init, argument="--init", **bounds)
        inputs["init"] = picture_report(Path(init), start)
    return Sources(picture, alpha, style_pictures, start, inputs)
