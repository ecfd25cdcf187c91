"""Progress of a run: a bar on a terminal, plain lines in a pipe, JSON lines, or nothing."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Column

from jaxstyle.engine.iterate import Iterate
from jaxstyle.monitor.pace import Course, Pace, clock
from jaxstyle.provenance.report import to_json

BAR = 16
"""Characters of the bar, so that the line fits into 80 columns."""
COMPILING = "compiling …"


@contextmanager
def progress(
    course: Course | int, *, quiet: bool = False, as_json: bool = False
) -> Iterator[Callable[[Iterate], None]]:
    """Yield a function to call with each iterate of a run.

    All output goes to standard error.

    Args:
      course: course of the run, or its number of steps if it has one scale.
      quiet: whether to show nothing.
      as_json: whether to write a line of JSON per iterate (`log_line`), even if `quiet`.
    """
    pace = Pace(course)
    if as_json:
        yield _json_printer(pace)
    elif quiet:
        yield lambda iterate: None
    elif on_a_terminal():
        with _bar(pace) as draw:
            yield draw
    else:
        yield _line_printer(pace)


def _json_printer(pace: Pace) -> Callable[[Iterate], None]:
    """Return a function that prints an iterate as a line of JSON."""
    begun = time.monotonic()

    def log(iterate: Iterate) -> None:
        pace.tick(iterate)
        numbers = log_line(iterate, pace, time.monotonic() - begun)
        print(to_json(numbers, indent=None), end="", file=sys.stderr, flush=True)

    return log


def _line_printer(pace: Pace) -> Callable[[Iterate], None]:
    """Return a function that prints about ten lines per run, for any chunk size."""
    steps = pace.steps
    shown = -steps
    print(COMPILING, file=sys.stderr)

    def line(iterate: Iterate) -> None:
        nonlocal shown
        pace.tick(iterate)
        if iterate.step - shown >= steps / 10 or iterate.step == steps:
            shown = iterate.step
            print(f"step {iterate.step}/{steps}  {describe(iterate, pace)}", file=sys.stderr)

    return line


@contextmanager
def _bar(pace: Pace) -> Iterator[Callable[[Iterate], None]]:
    """Show a bar, and yield a function that draws an iterate."""
    console = Console(stderr=True)
    course, steps = pace.course, pace.steps
    room = (
        console.width
        - len(f"step {steps}/{steps} 1:00:00 left ")
        - BAR
        - len(f" 0:00:00 {course.name(0)} ")
    )
    # The most important columns come first, as narrow terminals cut off the end.
    fields = "step {task.completed}/{task.total}", "{task.fields[left]}"
    with Progress(
        *(TextColumn(field, table_column=Column(no_wrap=True)) for field in fields),
        BarColumn(BAR),
        TimeElapsedColumn(),
        TextColumn("{task.fields[scale]}"),
        TextColumn("{task.fields[numbers]}", table_column=Column(no_wrap=True)),
        console=console,
    ) as bar:
        task = bar.add_task("", total=steps, left="", scale=course.name(0), numbers=COMPILING)

        def draw(iterate: Iterate) -> None:
            pace.tick(iterate)
            left = "" if pace.seconds_left is None else f"{clock(pace.seconds_left)} left"
            scale, numbers = course.name(iterate.step), describe(iterate, pace, room=room)
            following = course.name(iterate.step + 1)
            if iterate.step < steps and following != scale:
                scale, numbers = following, COMPILING
            bar.update(task, completed=iterate.step, left=left, scale=scale, numbers=numbers)

        yield draw


def log_line(iterate: Iterate, pace: Pace, seconds: float) -> dict[str, Any]:
    """Return an iterate's numbers as JSON values; in a batch, lists over the batch elements."""
    terms = {name: np.asarray(term).tolist() for name, term in iterate.terms._asdict().items()}
    return {
        "step": iterate.step,
        "steps": pace.steps,
        "loss": np.asarray(iterate.loss).tolist(),
        "terms": terms,
        "evaluations": np.asarray(iterate.evaluations).tolist(),
        "evaluations_per_second": pace.evaluations_per_second,
        "seconds": seconds,
        "seconds_left": pace.seconds_left,
    }


def on_a_terminal() -> bool:
    """Return whether standard error is a terminal that can redraw a line."""
    return sys.stderr.isatty() and os.environ.get("TERM", "") not in ("dumb", "unknown")


def describe(iterate: Iterate, pace: Pace, *, room: int | None = None) -> str:
    """Return an iterate's numbers as a line of text; in a batch, those of the best element.

    Args:
      iterate: last iterate.
      pace: speed of the run.
      room: number of characters available. Parts that do not fit are omitted, and so is the time
        left, which the bar shows separately. Unlimited if None.
    """
    best = int(np.nanargmin(iterate.loss)) if np.isfinite(iterate.loss).any() else 0
    loss, *terms = (np.ravel(value)[best] for value in (iterate.loss, *iterate.terms))
    named = "  ".join(
        f"{name} {term:.4g}" for name, term in zip(iterate.terms._fields, terms, strict=True)
    )
    images = np.size(iterate.loss)
    first = (f"best of {images}: " if images > 1 else "") + f"loss {loss:.4g}"
    parts = [f" ({named})"]
    if pace.evaluations_per_second is not None and pace.seconds_left is not None:
        parts.append(f"  {pace.evaluations_per_second:.3g} evaluations/s")
        if room is None:
            parts.append(f"  {clock(pace.seconds_left)} left")
    text = first
    for part in parts:
        if room is None or len(text + part) <= room:
            text += part
    return text
