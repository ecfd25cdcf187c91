"""`jaxstyle show`: how an image was made, from the record that it carries."""

from pathlib import Path

import click

from jaxstyle.cli.options import IMAGE


@click.command()
@click.argument("image", type=IMAGE, metavar="PICTURE.png")
@click.option("--json", "as_json", is_flag=True, help="Print the whole record as JSON.")
def show(image: Path, as_json: bool) -> int:
    """Print how IMAGE was made: settings, seed, weights, images, versions.

    `jaxstyle stylize --from PICTURE -o COPY.png` makes it again.
    """
    from jaxstyle.provenance.record import read_record
    from jaxstyle.provenance.report import to_json

    record = read_record(image, argument="PICTURE")
    if as_json:
        click.echo(to_json(record.everything), nl=False)
        return 0
    # What the name that was asked for meant, where it says something else.
    name = "" if record.weights_name == record.weights else f" ({record.weights_name})"
    rows = [
        *((name.rstrip(" 123456789"), file.path) for name, file in record.files.items() if file),
        ("weights", f"{record.weights}{name}, {record.weights_sha256[:12]}"),
        ("loss", record.everything["loss"]),
        *((f"loss_{term}", value) for term, value in record.terms.items()),
        ("steps done", record.steps),
        *((name, _plain(value)) for name, value in record.recipe.as_dict().items()),
        *record.environment.items(),
    ]
    for name, value in rows:
        # A record is anyone's to write, and a file may have any name: no terminal codes.
        text = str(value)
        click.echo(f"{name:18} {text if text.isprintable() else ascii(text)}")
    return 0


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return ", ".join(k if v == 1 else f"{k}:{v:g}" for k, v in value.items())
    if isinstance(value, list):
        return ", ".join(" ".join(v) if isinstance(v, list) else f"{v:g}" for v in value) or None
    return value
