"""The exception for errors that a user can correct; its message is one line."""

import contextlib
from collections.abc import Iterator


class JaxstyleError(ValueError):
    """Invalid input or usage; the message names the argument, its value and what to do.

    The command line prints the message and exits with code 2. Any other exception is a bug and
    keeps its traceback.
    """


def shortened(value: object) -> str:
    """Return the repr of a value, cut to 60 characters."""
    try:
        text = repr(value)
    except ValueError:  # Python limits the digits of printed integers.
        return "a number of thousands of digits"
    return text if len(text) <= 60 else text[:57] + "..."


@contextlib.contextmanager
def memory_errors() -> Iterator[None]:
    """Raise a `JaxstyleError` if the block runs out of memory, on the host or a device.

    Raises:
      JaxstyleError: the message says how to reduce the memory.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise JaxstyleError(
            "the run does not fit into memory; choose a smaller size or history_size, or compute "
            "on tiles (tile)"
        ) from error
