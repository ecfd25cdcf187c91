"""Checks of single settings; each raises a one-line error that names the setting."""

import math
import operator
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxstyle.errors import JaxstyleError, shortened

WHOLE = "-"
"""In the place of a mask's file: the whole image."""


def is_file_name(name: Any) -> bool:
    return isinstance(name, str) and name != "" and "\0" not in name


def parse_mask_pairs(pairs: Any) -> tuple[tuple[str, str], ...]:
    found = pairs if isinstance(pairs, list | tuple) else [pairs]
    for pair in found:
        if not (isinstance(pair, list | tuple) and len(pair) == 2 and all(map(is_file_name, pair))):
            raise JaxstyleError(
                f"mask: {pairs!r} is not a list of pairs of files; give the region of the output "
                f"and that of the style image, {WHOLE!r} for the whole"
            )
    return tuple((region, of_style) for region, of_style in found)


def parse_blend_weights(weights: str | Sequence[float]) -> tuple[float, ...]:
    """Read `"3,1"` or a sequence of numbers as weights of which only the ratios count."""
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
    """Return whether a number is under a trace: it has no value, and was checked when it had."""
    # Nothing is traced where JAX has not been imported.
    jax = sys.modules.get("jax")
    return jax is not None and isinstance(value, jax.core.Tracer)


def check_number(
    name: str, value: Any, *, low: float, high: float = math.inf, exclusive: bool = False
) -> Any:
    """Return a number as a float, whatever it was written as; a traced one as it is.

    Raises:
      JaxstyleError: no number, or outside the range; names `name`.
    """
    if is_traced(value):
        return value
    try:
        # JSON, jit and float32 all want a plain finite number.
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
    """Return a whole number, also one of NumPy's, as Python's; a traced one as it is.

    Raises:
      JaxstyleError: no whole number, or outside the range; names `name`.
    """
    if is_traced(value):
        return value
    try:
        # True is an integer to Python.
        whole = None if isinstance(value, bool | np.bool_) else operator.index(value)
    except TypeError:
        whole = None
    if whole is None or not low <= whole <= high:
        raise JaxstyleError(
            f"{name}: {shortened(value)} is out of range; give a whole number from {low} to {high}"
        )
    return whole
