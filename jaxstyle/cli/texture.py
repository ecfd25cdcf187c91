"""`jaxstyle texture`: the texture of a painting, without a photograph."""

from pathlib import Path
from typing import Any

import click

from jaxstyle.cli.help import GroupedCommand
from jaxstyle.cli.options import (
    IMAGE,
    bounds,
    bounds_options,
    build_recipe,
    errors_by_flag,
    recipe_options,
    weights_option,
)
from jaxstyle.cli.streams import tell
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
    "--aspect", default="1:1", metavar="W:H", show_default=True, help="Proportions of the output."
)
@weights_option
@recipe_options(FIELDS)
@bounds_options
@click.option("--report", type=IMAGE, metavar="FILE", help="Write a JSON report.")
@click.option("--quiet", is_flag=True, help="No progress.")
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
    """Make an image with the texture of STYLE alone, from noise (Gatys et al. 2015).

    Several styles are blended. Ctrl-C keeps the best image so far.
    """
    recipe = build_recipe("default", flags | {"content_weight": 0.0, "init": "noise"})
    size = _size(aspect, recipe.size)
    waiting = Waiting("preparing", quiet=quiet)

    from jaxstyle import images
    from jaxstyle.api import texture_problem
    from jaxstyle.cli.devices import enable_compilation_cache
    from jaxstyle.cli.inputs import tell_weights
    from jaxstyle.engine.iterate import Iterate
    from jaxstyle.engine.loop import iterates
    from jaxstyle.engine.results import append_iterate, finish
    from jaxstyle.files import check_writable
    from jaxstyle.monitor.interrupts import INTERRUPTED, TERMINATED, Terminated, interrupts
    from jaxstyle.monitor.pace import Course
    from jaxstyle.monitor.progress import progress
    from jaxstyle.provenance.report import texture_report, write_report
    from jaxstyle.weights import load_network

    images.check_output(output, argument="-o")
    if report is not None:
        check_writable(report, argument="--report")
    enable_compilation_cache()
    network = load_network(weights_name)
    read = bounds(max_pixels, first_frame)
    loaded = [images.load_image(file, argument="STYLE", **read) for file in styles]
    with errors_by_flag():
        problem = texture_problem(loaded, recipe=recipe, network=network, size=size)
    waiting.stop()
    tell_weights(weights_name, quiet=quiet)
    collected: list[Iterate] = []
    code = 0
    with interrupts() as check_interrupt:
        try:
            with progress(Course.of(problem), quiet=quiet) as show:
                for iterate in iterates(problem, first=1):
                    append_iterate(collected, iterate._replace(carry=None))
                    show(iterate)
                    check_interrupt()
        except KeyboardInterrupt as signal:
            if not collected:
                raise
            code = TERMINATED if isinstance(signal, Terminated) else INTERRUPTED
        result = finish(problem, collected)[0]
        images.save_image(output, result.image, argument="-o")
        if report is not None:
            named = texture_report(
                result, network=network, weights=weights_name, styles=styles, output=output
            )
            write_report(report, named)
    if not quiet:
        tell(f"wrote {output}")
    return code


def _size(aspect: str, longest: int) -> tuple[int, int]:
    """Return height and width for an aspect ratio `W:H` and a longest side in pixels."""
    try:
        width, height = (float(part) for part in aspect.split(":"))
        if not (0 < width < 1e6 and 0 < height < 1e6):
            raise ValueError
    except ValueError:
        raise JaxstyleError(
            f"--aspect: {aspect!r} is not two numbers above 0; write e.g. 16:9"
        ) from None
    if longest < 1:
        raise JaxstyleError("--size: 0 keeps a photograph's size, and there is none; give a size")
    unit = longest / max(width, height)
    return max(1, round(height * unit)), max(1, round(width * unit))
