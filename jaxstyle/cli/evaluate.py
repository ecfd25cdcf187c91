"""`jaxstyle evaluate`: the objective's terms for any image."""

import dataclasses
from pathlib import Path
from typing import Any

import click

from jaxstyle.cli.help import GroupedCommand
from jaxstyle.cli.options import (
    IMAGE,
    OBJECTIVE,
    bounds,
    bounds_options,
    build_recipe,
    errors_by_flag,
    preset_option,
    recipe_options,
    weights_option,
)
from jaxstyle.cli.streams import tell


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
@click.option(
    "--metrics",
    "with_metrics",
    is_flag=True,
    help="Also numbers for quality, which do not depend on the objective, beside those of the "
    "unchanged photograph and of the painting.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def evaluate(
    image: Path,
    content: Path,
    styles: tuple[Path, ...],
    preset_name: str | None,
    weights_name: str,
    max_pixels: int | None,
    first_frame: bool,
    with_metrics: bool,
    as_json: bool,
    **flags: Any,
) -> int:
    """Score IMAGE, by any program, for its content and style.

    --size bounds the style image here (0: as it is), by default at what IMAGE was made with if it
    says so; IMAGE is taken as it is.
    """
    recipe = build_recipe(preset_name, flags)

    from jaxstyle import images
    from jaxstyle.api import measure, score
    from jaxstyle.cli.devices import enable_compilation_cache
    from jaxstyle.cli.inputs import tell_weights
    from jaxstyle.config.presets import weights_notice
    from jaxstyle.files import StrPath
    from jaxstyle.provenance.inputs import InputImage, Inputs
    from jaxstyle.provenance.record import size_made_at
    from jaxstyle.provenance.report import layers_report, terms_report, to_json, weights_report
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

    with errors_by_flag():
        inputs = Inputs.read(content, styles, recipe, load)
        pixels = images.load_image(image, argument="IMAGE", **limits)
        given = inputs.content.pixels, [style.pixels for style in inputs.styles]
        scored = score(pixels, *given, recipe=recipe, network=network, masks=inputs.arrays)
        rows = {}
        if with_metrics:
            compared = {"image": pixels, "content": given[0], "style": given[1][0]}
            for name, one in compared.items():
                resized = images.resize(one, *pixels.shape[:2])
                numbers = measure(resized, *given, recipe=recipe, network=network)
                rows[name] = numbers._asdict()
    tell_weights(weights_name)
    for notice in (weights_notice(preset_name, network.name), *notices):
        if notice:
            tell(notice)
    report = {
        "loss": scored.loss,
        "terms": terms_report(scored.terms),
        "layers": layers_report(scored.layers),
        "weights": weights_report(network),
        "recipe": scored.recipe.as_dict(),
    }
    if not as_json:
        _print(report, rows)
        return 0
    if rows:
        mine, *others = rows
        report["metrics"] = rows[mine]
        report["references"] = {name: rows[name] for name in others}
    click.echo(to_json(report), nl=False)
    return 0


def _print(report: dict[str, Any], rows: dict[str, dict[str, float]]) -> None:
    """Print the terms, their parts by layer, and a table of metrics with one column per image."""
    click.echo(f"loss     {report['loss']:.6g}")
    for name, value in report["terms"].items():
        click.echo(f"{name:8} {value:.6g}")
        for layer, part in report["layers"].get(name, {}).items():
            click.echo(f"  {layer:8} {part:.6g}")
    if rows:
        click.echo("\n" + " " * 18 + "".join(f"{name:>9}" for name in rows))
        for metric in rows["image"]:
            values = "".join(f"{row[metric]:9.4f}" for row in rows.values())
            click.echo(f"{metric:18}{values}")
