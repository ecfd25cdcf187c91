"""Messages on standard error, which are dropped if it cannot be written."""

import contextlib
import io
import json
import os
import sys
from collections.abc import Iterator
from typing import Any


class Forgiving:
    """A stream that drops output that cannot be written.

    Args:
      stream: stream to write to.
      as_json: whether `tell` writes JSON lines.
    """

    def __init__(self, stream: Any, *, as_json: bool = False):
        self._stream = stream
        self.as_json = as_json

    def write(self, text: str) -> int:
        """Write a text, or drop it on failure."""
        with self._given_up():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush the stream, or drop its output on failure."""
        with self._given_up():
            self._stream.flush()

    def writelines(self, lines: Any) -> None:
        """Write each line, or drop it on failure."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @contextlib.contextmanager
    def _given_up(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError):
            # BrokenPipeError after `| head`, ENOSPC, EIO of a closed terminal, a closed stream.
            with contextlib.suppress(OSError, ValueError, io.UnsupportedOperation):
                if self._stream.fileno() == 2:
                    # Python flushes the stream at exit, and another failure would change the exit
                    # code.
                    _to_nothing(2)


@contextlib.contextmanager
def forgiving_stderr(*, as_json: bool = False) -> Iterator[None]:
    """Replace standard error by a `Forgiving` stream.

    Standard streams that were closed from the start (`2>&-`) are redirected to the null device:
    otherwise the next file opened would get their descriptor, and with it their output.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            _to_nothing(descriptor)
    before = sys.stderr
    # None if it was closed.
    sys.stderr = Forgiving(before or open(os.devnull, "w", encoding="utf-8"), as_json=as_json)
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")
    try:
        yield
    finally:
        sys.stderr = before


def tell(message: str, kind: str = "notice") -> None:
    """Print a line to standard error: as text, or as JSON under --log-json.

    Args:
      message: text of the line.
      kind: `notice`, `warning` or `error`; the key of the JSON object.
    """
    print(_line(message, kind), end="", file=sys.stderr, flush=True)


def tell_from_signal(message: str) -> None:
    """Print a notice like `tell`, from a signal handler, which may have interrupted a print."""
    # The newline follows the `^C` that the terminal shows.
    line = "\n" * sys.stderr.isatty() + _line(message, "notice")
    with contextlib.suppress(OSError, ValueError):
        os.write(sys.stderr.fileno(), line.encode())


def _line(message: str, kind: str) -> str:
    if getattr(sys.stderr, "as_json", False):
        return json.dumps({kind: message}) + "\n"
    return "jaxstyle: " + (f"{kind}: " if kind != "notice" else "") + message + "\n"


def _to_nothing(descriptor: int) -> None:
    """Redirect a descriptor to the null device."""
    sink = os.open(os.devnull, os.O_RDWR)
    if sink != descriptor:
        os.dup2(sink, descriptor)
        os.close(sink)
