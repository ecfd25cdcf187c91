"""`jaxstyle sample`: a photograph and a painting to begin with."""

from pathlib import Path

import click

from jaxstyle.cli.options import IMAGE
from jaxstyle.cli.streams import tell
from jaxstyle.errors import JaxstyleError
from jaxstyle.images.painted import PALETTES, paint
from jaxstyle.images.samples import PHOTOGRAPHS, load_photograph


@click.command
@click.argument("photo", type=IMAGE, metavar="PHOTO")
@click.argument("painting", type=IMAGE, metavar="PAINTING")
@click.option(
    "--photograph", type=click.Choice(tuple(PHOTOGRAPHS)), default="cat", show_default=True,
    help="Photograph of scikit-image.",
)  # fmt: skip
@click.option(
    "--palette", type=click.Choice(tuple(PALETTES)), default="night", show_default=True,
    help="Colors of the painting.",
)  # fmt: skip
@click.option(
    "--seed", default=0, metavar="N", show_default=True, help="Random seed of the painting."
)
@click.option(
    "--size", type=click.IntRange(16, 2048), default=512, show_default=True,
    metavar="N",
    help="Side of the painting in pixels.",
)  # fmt: skip
@click.option("--overwrite", is_flag=True, help="Replace files that exist.")
def sample(
    photo: Path,
    painting: Path,
    photograph: str,
    palette: str,
    seed: int,
    size: int,
    overwrite: bool,
) -> int:
    """Write a sample photograph and painting to try the commands.

    The photograph is one of scikit-image (`pip install 'jaxstyle[demo]'`); the program draws the
    painting. Nothing is downloaded.
    """
    from jaxstyle import images

    for path, argument in ((photo, "PHOTO"), (painting, "PAINTING")):
        images.check_output(path, argument=argument)
        if path.exists() and not overwrite:
            raise JaxstyleError(
                f"{argument}: {path} exists; give another name, or --overwrite to replace it"
            )
    images.save_image(photo, load_photograph(photograph), argument="PHOTO")
    images.save_image(painting, paint(size, size, seed=seed, palette=palette), argument="PAINTING")
    tell(f"wrote {photo} ({PHOTOGRAPHS[photograph].credit}) and {painting}")
    return 0
