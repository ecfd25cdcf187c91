"""Checks of single settings; errors are one line and name the setting."""

import math
import operator
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxstyle.errors import JaxstyleError, shortened

Check = Callable[[str, Any], Any]
"""`(name of the setting, value) -> value`, converted to a Python type; raises `JaxstyleError`."""

LARGEST = 3e38
"""Largest number of a setting, within the range of float32."""
LARGEST_INTEGER = 2**31 - 1
WHOLE = "-"
"""The whole image, in the place of the file of a mask."""


def number(*, above: float | None = None, high: float = LARGEST) -> Check:
    """Return a check that converts a number to a float.

    Args:
      above: lower bound, exclusive; 0, inclusive, if not given.
      high: upper bound, inclusive.

    Example:
      >>> number(high=1)("noise_blend", "0.5")
      0.5
    """

    def check(name: str, value: Any) -> float:
        try:
            result = float(value)
        except OverflowError:
            result = math.inf
        except (TypeError, ValueError):
            raise JaxstyleError(f"{name}: {shortened(value)} is not a number; give one") from None
        # Written so that NaN is outside.
        if not ((0 <= result if above is None else above < result) and result <= high):
            bound = "at least 0" if above is None else f"above {above:g}"
            raise JaxstyleError(
                f"{name}: {shortened(value)} is out of range; give a finite number {bound} and "
                f"at most {high:g}"
            )
        return result

    return check


def integer(*, low: int = 0, high: int = LARGEST_INTEGER) -> Check:
    """Return a check that converts a whole number from `low` to `high` to an int.

    Example:
      >>> integer(low=1)("steps", 300)
      300
    """

    def check(name: str, value: Any) -> int:
        try:
            # In Python True is an integer.
            result = None if isinstance(value, bool | np.bool_) else operator.index(value)
        except TypeError:
            result = None
        if result is None or not low <= result <= high:
            raise JaxstyleError(
                f"{name}: {shortened(value)} is out of range; give a whole number from {low} to "
                f"{high}"
            )
        return result

    return check


def choice(choices: tuple[str, ...]) -> Check:
    """Return a check that a value is one of a few named values."""

    def check(name: str, value: Any) -> str:
        if not isinstance(value, str) or value not in choices:
            raise JaxstyleError(
                f"{name}: {shortened(value)} does not exist; choose from {', '.join(choices)}"
            )
        return str(value)

    return check


def boolean(name: str, value: Any) -> bool:
    """Return a boolean, of Python or NumPy, as Python's."""
    if not isinstance(value, bool | np.bool_):
        raise JaxstyleError(f"{name}: {shortened(value)} is neither True nor False")
    return bool(value)


def file_name(name: str, value: Any) -> str:
    """Return the name of a file, given as text or path, as text."""
    if not _is_file_name(value):
        raise JaxstyleError(f"{name}: {shortened(value)} is not the name of a file")
    return str(value)


def mask_pairs(name: str, value: Any) -> tuple[tuple[str, str], ...]:
    """Return pairs of mask files as tuples of text."""
    pairs = value if isinstance(value, list | tuple) else [value]
    for pair in pairs:
        if not (
            isinstance(pair, list | tuple) and len(pair) == 2 and all(map(_is_file_name, pair))
        ):
            raise JaxstyleError(
                f"{name}: {value!r} is not a list of pairs of files; give the region of the output "
                f"and that of the style image, {WHOLE!r} for the whole"
            )
    return tuple((str(region), str(of_style)) for region, of_style in pairs)


def blend_weights(name: str, value: Any) -> tuple[float, ...]:
    """Return blend weights, given as text such as `"3,1"` or as numbers; only their ratios matter.

    Example:
      >>> blend_weights("style_blend", "3,1")
      (3.0, 1.0)
    """
    try:
        weights = tuple(map(float, value.split(",") if isinstance(value, str) else value))
    except (TypeError, ValueError, OverflowError):
        raise JaxstyleError(
            f"{name}: {shortened(value)} is not a list of numbers; write e.g. 3,1"
        ) from None
    if not all(weight >= 0 for weight in weights) or not 0 < sum(weights) <= LARGEST:
        raise JaxstyleError(
            f"{name}: {shortened(value)} is out of range; give finite numbers, none negative, not "
            "all 0"
        )
    return weights


def _is_file_name(value: Any) -> bool:
    return isinstance(value, str | os.PathLike) and str(value) != "" and "\0" not in str(value)
