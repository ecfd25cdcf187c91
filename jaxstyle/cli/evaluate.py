"""`jaxstyle evaluate`: the objective's terms for any image."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from jaxstyle.config.recipe import Recipe

if TYPE_CHECKING:
    from jaxstyle.api import Score
    from jaxstyle.files import StrPath
    from jaxstyle.images import Array
    from jaxstyle.nn.network import Network
    from jaxstyle.provenance.inputs import Inputs

Rows = dict[str, dict[str, float]]
"""Metrics by name, of each image by its name."""


@click.command(cls=GroupedCommand)
@click.argument("image", type=IMAGE)
@click.option(
    "--content",
    type=IMAGE,
    required=True,
    help="Content image; it is resized to the size of IMAGE.",
)
@click.option(
    "--style",
    "styles",
    type=IMAGE,
    required=True,
    multiple=True,
    help="Style image; can be given several times.",
)
@preset_option
@weights_option
@recipe_options(OBJECTIVE)
@bounds_options
@click.option(
    "--metrics",
    "with_metrics",
    is_flag=True,
    help="Also print metrics of quality that do not depend on the objective, for IMAGE, the "
    "photograph and the painting.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
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
    """Compute the losses of an image, whichever program made it.

    IMAGE keeps its size. --size limits the longest side of the style images (0: no limit); its
    default is the --size that IMAGE was made with, if IMAGE has a record of it.
    """
    recipe = build_recipe(preset_name, flags)

    from jaxstyle.api import score
    from jaxstyle.cli.devices import enable_compilation_cache
    from jaxstyle.cli.inputs import tell_weights
    from jaxstyle.config.presets import weights_notice
    from jaxstyle.provenance.record import size_made_at
    from jaxstyle.provenance.report import to_json
    from jaxstyle.weights import load_network

    made_at = size_made_at(image) if flags["size"] is None else None
    notices = []
    if made_at is not None and made_at != recipe.size:
        recipe = dataclasses.replace(recipe, size=made_at)
        notices.append(f"style images have --size {made_at}, with which {image} was made")
    enable_compilation_cache()
    network = load_network(weights_name)
    limits = bounds(max_pixels, first_frame)
    with errors_by_flag():
        pixels, inputs = _read(image, content, styles, recipe, **limits)
        given = inputs.content.pixels, [style.pixels for style in inputs.styles]
        scored = score(pixels, *given, recipe=recipe, network=network, masks=inputs.arrays)
        rows = _metrics(pixels, *given, recipe, network) if with_metrics else {}
    tell_weights(weights_name)
    for notice in (weights_notice(preset_name, network.name), *notices):
        if notice:
            tell(notice)
    report = _report(scored, network, rows)
    if as_json:
        click.echo(to_json(report), nl=False)
    else:
        _print(report, rows)
    return 0


def _read(
    image: Path, content: Path, styles: Sequence[Path], recipe: Recipe, **limits: Any
) -> "tuple[Array, Inputs]":
    """Return the image to score, and the images that it is compared with.

    Args:
      image: file of the image to score.
      content: file of the content image.
      styles: files of the style images.
      recipe: settings, which may name masks.
      limits: keyword arguments of `images.load_image`.
    """
    from jaxstyle import images
    from jaxstyle.provenance.inputs import InputImage, Inputs

    def load(key: str, file: "StrPath") -> InputImage:
        pixels = images.load_image(file, argument="--" + key.replace("_", "-"), **limits)
        return InputImage.of(Path(file), pixels)

    inputs = Inputs.read(content, styles, recipe, load)
    return images.load_image(image, argument="IMAGE", **limits), inputs


def _metrics(
    image: "Array", content: "Array", styles: "list[Array]", recipe: Recipe, network: "Network"
) -> Rows:
    """Return the metrics of the image, and for comparison of the content and the first style."""
    from jaxstyle import images
    from jaxstyle.api import measure

    rows = {}
    for name, one in {"image": image, "content": content, "style": styles[0]}.items():
        resized = images.resize(one, *image.shape[:2])
        metrics = measure(resized, content, styles, recipe=recipe, network=network)
        rows[name] = metrics._asdict()
    return rows


def _report(scored: "Score", network: "Network", rows: Rows) -> dict[str, Any]:
    """Return the result as values of JSON."""
    from jaxstyle.provenance.report import layers_report, terms_report, weights_report

    report = {
        "loss": scored.loss,
        "terms": terms_report(scored.terms),
        "layers": layers_report(scored.layers),
        "weights": weights_report(network),
        "recipe": scored.recipe.as_dict(),
    }
    if rows:
        mine, *others = rows
        report["metrics"] = rows[mine]
        report["references"] = {name: rows[name] for name in others}
    return report


def _print(report: dict[str, Any], rows: Rows) -> None:
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
