"""`jaxstyle plan`: the memory of a run, and the largest size that fits."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jaxstyle.cli.help import GroupedCommand
from jaxstyle.cli.options import (
    IMAGE,
    bounds,
    bounds_options,
    build_recipe,
    check_batch,
    errors_by_flag,
    preset_option,
    recipe_options,
    weights_option,
)
from jaxstyle.cli.streams import tell
from jaxstyle.config.accelerators import ACCELERATORS
from jaxstyle.config.defaults import MIN_HISTORY_SIZE
from jaxstyle.config.recipe import Recipe
from jaxstyle.errors import JaxstyleError

if TYPE_CHECKING:
    from jaxstyle.engine.planning import Plan
    from jaxstyle.engine.roofline import StepCost


@click.command(cls=GroupedCommand)
@click.option(
    "--content", type=IMAGE, help="Plan for the output of this content image; else for a square."
)
@preset_option
@weights_option
@recipe_options(
    (
        "content_layers",
        "style_layers",
        "size",
        "upscale",
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
@click.option(
    "--target",
    type=click.Choice(list(ACCELERATORS)),
    help="Plan for this accelerator instead of the device here: its memory, and the least time of "
    "a step by its published peaks.",
)
@bounds_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def plan(
    content: Path | None,
    preset_name: str | None,
    weights_name: str,
    batch: int,
    max_pixels: int | None,
    first_frame: bool,
    target: str | None,
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
    from jaxstyle.engine import memory, planning
    from jaxstyle.engine.roofline import step_cost
    from jaxstyle.engine.sizes import not_enlarged_notice, output_size
    from jaxstyle.provenance.report import to_json
    from jaxstyle.weights import load_network

    enable_compilation_cache()
    network = load_network(weights_name)
    height = width = recipe.size
    if content is not None:
        shape = images.load_image(
            content, argument="--content", **bounds(max_pixels, first_frame)
        ).shape
        height, width = output_size(shape[0], shape[1], recipe)
        if notice := not_enlarged_notice(shape, flags["size"], recipe):
            tell(notice)
    elif not recipe.size:
        raise JaxstyleError("--size: 0 keeps the content image's; give --content or a size")
    with errors_by_flag():
        with Console(stderr=True).status("compiling …"):
            accelerator = ACCELERATORS[target] if target else None
            result = planning.plan(
                height, width, recipe=recipe, network=network, batch=batch,
                free=accelerator and accelerator.memory, accelerator=accelerator,
            )  # fmt: skip
            cost = None
            if accelerator is not None:
                last = memory.resolved_for_size(recipe, network, height, width)
                cost = step_cost(
                    memory.problem_of_shapes(
                        height, width, recipe=last, network=network, batch=batch
                    ),
                    accelerator,
                )
    tell_weights(weights_name)
    if as_json:
        report = {**result._asdict(), "fits": result.fits}
        if cost is not None:
            report |= {"target": target, "step": cost._asdict()}
        click.echo(to_json(report), nl=False)
        return 0
    click.echo(f"image  {width}x{height}" + (f", {batch} at once" if batch > 1 else ""))
    pairs = f" ({result.history_size} pairs of L-BFGS)" if result.history_size else ""
    click.echo(f"needed   {memory.gigabytes(result.needed)}{pairs}")
    if cost is not None:
        _print_cost(cost, target)
    if result.free is not None:
        _print_free(result, recipe)
    return 0


def _print_cost(cost: "StepCost", target: str | None) -> None:
    """Print the cost of a step on an accelerator."""
    from jaxstyle.engine.memory import gigabytes

    click.echo(f"step     {cost.flops / 1e9:.3g} GFLOP, {gigabytes(cost.bytes)} moved")
    click.echo(
        f"         at least {1e3 * cost.seconds:.2g} ms on {target}, by its published peaks; "
        "real steps take longer"
    )


def _print_free(result: "Plan", recipe: Recipe) -> None:
    """Print the free memory, the largest size that fits, and advice if the run does not fit."""
    from jaxstyle.engine.memory import gigabytes
    from jaxstyle.engine.planning import advice

    assert result.free is not None
    click.echo(f"free     {gigabytes(result.free)}")
    largest = "none" if result.largest is None else f"--size {result.largest}"
    if result.largest and result.history_size and recipe.history_size is None:
        largest += f" ({MIN_HISTORY_SIZE} pairs)"
    click.echo(f"largest  {largest}")
    if not result.fits:
        click.echo(f"It does not fit: {advice(result, recipe)}.")
