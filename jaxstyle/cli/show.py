"""`jaxstyle show`: how an image was made, from the record inside it."""

import contextlib
import dataclasses
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jaxstyle.cli.options import IMAGE
from jaxstyle.config.recipe import Recipe
from jaxstyle.errors import JaxstyleError

if TYPE_CHECKING:
    from jaxstyle.provenance.record import Record


@click.command()
@click.argument("image", type=IMAGE, metavar="IMAGE.png")
@click.option("--all", "everything", is_flag=True, help="Print all settings, defaults included.")
@click.option("--json", "as_json", is_flag=True, help="Print the whole record as JSON.")
def show(image: Path, everything: bool, as_json: bool) -> int:
    """Print how an image was made: files, losses, settings, versions.

    Settings are printed if they differ from their defaults. The last line is the command that made
    the image; `jaxstyle stylize --from IMAGE.png -o COPY.png` makes it again.
    """
    from jaxstyle.cli.devices import use_cpu
    from jaxstyle.provenance.record import read_record
    from jaxstyle.provenance.report import to_json
    from jaxstyle.provenance.unresolved import WEIGHTS

    use_cpu()
    record = read_record(image, argument="IMAGE")
    if as_json:
        click.echo(to_json(record.everything), nl=False)
        return 0
    # The network's own name, if it differs from the requested one.
    name = "" if record.weights_name == record.weights else f" ({record.weights_name})"
    changed = dict(changed_settings(record))
    settings = resolved = record.recipe.as_dict()
    if not everything:
        settings = resolved | {name: changed[name] for name in WEIGHTS if name in changed}
    rows = [
        *((name.rstrip(" 123456789"), file.path) for name, file in record.files.items() if file),
        ("weights", f"{record.weights}{name}, {record.weights_sha256[:12]}"),
        ("loss", _number(record.everything["loss"])),
        *((f"loss_{term}", _number(value)) for term, value in record.terms.items()),
        # Also the weights that were chosen for the images and the network.
        *((f"weight of {t}", _number(resolved[f"{t}_weight"])) for t in ("content", "style", "tv")),
        ("steps done", record.steps),
        *((name, _plain(v)) for name, v in settings.items() if everything or name in changed),
        *record.environment.items(),
        ("command", command_line(record)),
    ]
    for name, value in rows:
        # Records and file names are untrusted and may contain terminal control codes.
        text = str(value)
        click.echo(f"{name:18} {text if text.isprintable() else ascii(text)}")
    return 0


def changed_settings(record: "Record") -> Iterator[tuple[str, Any]]:
    """Yield the settings that differ from the default recipe for these images and weights.

    Settings that depend on the weights are included if the weights are not on this machine.
    """
    from jaxstyle.engine.sizes import resolve_scales
    from jaxstyle.losses.resolve import resolve_recipe
    from jaxstyle.provenance.unresolved import WEIGHTS
    from jaxstyle.weights import load_network

    recipe = record.recipe
    kept = {name: getattr(recipe, name) for name in _DECIDING}
    base = Recipe(**kept)
    images = record.everything["images"]
    content, *styles = (_shape(image) for image in (images["content"], *images["styles"]))
    if content and all(styles):
        base = resolve_scales(base, content, [style for style in styles if style])
    deciding = _DECIDING
    with contextlib.suppress(JaxstyleError):
        network = load_network(record.weights)
        try:
            base = resolve_recipe(base, network)
        except JaxstyleError:
            # The network lacks a default layer.
            deciding = (*_DECIDING, *_LAYERS)
            layers = {name: getattr(recipe, name) for name in _LAYERS}
            base = resolve_recipe(dataclasses.replace(base, **layers), network)
    # The default style weight depends on the images, so requested values are compared.
    unresolved = {name: record.unresolved[name] for name in WEIGHTS if name in record.unresolved}
    for field in dataclasses.fields(Recipe):
        if field.name in unresolved:
            usual, value = field.default, unresolved[field.name]
        else:
            usual = field.default if field.name in deciding else getattr(base, field.name)
            value = getattr(recipe, field.name)
        if value != usual:
            yield field.name, value


_DECIDING: tuple[str, ...] = (
    "style_loss", "variation", "optimizer", "size", "upscale", "scale_ratio", "scale_side",
    "style_scale",
)  # fmt: skip
"""Settings on which the defaults of others depend."""
_LAYERS = ("content_layers", "style_layers")


def command_line(record: "Record") -> str:
    """Return the command that reproduces the image of a record as `OUT.png`."""
    words = ["jaxstyle", "stylize", str(record.content.path)]
    words += [str(style.path) for style in record.styles]
    words += ["-o", "OUT.png"]
    if record.weights != "auto":
        words += ["--weights", record.weights]
    for name, value in changed_settings(record):
        flag = "--" + name.replace("_", "-")
        if name == "mask":
            for pair in value:
                words += [flag, *pair]
        elif isinstance(value, bool):
            words += [flag] if value else [flag.replace("--", "--no-", 1)]
        elif value is not None:
            words += [flag, _as_word(name, value)]
    return shlex.join(words)


def _as_word(name: str, value: Any) -> str:
    if name.endswith("_layers"):
        return ",".join(f"{layer}:{weight!r}" for layer, weight in value)
    if isinstance(value, tuple):
        return ",".join(repr(x) for x in value)
    return repr(value) if isinstance(value, float) else str(value)


def _shape(image: Any) -> tuple[int, int] | None:
    """Return the height and width of an image of a record, or None if they are missing."""
    match image:
        case {"size": [int(width), int(height)]} if width > 0 and height > 0:
            return height, width
    return None


def _number(value: object) -> object:
    return f"{value:.6g}" if isinstance(value, float) else value


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return ", ".join(k if v == 1 else f"{k}:{v:g}" for k, v in value.items())
    if isinstance(value, list):
        return ", ".join(" ".join(v) if isinstance(v, list) else f"{v:g}" for v in value) or None
    return value
