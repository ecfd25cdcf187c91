"""The group of all commands, their exit codes and error messages."""

import contextlib
import errno
import os
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version

import click

from jaxstyle.cli.streams import forgiving_stderr, tell
from jaxstyle.errors import JaxstyleError, memory_errors
from jaxstyle.monitor.interrupts import INTERRUPTED, TERMINATED, no_interrupt_lost

BAD_INPUT = 2


COMMANDS = {
    "stylize": "jaxstyle.cli.stylize",
    "studio": "jaxstyle.cli.studio",
    "texture": "jaxstyle.cli.texture",
    "evaluate": "jaxstyle.cli.evaluate",
    "grid": "jaxstyle.cli.grid",
    "plan": "jaxstyle.cli.plan",
    "weights": "jaxstyle.cli.weights",
    "show": "jaxstyle.cli.show",
    "sample": "jaxstyle.cli.sample",
    "doctor": "jaxstyle.cli.doctor",
}
"""Module of each command, in which the command has the same name."""


class Commands(click.Group):
    """A command group that imports a command on its first use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands, in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Import and return a command, or None if there is none of that name."""
        if name not in COMMANDS:
            return None
        command: click.Command = getattr(import_module(COMMANDS[name]), name)
        return command


@click.group(
    cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(version("jaxstyle"), prog_name="jaxstyle", message="%(prog)s %(version)s")
def app() -> None:
    """Stylize photographs in the style of paintings, by optimization, on a CPU, GPU or TPU."""


def run(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit.

    The exit code is 0 for success, 1 if `doctor` finds a problem or the reader of standard output
    has closed it, 2 for invalid input or usage, 3 for a run that diverged and is no better than
    its initial image, 130 after Ctrl-C, and 143 after SIGTERM or SIGHUP.
    """
    given = sys.argv[1:] if arguments is None else arguments
    # Pillow warns of unusual metadata, which does not matter here.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    with no_interrupt_lost(), forgiving_stderr(as_json="--log-json" in given):
        _run(given)


def _run(arguments: Sequence[str]) -> None:
    try:
        # Making paths absolute fails without it.
        os.getcwd()
    except OSError:
        _fail("the working directory does not exist any more; change to one that does")
    try:
        with memory_errors():
            code = app.main(args=arguments, prog_name="jaxstyle", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.NoArgsIsHelpError as error:
        command = error.ctx.command_path if error.ctx else "jaxstyle"
        _fail(f"no command was given; see '{command} --help'")
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "jaxstyle"
        _fail(f"{error.format_message()} See '{command} --help'.")
    except click.ClickException as error:
        _fail(error.format_message())
    except JaxstyleError as error:
        _fail(str(error))
    except (KeyboardInterrupt, click.Abort):
        tell("stopped; no file was left half-written")
        code = INTERRUPTED
    except BrokenPipeError:
        # The reader of standard output has closed it, as in `| head`.
        _drop_stdout()
        sys.exit(1)
    except OSError as error:
        # Only errors of standard output: those of files are `JaxstyleError`s already.
        if error.errno not in (errno.ENOSPC, errno.EIO) or error.filename is not None:
            raise
        _drop_stdout()
        _fail(f"standard output cannot be written: {error.strerror}; make room or choose another")
    if code in (INTERRUPTED, TERMINATED):
        # Skip Python's shutdown, in which XLA crashes if the signal interrupted a compilation.
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str) -> None:
    tell(" ".join(message.split()), "error")
    sys.exit(BAD_INPUT)


def _drop_stdout() -> None:
    """Discard buffered standard output, which Python would otherwise write at exit."""
    with contextlib.suppress(OSError):
        sys.stdout.close()
