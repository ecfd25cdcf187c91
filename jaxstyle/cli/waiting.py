"""The display of elapsed time while JAX is imported and images are read."""

import os
import sys

import click


class Waiting:
    """A line with a text and the elapsed time on the terminal, shown until `stop`.

    Nothing is shown unless standard error is a terminal that can redraw a line. The line is also
    removed when the command ends, before its error is printed.

    Args:
      what: the text.
      quiet: whether to show nothing.
    """

    def __init__(self, what: str, *, quiet: bool):
        self._shown = None
        # Not by `monitor.progress`, which imports JAX.
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
        """Remove the line."""
        if self._shown is not None:
            self._shown.stop()
            self._shown = None
