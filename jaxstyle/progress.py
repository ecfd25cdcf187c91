"""Progress of a run: a live bar on a terminal, plain lines in a pipe, JSON lines or nothing."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from jaxstyle.report import to_json
from jaxstyle.run import Iterate


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
    if as_json:
        begun = time.monotonic()
        yield lambda iterate: print(
            to_json(log_line(iterate, steps, time.monotonic() - begun), indent=None),
            end="", file=sys.stderr, flush=True,
        )  # fmt: skip
    elif quiet:
        yield lambda iterate: None
    elif sys.stderr.isatty():
        with Progress(
            TextColumn("step {task.completed}/{task.total}"),
            BarColumn(),
            TextColumn("{task.fields[numbers]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        ) as bar:
            task = bar.add_task("", total=steps, numbers="compiling …")

            def draw(iterate: Iterate) -> None:
                bar.update(task, completed=iterate.step, numbers=describe(iterate))

            yield draw
    else:
        shown = -steps

        def line(iterate: Iterate) -> None:
            nonlocal shown
            # About ten lines a run, whatever the chunks.
            if iterate.step - shown >= steps / 10 or iterate.step == steps:
                shown = iterate.step
                print(f"step {iterate.step}/{steps}  {describe(iterate)}", file=sys.stderr)

        yield line


def log_line(iterate: Iterate, steps: int, seconds: float) -> dict[str, Any]:
    """Give an iterate's numbers for a machine; of a batch, lists with a number a lane."""
    terms = {name: np.asarray(term).tolist() for name, term in iterate.terms._asdict().items()}
    return {
        "step": iterate.step,
        "steps": steps,
        "loss": np.asarray(iterate.loss).tolist(),
        "terms": terms,
        "evaluations": np.asarray(iterate.evaluations).tolist(),
        "seconds": seconds,
    }


def describe(iterate: Iterate) -> str:
    """Put an iterate's numbers in a line; of a batch, those of its best lane."""
    best = int(np.nanargmin(iterate.loss)) if np.isfinite(iterate.loss).any() else 0
    loss, *terms = (np.ravel(value)[best] for value in (iterate.loss, *iterate.terms))
    named = "  ".join(
        f"{name} {term:.4g}" for name, term in zip(iterate.terms._fields, terms, strict=True)
    )
    text = f"loss {loss:.4g} ({named})"
    if iterate.run_seconds > 0 and iterate.step:
        text += f"  {len(iterate.history.step) / iterate.run_seconds:.3g} steps/s"
    return text
