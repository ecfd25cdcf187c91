"""`jaxstyle completion`: the script that makes a shell complete our commands and flags."""

import click
from click.shell_completion import get_completion_class

SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> int:
    """Print SHELL's completion script.

    For bash put `eval "$(jaxstyle completion bash)"` into ~/.bashrc, for zsh likewise into
    ~/.zshrc; for fish `jaxstyle completion fish | source` into config.fish.
    """
    from jaxstyle.cli import app

    completer = get_completion_class(shell)
    assert completer is not None  # click has all of SHELLS
    click.echo(completer(app, {}, "jaxstyle", "_JAXSTYLE_COMPLETE").source())
    return 0
