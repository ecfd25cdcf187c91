"""Progress of a run: a live bar on a terminal, plain lines in a pipe, JSON lines or nothing."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from jaxstyle.descent import Iterate
from jaxstyle.pace import Pace, clock
from jaxstyle.report import to_json


@contextmanager
def progress(
    steps: int, *, quiet: bool = False, as_json: bool = False
) -> Iterator[Callable[[Iterate], None]]:
    """Give a function to call with each iterate of a run of `steps` steps.

    Everything goes to standard error, so that standard output stays a program's.

    Args:
      steps: of the whole run.
      quiet: show nothing.
      as_json: write a JSON object a line and iterate, for programs (`log_line`); also if `quiet`.
    """
    pace = Pace(steps)
    if as_json:
        begun = time.monotonic()

        def log(iterate: Iterate) -> None:
            pace.tick(iterate)
            numbers = log_line(iterate, pace, time.monotonic() - begun)
            print(to_json(numbers, indent=None), end="", file=sys.stderr, flush=True)

        yield log
    elif quiet:
        yield lambda iterate: None
    elif sys.stderr.isatty():
        with Progress(
            TextColumn("step {task.completed}/{task.total}"),
            BarColumn(),
            TextColumn("{task.fields[numbers]}"),
            console=Console(stderr=True),
        ) as bar:
            task = bar.add_task("", total=steps, numbers="compiling …")

            def draw(iterate: Iterate) -> None:
                pace.tick(iterate)
                bar.update(task, completed=iterate.step, numbers=describe(iterate, pace))

            yield draw
    else:
        shown = -steps

        def line(iterate: Iterate) -> None:
            nonlocal shown
            pace.tick(iterate)
            # About ten lines a run, whatever the chunks.
            if iterate.step - shown >= steps / 10 or iterate.step == steps:
                shown = iterate.step
                print(f"step {iterate.step}/{steps}  {describe(iterate, pace)}", file=sys.stderr)

        yield line


def log_line(iterate: Iterate, pace: Pace, seconds: float) -> dict[str, Any]:
    """Give an iterate's numbers for a machine; of a batch, lists with a number a lane."""
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


def describe(iterate: Iterate, pace: Pace) -> str:
    """Put an iterate's numbers in a line; of a batch, those of its best lane."""
    best = int(np.nanargmin(iterate.loss)) if np.isfinite(iterate.loss).any() else 0
    loss, *terms = (np.ravel(value)[best] for value in (iterate.loss, *iterate.terms))
    named = "  ".join(
        f"{name} {term:.4g}" for name, term in zip(iterate.terms._fields, terms, strict=True)
    )
    pictures = np.size(iterate.loss)
    text = f"best of {pictures}: " if pictures > 1 else ""
    text += f"loss {loss:.4g} ({named})"
    if pace.evaluations_per_second is not None and pace.seconds_left is not None:
        text += f"  {pace.evaluations_per_second:.3g} evaluations/s"
        text += f"  {clock(pace.seconds_left)} left"
    return text
