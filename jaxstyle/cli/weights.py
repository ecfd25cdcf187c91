"""`jaxstyle weights`: list, fetch, verify, convert and find networks."""

import shutil
import sys
import textwrap
from pathlib import Path

import click

from jaxstyle.config.choices import CONVENTIONS
from jaxstyle.config.layers import PADDINGS, TOPOLOGIES


@click.group()
def weights() -> None:
    """List, download, verify and convert networks."""


@weights.command("list")
def list_() -> int:
    """List all known networks, and where each of them is."""
    from jaxstyle.weights import cache_folder, describe

    width = min(shutil.get_terminal_size().columns, 100)
    for row in describe():
        size = f"{row.size / 1e6:.0f} MB" if row.size else ""
        click.echo(f"{row.name:22} {row.network:8} {row.where:14} {size:>7}".rstrip())
        more = "; ".join(
            text for text in (row.note, row.license and f"license: {row.license}") if text
        )
        if more:
            click.echo(textwrap.fill(more, width, initial_indent="    ", subsequent_indent="    "))
    click.echo(f"\ncache folder: {cache_folder()}")
    return 0


@weights.command()
@click.argument("name")
@click.option("--quiet", is_flag=True, help="Show no progress.")
def fetch(name: str, quiet: bool) -> int:
    """Download the network NAME, check its pinned digest and convert it."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

    from jaxstyle.cli.devices import use_cpu
    from jaxstyle.weights import fetch as fetch_network

    use_cpu()
    hidden = quiet or not sys.stderr.isatty()
    with Progress(
        "[progress.description]{task.description}",
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        # Older versions of rich end a disabled bar with an empty line.
        console=Console(stderr=True, quiet=hidden),
        disable=hidden,
    ) as bar:
        task = bar.add_task(name, total=None)

        def show(received: int, total: int | None) -> None:
            bar.update(task, completed=received, total=total)

        path = fetch_network(name, progress=show)
    click.echo(path)
    return 0


@weights.command()
@click.argument("name", required=False)
def verify(name: str | None) -> int:
    """Check the digest of the network NAME, or of every installed network."""
    from jaxstyle.cli.devices import use_cpu
    from jaxstyle.weights import verify as verify_networks

    use_cpu()
    for checked, digest in verify_networks(name).items():
        click.echo(f"{checked}: good, {digest}")
    return 0


@weights.command()
@click.argument("name")
def path(name: str) -> int:
    """Print the path of the network NAME."""
    from jaxstyle.weights import path as path_of

    click.echo(path_of(name))
    return 0


@weights.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FILE.safetensors",
    help="Converted file to write.",
)
@click.option(
    "--network",
    type=click.Choice(sorted(TOPOLOGIES)),
    help="Architecture; default: found from the layers.",
)
@click.option(
    "--convention",
    type=click.Choice(sorted(CONVENTIONS)),
    help="Format of the network's input: caffe (BGR from 0 to 255, minus the mean) or torchvision "
    "(RGB from 0 to 1, normalized by mean and standard deviation).",
)
@click.option(
    "--padding",
    type=click.Choice(PADDINGS),
    help="Padding of the convolutions; most networks have zeros.",
)
@click.option(
    "--normalised",
    "normalized",
    is_flag=True,
    help="Declare that the mean activation of every filter is 1, as in Gatys's VGG-19; the default "
    "weights of the losses depend on it.",
)
@click.option(
    "--trust-source",
    is_flag=True,
    help="Open an .h5 or .mat file although its digest is not in `jaxstyle weights list`.",
)
def convert(
    source: Path,
    output: Path,
    network: str | None,
    convention: str | None,
    padding: str | None,
    normalized: bool,
    trust_source: bool,
) -> int:
    """Convert a network to this project's .safetensors format.

    SOURCE is a .pth, .h5, .mat, .npz or .safetensors file.
    """
    from jaxstyle.cli.devices import use_cpu
    from jaxstyle.files import check_writable
    from jaxstyle.weights import convert as convert_file
    from jaxstyle.weights import save_network

    use_cpu()
    check_writable(output, argument="-o")
    converted = convert_file(
        source,
        network=network,
        convention=convention,
        padding=padding,
        normalized=normalized,
        trust_source=trust_source,
    )
    save_network(converted, output)
    click.echo(
        f"{output}: {converted.topology}, {converted.layers[0]} to {converted.layers[-1]}, "
        f"{converted.digest}"
    )
    return 0
