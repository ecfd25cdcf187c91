"""`jaxstyle stylize`: stylize the image in a file."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from jaxstyle.cli.help import GroupedCommand
from jaxstyle.cli.options import (
    IMAGE,
    bounds_options,
    build_recipe,
    check_batch,
    devices_option,
    preset_option,
    recipe_options,
    serve_option,
    weights_option,
)
from jaxstyle.cli.waiting import Waiting
from jaxstyle.config.recipe import Recipe
from jaxstyle.errors import JaxstyleError

if TYPE_CHECKING:
    from jaxstyle.cli.repeat import Repeated
    from jaxstyle.provenance.checkpoint import Checkpoint
    from jaxstyle.provenance.inputs import InputImage


class Options(NamedTuple):
    """The arguments of the command that are not settings of the recipe.

    Those with a default are not arguments of `jaxstyle texture`.
    """

    styles: tuple[Path, ...]
    output: Path
    weights_name: str
    max_pixels: int | None
    first_frame: bool
    report: Path | None
    quiet: bool
    content: Path | None = None
    earlier: Path | None = None
    preset_name: str | None = None
    batch: int | None = None
    save_every: int | None = None
    checkpoint: Path | None = None
    checkpoint_every: int | None = None
    resume: Path | None = None
    bit_depth: int = 8
    devices: int | str | None = None
    log_json: bool = False
    port: int | None = None


class Request(NamedTuple):
    """The run to do: the arguments, completed from an earlier output or a checkpoint."""

    content: "Path | InputImage"
    """File of the content image, or the gray image of a texture."""
    styles: tuple[Path, ...]
    recipe: Recipe
    weights_name: str
    batch: int = 1
    until: int | None = None
    """Step to stop after; the last step if None."""
    repeated: "Repeated | None" = None
    """The run of the earlier output or of the checkpoint."""
    resumed: "Checkpoint | None" = None


ONE_IMAGE = (
    "batch", "save_every", "checkpoint", "checkpoint_every", "resume", "earlier", "report", "port",
)  # fmt: skip
"""Options that do not work with a folder of images."""


@click.command(cls=GroupedCommand)
@click.argument("content", type=IMAGE, required=False, metavar="CONTENT")
@click.argument("styles", type=IMAGE, nargs=-1, metavar="STYLE [STYLE ...]")
@click.option("-o", "--output", type=IMAGE, required=True, help="Image to write.")
@click.option(
    "--from",
    "earlier",
    type=IMAGE,
    metavar="PNG",
    help="Repeat the run that made this image, with its input images, settings, seed and weights. "
    "Other arguments override these.",
)
@preset_option
@weights_option
@recipe_options()
@click.option(
    "--batch",
    type=int,
    metavar="K",
    help="Number of initial images, with seeds N to N+K-1, to optimize in one program. "
    "Output names get -000 … before the extension.  [default: 1]",
)
@click.option(
    "--save-every",
    type=int,
    metavar="K",
    help="Also write the image every K steps; -step000K is inserted before the extension.",
)
@click.option(
    "--checkpoint",
    type=IMAGE,
    metavar="FILE",
    help="Save the state of the run to FILE, for --resume: every 30 seconds, at the end, and after "
    "Ctrl-C or SIGTERM.",
)
@click.option(
    "--checkpoint-every",
    type=int,
    metavar="K",
    help="Save the checkpoint every K steps instead of every 30 seconds.",
)
@click.option(
    "--resume",
    type=IMAGE,
    metavar="FILE",
    help="Resume a run from its checkpoint, with the same result as without the interruption. The "
    "images and settings are those of the checkpoint; only --steps can be raised.",
)
@click.option(
    "--bit-depth",
    type=int,
    default=8,
    metavar="N",
    show_default=True,
    help="Bits per channel of the output: 8, or 16 for .png and .tiff.",
)
@bounds_options
@devices_option
@click.option("--report", type=IMAGE, metavar="FILE", help="Write a report in JSON.")
@click.option("--quiet", is_flag=True, help="Show no progress.")
@click.option(
    "--log-json",
    is_flag=True,
    help="Print progress to standard error as lines of JSON, for other programs.",
)
@serve_option
def stylize(**given: Any) -> int:
    """Stylize a photograph in the style of a painting.

    CONTENT is the photograph and STYLE the painting; several styles are blended. If CONTENT and
    OUTPUT are folders, every image of CONTENT is stylized; existing outputs are kept, and images of
    the same size run in batches.

    Ctrl-C, SIGTERM and the stop button of the --serve page end the run after the current steps; the
    best image so far is saved.
    """
    options = Options(**{name: given.pop(name) for name in Options._fields})
    if options.content is not None and options.content.is_dir():
        return _stylize_folder(options, flags=given)
    request = _complete(options, flags=given)
    waiting = Waiting("preparing", quiet=options.quiet or options.log_json)
    # Imported here, so that usage errors and --help do not wait for the import of JAX.
    from jaxstyle.cli.run import run

    return run(options, request, flags=given, waiting=waiting)


def _stylize_folder(options: Options, *, flags: dict[str, Any]) -> int:
    """Stylize all images of the folder CONTENT."""
    for name in ONE_IMAGE:
        if getattr(options, name) not in (None, 1):
            flag = {"earlier": "from", "port": "serve"}.get(name, name).replace("_", "-")
            raise JaxstyleError(
                f"--{flag}: works with one image only, and CONTENT {options.content} is a folder; "
                "omit the flag or give one image"
            )
    if not options.styles:
        raise click.UsageError("Missing argument 'STYLE [STYLE ...]'.")
    recipe = build_recipe(options.preset_name, flags)
    waiting = Waiting("preparing", quiet=options.quiet or options.log_json)
    from jaxstyle.cli.folder import stylize_folder

    return stylize_folder(options, recipe, flags=flags, waiting=waiting)


def _complete(options: Options, *, flags: dict[str, Any]) -> Request:
    """Build the request from the arguments and the file of `--from` or `--resume`.

    Args:
      options: arguments of the command.
      flags: settings given on the command line; None where not given.

    Raises:
      JaxstyleError: a value is out of range, or a file is invalid.
      click.UsageError: the content image or the style image is missing.
    """
    from jaxstyle.cli.repeat import find_earlier

    repeated, resumed = find_earlier(
        preset_name=options.preset_name, earlier=options.earlier, resume=options.resume,
        weights_name=options.weights_name,
    )  # fmt: skip
    if repeated is not None:
        repeated = repeated.with_defaults_unset(_changes(options, flags))
    recipe = build_recipe(repeated.recipe if repeated else options.preset_name, flags)
    content, styles, weights_name = options.content, options.styles, options.weights_name
    batch, until = options.batch, None
    if repeated is not None:
        content, styles = content or repeated.content, styles or repeated.styles
        weights_name = repeated.weights_name
        # New steps or scales are run to the end.
        if flags["steps"] is None and flags["scales"] is None:
            until = repeated.until
    if resumed is not None and batch is None:
        batch = resumed.elements
    if content is None or not styles:
        missing = "CONTENT" if content is None else "STYLE [STYLE ...]"
        raise click.UsageError(f"Missing argument '{missing}'.")
    intervals = {
        "--save-every": options.save_every, "--checkpoint-every": options.checkpoint_every,
    }  # fmt: skip
    for flag, value in intervals.items():
        if value is not None and value < 1:
            raise JaxstyleError(f"{flag}: {value} is out of range; give a whole number from 1")
    batch = 1 if batch is None else batch
    check_batch(batch)
    return Request(content, styles, recipe, weights_name, batch, until, repeated, resumed)


def _changes(options: Options, flags: dict[str, Any]) -> Iterator[str]:
    """Yield the settings and inputs that replace those of an earlier run.

    They are named as in `DEPENDENT_DEFAULTS`.
    """
    if options.weights_name != "auto":
        yield "weights"
    if options.content is not None:
        yield "content"
    if options.styles:
        yield "styles"
    yield from (name for name, value in flags.items() if value is not None)
