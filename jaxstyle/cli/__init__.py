"""The command-line interface: from arguments to images and reports; errors are one line."""

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit; see `app.run` for the exit codes."""
    try:
        # Here, as Ctrl-C while it loads would otherwise end in a traceback.
        from jaxstyle.cli.app import run
    except KeyboardInterrupt:
        sys.stderr.write("jaxstyle: stopped; no file was left half-written\n")
        sys.exit(130)
    run(arguments)
