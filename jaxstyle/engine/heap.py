"""Return memory that the compiler has freed to the system."""

import ctypes
from functools import cache
from typing import Any


@cache
def _libc() -> Any:
    """Return the C library where it is glibc, else None."""
    try:
        library = ctypes.CDLL("libc.so.6")
        return library if hasattr(library, "malloc_trim") else None
    except OSError:
        return None


def trim() -> None:
    """Return free pages to the system; nothing where the C library is not glibc.

    LLVM takes some hundred megabytes to compile a program, in small blocks that the C library
    keeps when they are freed.
    """
    if _libc() is not None:
        _libc().malloc_trim(0)
