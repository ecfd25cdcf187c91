"""The command-line interface."""

import os
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit; see `app.run` for the exit codes."""
    # The decompositions of the Wasserstein loss are too small for several threads, which take time
    # from XLA's while they wait. OpenBLAS reads this when SciPy is imported.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        # Imported here, so that Ctrl-C during the import prints no traceback.
        from jaxstyle.cli.app import run
    except KeyboardInterrupt:
        sys.stderr.write("jaxstyle: stopped; no file was left half-written\n")
        sys.exit(130)
    run(arguments)
