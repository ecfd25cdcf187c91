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
"""Exit code after SIGTERM, as a shutdown or a scheduler sends it, and after SIGHUP, as a closed
terminal does."""


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP came: the same as Ctrl-C but for the exit code."""


AGAIN = 0.05
"""Seconds after which a Ctrl-C that was dropped comes again."""


@contextmanager
def no_interrupt_lost() -> Iterator[None]:
    """Raise a Ctrl-C again if Python dropped it in a callback within the block.

    Python cannot raise inside callbacks of the garbage collector (JAX has one, called often while
    it loads and compiles) and of weak references: it prints the exception and goes on.
    """
    before = sys.unraisablehook

    def hook(dropped: "sys.UnraisableHookArgs") -> None:
        if not issubclass(dropped.exc_type, KeyboardInterrupt):
            before(dropped)
            return
        # Not at once: this function is called by the same callback.
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
    """Return a function that raises once Ctrl-C, SIGTERM or SIGHUP has come in the block.

    It raises `KeyboardInterrupt` or `Terminated`. The first signal is only noted, for the caller to
    act on between two chunks of steps. Raised at once, as Python would, it can strike inside a
    callback of the garbage collector (JAX has one), where it is printed with a traceback and
    dropped. A second Ctrl-C is raised at once. SIGHUP stays ignored where it was (`nohup`).

    Args:
      say: told after the first Ctrl-C that it has been noted.
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
        # Only the main thread may have handlers, and only it is interrupted.
        yield check
        return
    numbers = [signal.SIGINT, signal.SIGTERM]
    # Windows has none.
    hangup = getattr(signal, "SIGHUP", None)
    if hangup is not None and signal.getsignal(hangup) is not signal.SIG_IGN:
        numbers.append(hangup)
    before = {number: signal.signal(number, press) for number in numbers}
    try:
        yield check
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
