"""The record of a run inside a PNG: writing, reading and checking."""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jaxstyle import images
from jaxstyle.config.recipe import Recipe
from jaxstyle.errors import JaxstyleError
from jaxstyle.provenance.inputs import named, recipe_files
from jaxstyle.provenance.report import SCHEMA, to_json

KEYWORD = "jaxstyle"
"""Keyword of the PNG's text chunk."""
LONGEST = 1 << 20
"""Largest number of characters that is read; records have a few thousand."""
# Exceptions of `parse_record` for a text that is not a record, besides `JaxstyleError`.
MALFORMED = (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError)


class InputFile(NamedTuple):
    """An image file of a run."""

    path: Path
    """Path of the file, as the user gave it."""
    sha256: str
    """Digest of its bytes, in hexadecimal digits."""


class Record(NamedTuple):
    """A record that was read and checked."""

    recipe: Recipe
    """Resolved settings."""
    unresolved: Mapping[str, Any]
    """Settings before resolving, if they differ from `recipe` (`unresolved_settings`)."""
    steps: int
    """Number of steps; fewer than `recipe.total_steps` after an interruption."""
    content: InputFile
    """Content image."""
    styles: tuple[InputFile, ...]
    """Style images in order."""
    init: InputFile | None
    """Initial image, if it was a file."""
    files: Mapping[str, InputFile | None]
    """All files, including masks, by name (`inputs.named`)."""
    terms: dict[str, float | None]
    """Weighted terms of the loss."""
    weights: str
    """Name or file of the weights, as the user gave it."""
    weights_name: str
    """Name of the network."""
    weights_sha256: str
    """Digest of the network's arrays."""
    environment: Mapping[str, str]
    """Versions and device by name."""
    everything: Mapping[str, Any]
    """The whole record as JSON values, with loss, terms, sizes and versions."""


def as_text(record: Mapping[str, Any]) -> dict[str, str]:
    """Return a record as text chunks of a PNG, an argument of `images.save_image`."""
    return {KEYWORD: to_json(record, indent=None)}


def read_record(path: Path, *, argument: str = "image") -> Record:
    """Read the untrusted record in a PNG.

    Args:
      path: file to read.
      argument: name of the file in error messages.

    Raises:
      JaxstyleError: the file is not an image, or has no record or a damaged one.
    """
    text = images.read_text(path, KEYWORD, argument=argument)
    if text is None:
        raise JaxstyleError(
            f"{argument}: {path} carries no record of how it was made; only PNG files that "
            "jaxstyle wrote do"
        )
    try:
        return parse_record(text)
    except (*MALFORMED, JaxstyleError) as error:
        raise JaxstyleError(
            f"{argument}: the record in {path} is damaged, or of another version ({error}); give "
            "the settings as flags"
        ) from None


def size_made_at(path: Path) -> int | None:
    """Return the size setting from the record of an image; None without a record."""
    try:
        return read_record(path).recipe.size
    except JaxstyleError:
        return None


def parse_record(text: str) -> Record:
    """Return the record in an untrusted text.

    Raises:
      JaxstyleError: a setting of its recipe does not exist or is out of range.
      ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError: the text is
        malformed (`MALFORMED`).
    """
    if len(text) > LONGEST:
        raise ValueError("it is too long")
    return _checked(json.loads(text))


def _checked(values: Any) -> Record:
    if not isinstance(values, dict) or values.get("schema") != SCHEMA:
        raise ValueError(f"not of schema {SCHEMA}")
    inputs, weights, steps = values["images"], values["weights"], values["steps"]
    if type(steps) is not int or not 0 <= steps < 2**31:
        raise ValueError(f"steps are {steps!r}")
    terms = values.get("terms", {})
    for loss in (values["loss"], *terms.values()):
        number = isinstance(loss, int | float) and not isinstance(loss, bool)
        if loss is not None and not (number and math.isfinite(loss)):
            raise ValueError(f"loss is {loss!r}")
    files = {name: file and _input(file) for name, file in named(inputs)}
    recipe = Recipe.from_dict(values["recipe"])
    unresolved = values.get("asked", {})
    # Checks the unresolved settings.
    Recipe.from_dict(values["recipe"] | unresolved)
    paths = {file.path for file in files.values() if file}
    for setting, name in recipe_files(recipe):
        if Path(name) not in paths:
            raise ValueError(f"it has no digest of the {setting} {name!r}")
    return Record(
        recipe=recipe,
        unresolved=unresolved,
        steps=steps,
        content=_input(inputs["content"]),
        styles=tuple(_input(style) for style in inputs["styles"]),
        init=files["init"],
        files=files,
        terms={_string(term): value for term, value in terms.items()},
        weights=_string(weights["given"]),
        weights_name=_string(weights.get("name", weights["given"])),
        weights_sha256=_string(weights["sha256"]),
        environment={_string(k): _string(v) for k, v in values["environment"].items()},
        everything=values,
    )


def _input(values: Any) -> InputFile:
    path = values["path"]
    # It may be invalid UTF-8 or contain line breaks.
    if not isinstance(path, str) or not path or "\0" in path:
        raise ValueError(f"{path!r} is not the name of a file")
    return InputFile(Path(path), _string(values["sha256"]))


def _string(value: Any) -> str:
    # Python decodes bytes that are not UTF-8 to lone surrogates.
    if not isinstance(value, str) or not re.sub("[\udc80-\udcff]", "", value).isprintable():
        raise ValueError(f"{value!r} is not a plain text")
    return value
