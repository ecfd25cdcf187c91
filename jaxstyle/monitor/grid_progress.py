"""Progress of a grid: a bar on a terminal, plain lines in a pipe, JSON lines, or nothing."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar

from jaxstyle.monitor.pace import clock
from jaxstyle.monitor.progress import COMPILING, on_a_terminal
from jaxstyle.provenance.report import to_json
from jaxstyle.sweep.runner import Progress

# Seconds between plain lines, but for a line at the end of each batch.
BETWEEN_LINES = 10.0


@contextmanager
def grid_progress(
    total: int, done: int, *, quiet: bool = False, as_json: bool = False, things: str = "cells"
) -> Iterator[Callable[[Progress], None]]:
    """Yield a function to call with each `Progress`; all output goes to standard error.

    Args:
      total: number of cells.
      done: number of cells that were finished before.
      quiet: whether to show nothing.
      as_json: whether to write a line of JSON per chunk of steps, even if `quiet`.
      things: plural noun for what is counted.
    """
    if as_json:
        yield lambda progress: _print_json(progress, things)
    elif quiet:
        yield lambda progress: None
    elif on_a_terminal():
        with _bar(total, done, things) as draw:
            yield draw
    else:
        before = f"{things} {done}/{total} done already" if done else f"{things} 0/{total}"
        print(f"{before}  {COMPILING}" if done < total else before, file=sys.stderr)
        yield _line_printer(things)


def _print_json(progress: Progress, things: str) -> None:
    """Print the progress as a line of JSON."""
    line = to_json(log_line(progress, things), indent=None)
    print(line, end="", file=sys.stderr, flush=True)


def _line_printer(things: str) -> Callable[[Progress], None]:
    """Return a function that prints a line every `BETWEEN_LINES` seconds and after each batch."""
    shown = time.monotonic()

    def line(progress: Progress) -> None:
        nonlocal shown
        now = time.monotonic()
        is_last = progress.step == progress.steps
        if now - shown >= BETWEEN_LINES or is_last:
            shown = now
            counted = progress.done + (progress.running if is_last else 0)
            print(f"{things} {counted}/{progress.total}  {describe(progress)}", file=sys.stderr)

    return line


@contextmanager
def _bar(total: int, done: int, things: str) -> Iterator[Callable[[Progress], None]]:
    """Show a bar, and yield a function that draws the progress."""
    with Bar(
        TextColumn(things + " {task.fields[done]}/{task.total}"),
        BarColumn(16),
        TextColumn("{task.fields[numbers]}"),
        console=Console(stderr=True),
    ) as bar:
        task = bar.add_task("", total=total, completed=done, done=done, numbers=COMPILING)

        def draw(progress: Progress) -> None:
            part = progress.running * progress.step / progress.steps
            bar.update(
                task,
                completed=progress.done + part,
                done=progress.done,
                numbers=describe(progress),
            )

        yield draw


def log_line(progress: Progress, things: str = "cells") -> dict[str, Any]:
    """Return the progress of a grid as JSON values."""
    best = progress.best
    return {
        things: progress.done,
        "total": progress.total,
        "running": progress.running,
        "step": progress.step,
        "steps": progress.steps,
        "best": None if best is None else {"cell": best.name, **best.labels()},
        "loss": progress.loss,
        "seconds_left": progress.seconds_left,
    }


def describe(progress: Progress) -> str:
    """Return the progress of a grid as a line of text."""
    text = f"step {progress.step}/{progress.steps}"
    if progress.step < progress.steps:
        text = f"{progress.running} running, {text}"
    if progress.best is not None:
        named = ", ".join(f"{axis}={value}" for axis, value in progress.best.labels().items())
        text += f"  best loss {progress.loss:.4g}" + (f" ({named})" if named else "")
    if progress.seconds_left is not None:
        text += f"  {clock(progress.seconds_left)} left"
    return text
