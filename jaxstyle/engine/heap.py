"""Release memory that the compiler has freed to the system."""

import ctypes
from functools import cache
from typing import Any


@cache
def _libc() -> Any:
    """Return the C library if it is glibc, else None."""
    try:
        library = ctypes.CDLL("libc.so.6")
        return library if hasattr(library, "malloc_trim") else None
    except OSError:
        return None


def trim() -> None:
    """Release free pages to the system, if the C library is glibc.

    LLVM allocates a few hundred megabytes to compile a program, in small blocks that the C library
    keeps after they are freed.
    """
    if _libc() is not None:
        _libc().malloc_trim(0)
