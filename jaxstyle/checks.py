"""Numbers that somebody gave, checked and made Python's own; what does not fit into memory."""

import contextlib
import math
import operator
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from jaxstyle.errors import JaxstyleError, shortened

LARGEST = 3e38
LARGEST_INTEGER = 2**31 - 1


def is_traced(value: Any) -> bool:
    """Return whether a number is under a trace: it has no value, and was checked when it had."""
    return isinstance(value, jax.core.Tracer)


def check_number(
    name: str, value: Any, *, low: float, high: float = math.inf, open: bool = False
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
    inside = (low < number if open else low <= number) and number <= min(high, LARGEST)
    if not (inside and math.isfinite(number)):
        bound = "above" if open else "at least"
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


@contextlib.contextmanager
def memory_errors() -> Iterator[None]:
    """Raise one line where the block does not fit into memory.

    Raises:
      JaxstyleError: says what makes a run smaller.
    """
    try:
        yield
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        if isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise JaxstyleError(
            "the run does not fit into memory; choose a smaller size or history_size, or compute "
            "on tiles (tile)"
        ) from error
