"""`jaxstyle stylize FOLDER STYLE … -o FOLDER`: every image of a folder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxstyle.cli.streams import tell
from jaxstyle.errors import JaxstyleError
from jaxstyle.monitor.interrupts import INTERRUPTED, TERMINATED

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".avif")
ONE_IMAGE = ("batch", "save_every", "checkpoint", "resume", "earlier", "report", "port")
"""Options of `stylize` that name files or pages of one run."""


def stylize_folder(
    folder: Path, output: Path, stylize_one: Callable[[Path, Path], int], **options: Any
) -> int:
    """Stylize each image of a folder into another; images that are there already are kept.

    Images of one size share their compiled programs. Output names are the inputs' with `.png`.

    Args:
      folder: its files with an image's ending are read, in the order of their names.
      output: folder to write to; made if it is not there.
      stylize_one: stylizes one file into another and returns an exit code.
      options: those of `ONE_IMAGE`, as they were given.

    Returns:
      0 if all images are there, 2 if some failed, or the code of a signal that ended the run.

    Raises:
      JaxstyleError: an option that only works with one image, a folder without images, or names
        that would be written to one file.
    """
    for name, value in options.items():
        if value not in (None, 1):
            flag = {"earlier": "from", "port": "serve"}.get(name, name).replace("_", "-")
            raise JaxstyleError(f"--{flag}: works with one image; {folder} is a folder of them")
    pairs = _outputs(folder, output)
    failed = []
    for number, (file, target) in enumerate(pairs, start=1):
        counted = f"[{number}/{len(pairs)}] {file.name}"
        if target.exists():
            tell(f"{counted}: {target} is there already")
            continue
        tell(counted)
        try:
            code = stylize_one(file, target)
        except JaxstyleError as error:
            tell(f"{file}: {error}", "warning")
            failed.append(file.name)
            continue
        if code in (INTERRUPTED, TERMINATED):
            # The image of a stopped run would count as done.
            target.unlink(missing_ok=True)
            return code
        if code:
            failed.append(file.name)
    if failed:
        raise JaxstyleError(
            f"CONTENT: {len(failed)} of {len(pairs)} images failed: {', '.join(failed)}; "
            f"the others are in {output}"
        )
    return 0


def _outputs(folder: Path, output: Path) -> list[tuple[Path, Path]]:
    """Return each image of a folder with the file that it is written to."""
    files = sorted(f for f in folder.iterdir() if f.suffix.lower() in ENDINGS and f.is_file())
    if not files:
        raise JaxstyleError(
            f"CONTENT: {folder} has no image; give a folder with {', '.join(ENDINGS)}"
        )
    if output.exists() and not output.is_dir():
        raise JaxstyleError(f"-o: {output} is a file; give a folder for the images of {folder}")
    if output.resolve() == folder.resolve():
        raise JaxstyleError(f"-o: {output} is the folder of CONTENT; choose another")
    names: dict[str, Path] = {}
    for file in files:
        name = file.with_suffix(".png").name
        if name in names:
            raise JaxstyleError(
                f"CONTENT: {names[name]} and {file} would both be written to {name}; rename one"
            )
        names[name] = file
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise JaxstyleError(f"-o: {output} cannot be made: {error.strerror}") from None
    return [(file, output / name) for name, file in names.items()]
