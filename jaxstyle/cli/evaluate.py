"""`jaxstyle evaluate`: the objective's terms for any image."""

import dataclasses
from pathlib import Path
from typing import Any

import click

from jaxstyle.cli.help import GroupedCommand
from jaxstyle.cli.options import (
    IMAGE,
    OBJECTIVE,
    as_flags,
    bounds,
    bounds_options,
    build_recipe,
    preset_option,
    recipe_options,
    weights_option,
)
from jaxstyle.cli.streams import tell
from jaxstyle.errors import JaxstyleError


@click.command(cls=GroupedCommand)
@click.argument("image", type=IMAGE)
@click.option("--content", type=IMAGE, required=True, help="Content image; resized to IMAGE.")
@click.option(
    "--style",
    "styles",
    type=IMAGE,
    required=True,
    multiple=True,
    help="Style image; repeatable.",
)
@preset_option
@weights_option
@recipe_options(OBJECTIVE)
@bounds_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def evaluate(
    image: Path,
    content: Path,
    styles: tuple[Path, ...],
    preset_name: str | None,
    weights_name: str,
    max_pixels: int | None,
    first_frame: bool,
    as_json: bool,
    **flags: Any,
) -> int:
    """Score IMAGE, made by whatever program: how well it keeps a content and a style.

    --size bounds the style image here (0: as it is), by default at what IMAGE was made with if it
    says so; IMAGE is taken as it is.
    """
    recipe = build_recipe(preset_name, flags)

    from jaxstyle import images
    from jaxstyle.api import evaluate as evaluate_image
    from jaxstyle.cli.devices import enable_compilation_cache
    from jaxstyle.cli.inputs import tell_weights
    from jaxstyle.config.presets import weights_notice
    from jaxstyle.files import StrPath
    from jaxstyle.losses.resolve import resolve_recipe
    from jaxstyle.provenance.inputs import InputImage, Inputs
    from jaxstyle.provenance.record import size_made_at
    from jaxstyle.provenance.report import terms_report, to_json, weights_report
    from jaxstyle.weights import load_network

    made_at = size_made_at(image) if flags["size"] is None else None
    notices = []
    if made_at is not None and made_at != recipe.size:
        recipe = dataclasses.replace(recipe, size=made_at)
        notices.append(f"styles are taken at --size {made_at}, as {image} was made")
    enable_compilation_cache()
    network = load_network(weights_name)
    limits = bounds(max_pixels, first_frame)

    def load(key: str, file: StrPath) -> InputImage:
        pixels = images.load_image(file, argument="--" + key.replace("_", "-"), **limits)
        return InputImage.of(Path(file), pixels)

    try:
        inputs = Inputs.read(content, styles, recipe, load)
        loss, terms = evaluate_image(
            images.load_image(image, argument="IMAGE", **limits),
            inputs.content.pixels,
            [style.pixels for style in inputs.styles],
            recipe=recipe,
            network=network,
            masks=inputs.arrays,
        )
    except JaxstyleError as error:
        raise JaxstyleError(as_flags(str(error))) from None
    tell_weights(weights_name)
    for notice in (weights_notice(preset_name, network.name), *notices):
        if notice:
            tell(notice)
    if as_json:
        report = {
            "loss": loss,
            "terms": terms_report(terms),
            "weights": weights_report(network),
            "recipe": resolve_recipe(recipe, network).as_dict(),
        }
        click.echo(to_json(report), nl=False)
    else:
        click.echo(f"loss     {loss:.6g}")
        for name, value in terms_report(terms).items():
            click.echo(f"{name:8} {value:.6g}")
    return 0
