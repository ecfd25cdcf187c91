"""`jaxstyle plan`: what a run needs in memory, and the largest that fits."""

from pathlib import Path
from typing import Any

import click

from jaxstyle.cli.help import GroupedCommand
from jaxstyle.cli.options import (
    IMAGE,
    as_flags,
    bounds,
    bounds_options,
    build_recipe,
    check_batch,
    preset_option,
    recipe_options,
    weights_option,
)
from jaxstyle.config.defaults import MIN_HISTORY_SIZE
from jaxstyle.errors import JaxstyleError


@click.command(cls=GroupedCommand)
@click.option("--content", type=IMAGE, help="Take the proportions of this image; else square.")
@preset_option
@weights_option
@recipe_options(
    (
        "content_layers",
        "style_layers",
        "size",
        "optimizer",
        "history_size",
        "tile",
        "remat",
        "precision",
    )
)
@click.option(
    "--batch", type=int, default=1, metavar="K", show_default=True, help="Images in one program."
)
@bounds_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def plan(
    content: Path | None,
    preset_name: str,
    weights_name: str,
    batch: int,
    max_pixels: int | None,
    first_frame: bool,
    as_json: bool,
    **flags: Any,
) -> int:
    """Print the memory that `stylize` needs at --size, and the largest size that fits.

    The program is compiled for that size but not run, so it takes seconds, whatever the size.
    """
    recipe = build_recipe(preset_name, flags)
    check_batch(batch)

    from rich.console import Console

    from jaxstyle import images
    from jaxstyle.cli.devices import enable_compilation_cache
    from jaxstyle.cli.inputs import tell_weights
    from jaxstyle.engine import memory
    from jaxstyle.provenance.report import to_json
    from jaxstyle.weights import load_network

    enable_compilation_cache()
    network = load_network(weights_name)
    height = width = recipe.size
    if content is not None:
        height, width = images.load_image(
            content, argument="--content", **bounds(max_pixels, first_frame)
        ).shape[:2]
        if recipe.size:
            height, width = images.fitted(height, width, recipe.size, upscale=True)
    elif not recipe.size:
        raise JaxstyleError("--size: 0 keeps the content image's; give --content or a size")
    try:
        with Console(stderr=True).status("compiling …"):
            found = memory.plan(height, width, recipe=recipe, network=network, batch=batch)
    except JaxstyleError as error:
        raise JaxstyleError(as_flags(str(error))) from None
    tell_weights(weights_name)
    if as_json:
        click.echo(to_json({**found._asdict(), "fits": found.fits}), nl=False)
        return 0
    click.echo(f"image  {width}x{height}" + (f", {batch} at once" if batch > 1 else ""))
    pairs = f" ({found.history_size} pairs of L-BFGS)" if found.history_size else ""
    click.echo(f"needed   {memory.gigabytes(found.needed)}{pairs}")
    if found.free is not None:
        click.echo(f"free     {memory.gigabytes(found.free)}")
        largest = "none" if found.largest is None else f"--size {found.largest}"
        if found.largest and pairs and recipe.history_size is None:
            largest += f" ({MIN_HISTORY_SIZE} pairs)"
        click.echo(f"largest  {largest}")
        if not found.fits:
            click.echo(f"It does not fit: {memory.advice(found, recipe)}.")
    return 0
