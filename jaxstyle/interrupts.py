"""Ctrl-C that is neither lost nor noisy."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def interrupts() -> Iterator[Callable[[], None]]:
    """Give a function that raises `KeyboardInterrupt` once Ctrl-C has been pressed in the block.

    The first press is only noted, for the caller to act on between two chunks of steps. Raised
    at once, as Python would, it can strike inside a callback of the garbage collector (JAX has
    one), where it is printed with a traceback and dropped. A second press is raised at once.
    """
    pressed = False

    def press(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True

    def check() -> None:
        if pressed:
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        # Only the main thread may have handlers, and only it is interrupted.
        yield check
        return
    before = signal.signal(signal.SIGINT, press)
    try:
        yield check
    finally:
        signal.signal(signal.SIGINT, before)
