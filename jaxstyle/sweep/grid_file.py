"""The grid file: TOML with one value per flag in `[base]` and a list per flag in `[grid]`.

    [base]
    content = "photo.jpg"        # relative to the file's folder
    style = "painting.jpg"       # a list of images is blended
    steps = 200

    [grid]
    style_weight = [1e3, 1e4, 1e5]
    init = ["content", "noise"]

Every combination of the lists is a cell, the last list changing fastest.
"""

import difflib
import itertools
import math
import re
import tomllib
import typing
from collections.abc import Hashable
from pathlib import Path
from typing import Any, NamedTuple

from jaxstyle.config.recipe import Recipe
from jaxstyle.errors import JaxstyleError, shortened
from jaxstyle.files import check_readable, reason, shown

MAX_CELLS = 100_000
# Larger than lists for so many cells.
MAX_BYTES = 1 << 22
IMAGES = ("content", "style")
HINTS = typing.get_type_hints(Recipe)
KEYS = (*IMAGES, "weights", "preset", *HINTS)
"""The keys of a grid file: images, weights, preset and the settings of a recipe."""
Settings = dict[str, Any]


class GridFile(NamedTuple):
    """A grid file, checked without reading its images and weights."""

    path: Path
    """The file."""
    base: Settings
    """Settings that all cells share."""
    axes: dict[str, list[Any]]
    """Values by setting, in the file's order; empty for a grid of one cell."""

    def combinations(self) -> list[Settings]:
        """Return the settings of every cell, base and axes; the last axis changes fastest."""
        return [
            {**self.base, **dict(zip(self.axes, values, strict=True))}
            for values in itertools.product(*self.axes.values())
        ]


def read(path: Path) -> GridFile:
    """Read a grid file.

    Raises:
      JaxstyleError: the file cannot be read or is not TOML, or a key or value is not valid.
    """
    named = shown(path)
    check_readable(path, f"FILE {named}", kind="grid file (TOML)")
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise ValueError(f"it has more than {MAX_BYTES} bytes")
        text = data.decode("utf-8-sig")
    except (OSError, ValueError) as error:
        raise JaxstyleError(
            f"FILE {named} cannot be read: {reason(error)}; name a grid file (TOML, UTF-8)"
        ) from None
    try:
        return parse(text, path)
    except RecursionError:
        raise JaxstyleError(f"FILE {named} is nested too deeply; write plain lists") from None
    except JaxstyleError as error:
        raise JaxstyleError(f"{path}: {error}") from None
    # From the TOML parser, or from Python for a number with too many digits.
    except ValueError as error:
        # As in "C:\\Users": TOML reads escapes between double quotes.
        escapes = any(re.search(r'"[^"]*\\[^"]*"', line) for line in text.splitlines())
        hint = "; put paths with \\ between single quotes" if escapes else "; correct it there"
        raise JaxstyleError(f"FILE {named} is not TOML: {error}{hint}") from None


def parse(text: str, path: Path) -> GridFile:
    """Return the grid file in a text, checked as in `read`."""
    tables = tomllib.loads(text)
    for name, table in tables.items():
        if name not in ("base", "grid") or not isinstance(table, dict):
            hint = " (it belongs in [base])" if name in KEYS else ""
            raise JaxstyleError(
                f"{name}: {shortened(table)} stands outside [base] and [grid]{hint}; put one value "
                "per flag in [base] and a list per flag in [grid]"
            )
    base, grid = tables.get("base", {}), tables.get("grid", {})
    for key, value in base.items():
        _check(f"[base] {key}", key, value)
    # Before every value is checked.
    count = math.prod(len(values) for values in grid.values() if isinstance(values, list))
    if count > MAX_CELLS:
        raise JaxstyleError(
            f"[grid] has {count} combinations; shorten its lists to {MAX_CELLS} at most"
        )
    for key, values in grid.items():
        where = f"[grid] {key}"
        _check_key(where, key)
        if not isinstance(values, list):
            raise JaxstyleError(
                f"{where}: {shortened(values)} is not a list; write {key} = [{shortened(values)}], "
                f"or put {key} in [base]"
            )
        if not values:
            raise JaxstyleError(f"{where}: the list is empty; give at least one value")
        seen = set()
        for value in values:
            _check(where, key, value)
            if (identity := _identity(value)) in seen:
                raise JaxstyleError(f"{where}: {shortened(value)} is listed twice; list it once")
            seen.add(identity)
    for key in IMAGES:
        if key not in base and key not in grid:
            raise JaxstyleError(f'{key}: no {key} image is named; put {key} = "FILE" in [base]')
    # A list overrides the value in [base].
    return GridFile(path, {k: v for k, v in base.items() if k not in grid}, grid)


def _check_key(where: str, key: str) -> None:
    if key in KEYS:
        return
    close = difflib.get_close_matches(key.replace("-", "_"), KEYS, 1)
    way_out = f"did you mean {close[0]}?" if close else f"choose from {', '.join(KEYS)}"
    raise JaxstyleError(f"{where}: there is no such setting in a grid; {way_out}")


def _check(where: str, key: str, value: Any) -> None:
    """Check a single value."""
    _check_key(where, key)
    if key == "style":
        good = _is_text(value) or (
            isinstance(value, list) and value != [] and all(map(_is_text, value))
        )
        wanted = "an image's path, or a list of them to be blended"
    elif key in (*IMAGES, "weights", "preset"):
        good, wanted = _is_text(value), "a text"
        if isinstance(value, list):
            wanted += "; a list of them belongs in [grid]"
    else:
        try:
            Recipe.from_dict({key: value})
        except JaxstyleError as error:
            raise JaxstyleError(f"{where}: {str(error).removeprefix(f'{key}: ')}") from None
        return
    if not good:
        raise JaxstyleError(f"{where}: {shortened(value)} does not fit; give {wanted}")


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value != "" and "\0" not in value


def _identity(value: Any) -> Hashable:
    """Return a key that is equal for equal values: 1 and 1.0 are equal, but 1 and true are not."""
    if isinstance(value, list):
        return ("list", *map(_identity, value))
    if isinstance(value, dict):
        return ("dict", *((key, _identity(value[key])) for key in sorted(value)))
    return ("bool", value) if isinstance(value, bool) else value
