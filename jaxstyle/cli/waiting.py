"""A clock on the terminal while JAX loads and images are read."""

import os
import sys

import click


class Waiting:
    """A text with a clock on the terminal, shown until `stop`.

    Nothing is shown where standard error is no terminal that can redraw a line. The clock also
    stops when the command ends, before its error is written.

    Args:
      what: the text.
      quiet: show nothing.
    """

    def __init__(self, what: str, *, quiet: bool):
        self._shown = None
        # Not `monitor.progress`, which would import JAX before there is anything to see.
        if quiet or not sys.stderr.isatty() or os.environ.get("TERM", "") in ("dumb", "unknown"):
            return
        from rich.console import Console
        from rich.progress import Progress, TextColumn, TimeElapsedColumn

        columns = TextColumn("{task.description}"), TimeElapsedColumn()
        self._shown = Progress(*columns, console=Console(stderr=True), transient=True)
        self._shown.add_task(f"{what} …", total=None)
        self._shown.start()
        click.get_current_context().call_on_close(self.stop)

    def stop(self) -> None:
        """Remove the clock."""
        if self._shown is not None:
            self._shown.stop()
            self._shown = None
