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
from jaxstyle.config.accelerators import ACCELERATORS, Accelerator
from jaxstyle.config.defaults import MIN_HISTORY_SIZE
from jaxstyle.config.recipe import Recipe
from jaxstyle.errors import JaxstyleError

if TYPE_CHECKING:
    from jaxstyle.engine.planning import Plan
    from jaxstyle.engine.roofline import StepCost
    from jaxstyle.nn.network import Network


@click.command(cls=GroupedCommand)
@click.option(
    "--content", type=IMAGE, help="Content image, for its proportions; default: a square."
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
    "--batch",
    type=int,
    default=1,
    metavar="K",
    show_default=True,
    help="Number of images in one program.",
)
@click.option(
    "--target",
    type=click.Choice(list(ACCELERATORS)),
    help="Accelerator to plan for instead of the device of this machine; also print the least time "
    "of a step, computed from the accelerator's published peak rates.",
)
@bounds_options
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
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
    """Print the memory that a run needs, and the largest size that fits.

    The program of `stylize` is compiled for --size but not run, which takes seconds at any size.
    """
    recipe = build_recipe(preset_name, flags)
    check_batch(batch)

    from rich.console import Console

    from jaxstyle.cli.devices import enable_compilation_cache
    from jaxstyle.cli.inputs import tell_weights
    from jaxstyle.engine import planning
    from jaxstyle.provenance.report import to_json
    from jaxstyle.weights import load_network

    enable_compilation_cache()
    network = load_network(weights_name)
    height = width = recipe.size
    if content is not None:
        limits = bounds(max_pixels, first_frame)
        height, width = _output_size(content, recipe, asked=flags["size"], **limits)
    elif not recipe.size:
        raise JaxstyleError(
            "--size: 0 keeps the size of the content image; give --content or a size above 0"
        )
    accelerator = ACCELERATORS[target] if target else None
    with errors_by_flag(), Console(stderr=True).status("compiling …"):
        result = planning.plan(
            height, width, recipe=recipe, network=network, batch=batch,
            free=accelerator and accelerator.memory, accelerator=accelerator,
        )  # fmt: skip
        cost = accelerator and _step_cost(result, recipe, network, accelerator)
    tell_weights(weights_name)
    if as_json:
        report = {**result._asdict(), "fits": result.fits}
        if cost is not None:
            report |= {"target": target, "step": cost._asdict()}
        click.echo(to_json(report), nl=False)
    else:
        _print(result, recipe, cost, target)
    return 0


def _output_size(
    content: Path, recipe: Recipe, *, asked: int | None, **limits: Any
) -> tuple[int, int]:
    """Return height and width of the output for a content image.

    Prints a notice if the image is smaller than `asked`, the value of `--size`.
    """
    from jaxstyle import images
    from jaxstyle.engine.sizes import not_enlarged_notice, output_size

    shape = images.load_image(content, argument="--content", **limits).shape
    size = output_size(shape[0], shape[1], recipe)
    if notice := not_enlarged_notice(shape, asked, recipe):
        tell(notice)
    return size


def _step_cost(
    result: "Plan", recipe: Recipe, network: "Network", accelerator: Accelerator
) -> "StepCost":
    """Return the cost of a step of a planned run on an accelerator."""
    from jaxstyle.engine.memory import problem_of_shapes, resolved_for_size
    from jaxstyle.engine.roofline import step_cost

    size = result.height, result.width
    last = resolved_for_size(recipe, network, *size)
    problem = problem_of_shapes(*size, recipe=last, network=network, batch=result.batch)
    return step_cost(problem, accelerator)


def _print(result: "Plan", recipe: Recipe, cost: "StepCost | None", target: str | None) -> None:
    """Print a plan, and the cost of a step on the accelerator `target` if there is one."""
    from jaxstyle.engine.memory import gigabytes

    at_once = f", {result.batch} at once" if result.batch > 1 else ""
    click.echo(f"image  {result.width}x{result.height}{at_once}")
    pairs = f" ({result.history_size} pairs of L-BFGS)" if result.history_size else ""
    click.echo(f"needed   {gigabytes(result.needed)}{pairs}")
    if cost is not None:
        _print_cost(cost, target)
    if result.free is not None:
        _print_free(result, recipe)


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
