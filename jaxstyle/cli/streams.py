"""Standard streams that cannot be written: messages are dropped, the run continues."""

import contextlib
import io
import json
import os
import sys
from collections.abc import Iterator
from typing import Any


class Forgiving:
    """A stream that drops all output after a failed write.

    Args:
      stream: what is written to.
      as_json: whether `tell` writes JSON lines.
    """

    def __init__(self, stream: Any, *, as_json: bool = False):
        self._stream = stream
        self.as_json = as_json

    def write(self, text: str) -> int:
        """Write, or drop."""
        with self._given_up():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush the stream; on failure drop its output."""
        with self._given_up():
            self._stream.flush()

    def writelines(self, lines: Any) -> None:
        """Write each line, or drop it."""
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
                    # What the stream still holds goes there at Python's end, which would change
                    # the exit code if it failed again.
                    _to_nothing(2)


@contextlib.contextmanager
def forgiving_stderr(*, as_json: bool = False) -> Iterator[None]:
    """Replace standard error by a stream that drops what cannot be written.

    Where a standard stream is closed from the start (`2>&-`), the null device takes its number:
    otherwise the next file that is opened would, and get what is meant for the stream.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            _to_nothing(descriptor)
    before = sys.stderr
    # Python has None for one that was closed.
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
      message: what to say.
      kind: `notice`, `warning` or `error`; the key of the JSON object.
    """
    print(_line(message, kind), end="", file=sys.stderr, flush=True)


def tell_from_signal(message: str) -> None:
    """Write a line like `tell`, from a signal handler that may have interrupted a print."""
    # After ^C, which the terminal itself has written.
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
