"""Checks of single settings; each raises a one-line error that names the setting."""

import math
import operator
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxstyle.errors import JaxstyleError, shortened

WHOLE = "-"
"""Stands for the whole image in place of the file of a mask."""


def is_file_name(name: Any) -> bool:
    """Return whether a value can be the name of a file."""
    return isinstance(name, str) and name != "" and "\0" not in name


def parse_mask_pairs(pairs: Any) -> tuple[tuple[str, str], ...]:
    """Return a list of pairs of mask files as tuples.

    Raises:
      JaxstyleError: something else than pairs of file names.
    """
    found = pairs if isinstance(pairs, list | tuple) else [pairs]
    for pair in found:
        if not (isinstance(pair, list | tuple) and len(pair) == 2 and all(map(is_file_name, pair))):
            raise JaxstyleError(
                f"mask: {pairs!r} is not a list of pairs of files; give the region of the output "
                f"and that of the style image, {WHOLE!r} for the whole"
            )
    return tuple((region, of_style) for region, of_style in found)


def parse_blend_weights(weights: str | Sequence[float]) -> tuple[float, ...]:
    """Return blend weights, given as text such as `"3,1"` or as numbers; only ratios matter.

    Raises:
      JaxstyleError: something that is no number, is negative or not finite, or a sum of 0.

    Example:
      >>> parse_blend_weights("3,1")
      (3.0, 1.0)
    """
    try:
        numbers = tuple(map(float, weights.split(",") if isinstance(weights, str) else weights))
    except (TypeError, ValueError, OverflowError):
        raise JaxstyleError(
            f"style_blend: {shortened(weights)} has something that is no number; write e.g. 3,1"
        ) from None
    if not all(weight >= 0 for weight in numbers) or not 0 < sum(numbers) <= LARGEST:
        raise JaxstyleError(
            f"style_blend: {shortened(weights)} is out of range; give finite numbers, none "
            "negative, not all 0"
        )
    return numbers


LARGEST = 3e38
LARGEST_INTEGER = 2**31 - 1


def is_traced(value: Any) -> bool:
    """Return whether a number is traced by JAX, and so has no value that could be checked."""
    # Looked up, not imported: the configuration loads no JAX.
    jax = sys.modules.get("jax")
    return jax is not None and isinstance(value, jax.core.Tracer)


def check_number(
    name: str, value: Any, *, low: float, high: float = math.inf, exclusive: bool = False
) -> Any:
    """Return a number as a float; a traced one as it is.

    Args:
      name: of the setting, for errors.
      value: what was given.
      low: lower bound.
      high: upper bound, inclusive.
      exclusive: whether `low` itself is out of range.

    Raises:
      JaxstyleError: not a number, or out of range.
    """
    if is_traced(value):
        return value
    try:
        # JSON, jit and float32 need a plain finite number.
        number = float(value)
    except OverflowError:
        number = math.inf
    except (TypeError, ValueError):
        raise JaxstyleError(f"{name}: {shortened(value)} is not a number; give one") from None
    # Beyond float32 a number would be infinite on the device.
    inside = (low < number if exclusive else low <= number) and number <= min(high, LARGEST)
    if not (inside and math.isfinite(number)):
        bound = "above" if exclusive else "at least"
        raise JaxstyleError(
            f"{name}: {shortened(value)} is out of range; give a finite number {bound} {low:g} and "
            f"at most {min(high, LARGEST):g}"
        )
    return number


def check_integer(name: str, value: Any, *, low: int, high: int) -> Any:
    """Return a whole number as an int; a traced one as it is.

    Args:
      name: of the setting, for errors.
      value: what was given; NumPy integers too.
      low: lower bound, inclusive.
      high: upper bound, inclusive.

    Raises:
      JaxstyleError: not a whole number, or out of range.
    """
    if is_traced(value):
        return value
    try:
        # Python takes True for an integer.
        whole = None if isinstance(value, bool | np.bool_) else operator.index(value)
    except TypeError:
        whole = None
    if whole is None or not low <= whole <= high:
        raise JaxstyleError(
            f"{name}: {shortened(value)} is out of range; give a whole number from {low} to {high}"
        )
    return whole
