"""Ctrl-C and SIGTERM that are neither lost nor noisy."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

INTERRUPTED = 128 + signal.SIGINT
"""Exit code after Ctrl-C."""
TERMINATED = 128 + signal.SIGTERM
"""Exit code after SIGTERM, as a shutdown or a scheduler sends it."""


class Terminated(KeyboardInterrupt):
    """SIGTERM came: the same as Ctrl-C but for the exit code."""


@contextmanager
def interrupts() -> Iterator[Callable[[], None]]:
    """Give a function that raises once Ctrl-C or SIGTERM has come in the block.

    It raises `KeyboardInterrupt` or `Terminated`. The first signal is only noted, for the caller to
    act on between two chunks of steps. Raised at once, as Python would, it can strike inside a
    callback of the garbage collector (JAX has one), where it is printed with a traceback and
    dropped. A second Ctrl-C is raised at once.
    """
    pressed: int | None = None

    def press(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        if pressed is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        pressed = number

    def check() -> None:
        if pressed is not None:
            raise Terminated if pressed == signal.SIGTERM else KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        # Only the main thread may have handlers, and only it is interrupted.
        yield check
        return
    before = {number: signal.signal(number, press) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield check
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
