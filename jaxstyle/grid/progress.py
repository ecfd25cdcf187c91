"""Progress of a grid: cells done, the best so far, time left; live, in lines, or nothing."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar

from jaxstyle.grid.runner import Progress
from jaxstyle.pace import clock

# Seconds between plain lines, unless a batch is done.
BETWEEN_LINES = 10.0


@contextmanager
def grid_progress(
    total: int, done: int, *, quiet: bool = False
) -> Iterator[Callable[[Progress], None]]:
    """Give a function to call with each `Progress`; all goes to standard error."""
    if quiet:
        yield lambda progress: None
    elif sys.stderr.isatty():
        with Bar(
            TextColumn("cells {task.fields[done]}/{task.total}"),
            BarColumn(),
            TextColumn("{task.fields[numbers]}"),
            console=Console(stderr=True),
        ) as bar:
            task = bar.add_task("", total=total, completed=done, done=done, numbers="compiling …")

            def draw(progress: Progress) -> None:
                part = progress.running * progress.step / progress.steps
                bar.update(
                    task,
                    completed=progress.done + part,
                    done=progress.done,
                    numbers=describe(progress),
                )

            yield draw
    else:
        print(f"cells {done}/{total} done already" if done else f"cells 0/{total}", file=sys.stderr)
        shown = time.monotonic()

        def line(progress: Progress) -> None:
            nonlocal shown
            now = time.monotonic()
            if now - shown >= BETWEEN_LINES or progress.step == progress.steps:
                shown = now
                counted = progress.done + (
                    progress.running if progress.step == progress.steps else 0
                )
                print(f"cells {counted}/{progress.total}  {describe(progress)}", file=sys.stderr)

        yield line


def describe(progress: Progress) -> str:
    """Put the state of a grid in a line."""
    text = f"{progress.running} running, step {progress.step}/{progress.steps}"
    if progress.best is not None:
        named = ", ".join(f"{axis}={value}" for axis, value in progress.best.labels().items())
        text += f"  best loss {progress.loss:.4g}" + (f" ({named})" if named else "")
    if progress.seconds_left is not None:
        text += f"  {clock(progress.seconds_left)} left"
    return text
