"""Handling of Ctrl-C, SIGTERM and SIGHUP."""

import _thread
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

INTERRUPTED = 128 + signal.SIGINT
"""Exit code after Ctrl-C."""
TERMINATED = 128 + signal.SIGTERM
"""Exit code after SIGTERM (from a shutdown or a scheduler) or SIGHUP (from a closed terminal)."""


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP was received; handled like Ctrl-C, with another exit code."""


AGAIN = 0.05
"""Seconds after which a dropped Ctrl-C is raised again."""


@contextmanager
def no_interrupt_lost() -> Iterator[None]:
    """Raise a Ctrl-C again if Python dropped it in a callback within the block.

    Python cannot propagate exceptions out of callbacks of weak references and of the garbage
    collector (JAX has one, called often while it is imported and compiles): it prints them and
    continues.
    """
    before = sys.unraisablehook

    def hook(dropped: "sys.UnraisableHookArgs") -> None:
        if not issubclass(dropped.exc_type, KeyboardInterrupt):
            before(dropped)
            return
        # Not immediately, as the callback is still running.
        timer = threading.Timer(AGAIN, _thread.interrupt_main)
        timer.daemon = True
        timer.start()

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before


@contextmanager
def interrupts(say: Callable[[str], None] | None = None) -> Iterator[Callable[[], None]]:
    """Yield a function that raises if Ctrl-C, SIGTERM or SIGHUP was received in the block.

    It raises `KeyboardInterrupt` or `Terminated`, and is to be called between chunks of steps. The
    first signal itself raises nothing: inside a callback of the garbage collector (JAX has one),
    Python would print the exception and drop it. A second Ctrl-C is raised immediately. SIGHUP
    stays ignored if it was (`nohup`). Outside the main thread no signals are handled.

    Args:
      say: function that prints a notice after the first Ctrl-C.
    """
    pressed: int | None = None

    def press(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        if number == signal.SIGINT:
            if pressed is not None:
                raise KeyboardInterrupt
            if say is not None:
                say("stopping after the steps under way; Ctrl-C again discards them")
        pressed = number

    def check() -> None:
        if pressed is not None:
            raise KeyboardInterrupt if pressed == signal.SIGINT else Terminated

    if threading.current_thread() is not threading.main_thread():
        # Python allows signal handlers in the main thread only.
        yield check
        return
    numbers = [signal.SIGINT, signal.SIGTERM]
    # Missing on Windows.
    hangup = getattr(signal, "SIGHUP", None)
    if hangup is not None and signal.getsignal(hangup) is not signal.SIG_IGN:
        numbers.append(hangup)
    before = {number: signal.signal(number, press) for number in numbers}
    try:
        yield check
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
