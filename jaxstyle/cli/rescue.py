"""Checkpoints of a run, and a fallback for images that cannot be written."""

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import jax

from jaxstyle.cli.streams import tell
from jaxstyle.engine.iterate import Iterate, RunState, run_state
from jaxstyle.errors import JaxstyleError

SECONDS_BETWEEN = 30.0
"""Seconds between two checkpoints, if no number of steps is given."""


def checkpoints(
    save: Callable[[RunState], None], *, interval: int | None
) -> Callable[[Sequence[Iterate], bool], None]:
    """Return a function that saves checkpoints at intervals.

    Its arguments are the iterates so far, and whether to save now, as at the end of a run. The
    first checkpoint that cannot be written gives a warning; the run continues, and the earlier
    checkpoint is kept.

    Args:
      save: function that writes a state.
      interval: steps between two checkpoints; `SECONDS_BETWEEN` if None.
    """
    saved = time.monotonic()
    last = -1
    told = False

    def keep(collected: Sequence[Iterate], now: bool) -> None:
        nonlocal saved, last, told
        step = collected[-1].step
        due = step % interval == 0 if interval else time.monotonic() - saved >= SECONDS_BETWEEN
        if step == last or not (due or now):
            return
        if any(leaf.is_deleted() for leaf in jax.tree.leaves(collected[-1].carry)):
            # A second Ctrl-C interrupted the next chunk, to which this state was donated.
            return
        try:
            save(run_state(collected))
        except JaxstyleError as error:
            if not told:
                warn(f"{error}; the run goes on without")
            told = True
            return
        saved, last = time.monotonic(), step

    return keep


Writer = Callable[[Callable[[Path], None], Path], None]


def write_there(write: Callable[[Path], None], path: Path) -> None:
    """Call `write(path)`."""
    write(path)


def rescue(write: Callable[[Path], None], path: Path) -> None:
    """Call `write(path)`; if it fails, write to the folder for temporary files instead.

    Raises:
      JaxstyleError: the error of the first attempt, with the path of the temporary file.
    """
    try:
        write(path)
    except JaxstyleError as error:
        try:
            folder = Path(tempfile.mkdtemp(prefix="jaxstyle-"))
        except OSError:
            raise error from None
        try:
            write(folder / path.name)
        except JaxstyleError:
            folder.rmdir()
            raise error from None
        raise JaxstyleError(f"{error}; the image is kept in {folder / path.name}") from None


def warn(message: str) -> None:
    """Write a warning to standard error."""
    tell(message, "warning")
