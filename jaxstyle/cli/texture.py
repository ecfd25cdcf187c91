"""`jaxstyle texture`: the texture of a painting, without a photograph."""

from pathlib import Path
from typing import Any

import click

from jaxstyle.cli.help import GroupedCommand
from jaxstyle.cli.options import (
    IMAGE,
    bounds_options,
    build_recipe,
    recipe_options,
    weights_option,
)
from jaxstyle.cli.stylize import Options, Request
from jaxstyle.cli.waiting import Waiting
from jaxstyle.errors import JaxstyleError

FIELDS = (
    "size", "steps", "seed", "style_layers", "style_weight", "tv_weight", "variation",
    "style_blend", "style_scale", "style_loss", "turn_style", "pooling", "noise_std", "scales",
    "scale_side", "scale_ratio", "pyramid", "margin", "optimizer", "learning_rate", "history_size",
    "tile", "remat", "precision",
)  # fmt: skip


@click.command(cls=GroupedCommand)
@click.argument("styles", type=IMAGE, nargs=-1, required=True, metavar="STYLE [STYLE ...]")
@click.option("-o", "--output", type=IMAGE, required=True, help="Image to write.")
@click.option(
    "--aspect",
    default="1:1",
    metavar="W:H",
    show_default=True,
    help="Aspect ratio of the output, width to height.",
)
@weights_option
@recipe_options(FIELDS)
@bounds_options
@click.option("--report", type=IMAGE, metavar="FILE", help="Write a report in JSON.")
@click.option("--quiet", is_flag=True, help="Show no progress.")
def texture(
    styles: tuple[Path, ...],
    output: Path,
    aspect: str,
    weights_name: str,
    max_pixels: int | None,
    first_frame: bool,
    report: Path | None,
    quiet: bool,
    **flags: Any,
) -> int:
    """Synthesize the texture of a painting, without a photograph.

    The image starts from noise and is optimized for the style loss of STYLE alone (Gatys et al.
    2015); several styles are blended. Ctrl-C and SIGTERM end the run after the current steps; the
    best image so far is saved.
    """
    recipe = build_recipe("default", flags | {"content_weight": 0.0, "init": "noise"})
    size = _size(aspect, recipe.size)
    waiting = Waiting("preparing", quiet=quiet)

    from jaxstyle.api import texture_inputs
    from jaxstyle.cli.run import run
    from jaxstyle.provenance.inputs import InputImage

    gray, recipe = texture_inputs(recipe, size)
    options = Options(styles, output, weights_name, max_pixels, first_frame, report, quiet)
    request = Request(InputImage(gray, {}), styles, recipe, weights_name)
    return run(options, request, flags=flags, waiting=waiting)


def _size(aspect: str, longest: int) -> tuple[int, int]:
    """Return height and width for an aspect ratio `W:H` and a longest side in pixels."""
    try:
        width, height = (float(part) for part in aspect.split(":"))
        if not (0 < width < 1e6 and 0 < height < 1e6):
            raise ValueError
    except ValueError:
        raise JaxstyleError(
            f"--aspect: {aspect!r} is not a ratio of two positive numbers; give one such as 16:9"
        ) from None
    if longest < 1:
        raise JaxstyleError(
            "--size: 0 keeps the size of a photograph, and a texture has none; give a size above 0"
        )
    unit = longest / max(width, height)
    return max(1, round(height * unit)), max(1, round(width * unit))
