"""Writes flags.md and settings.md beside this file, from the commands and the classes themselves.

`tests/test_docs.py` fails when a page is not what this writes.
"""

import ast
import dataclasses
import inspect
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from jaxstyle import Recipe, Result
from jaxstyle.cli.app import COMMANDS, app
from jaxstyle.cli.help import GROUPS
from jaxstyle.config.layers import format_layers

FOLDER = Path(__file__).parent
NOTE = "<!-- Written by docs/generate.py. -->"


def flags_page() -> str:
    """Return the page of all flags of all commands."""
    parts = [
        "# All flags",
        NOTE,
        "Flags of `stylize` that set something in the recipe are also the keys of grid files and "
        "the [settings](settings.md) of `jaxstyle.Recipe`, with `_` for `-`. The pages under "
        "*How to* show how to use them.",
    ]
    root = click.Context(app, info_name="jaxstyle")
    for name in COMMANDS:
        command = app.get_command(root, name)
        assert command is not None
        parts += _command(command, click.Context(command, info_name=name, parent=root))
    return "\n\n".join(parts) + "\n"


def _command(command: click.Command, context: click.Context) -> Iterator[str]:
    """Yield the paragraphs of a command and of those below it."""
    yield f"## {context.command_path}"
    yield " ".join((command.help or "").split("\n\n")[0].split())
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            inner = click.Context(below, info_name=name, parent=context)
            yield from (part.replace("## ", "### ", 1) for part in _command(below, inner))
        return
    titles = {name: title for title, names in GROUPS.items() for name in names}
    groups: dict[str, list[tuple[str, str]]] = {title: [] for title in (*GROUPS, "Other")}
    for parameter in command.params:
        entry = parameter.get_help_record(context)
        if entry is not None and isinstance(parameter, click.Option):
            groups[titles.get(parameter.name or "", "Other")].append(entry)
    rows = [
        f"| {_cell(title)} | `{flag}` | {_cell(text)} |"
        for title, entries in groups.items()
        for flag, text in entries
    ]
    if rows:
        yield "\n".join(["| group | flag | what it does |", "| --- | --- | --- |", *rows])


def settings_page() -> str:
    """Return the page of the settings of a recipe and the fields of a result."""
    settings = []
    for field in dataclasses.fields(Recipe):
        default = _cell(_shown(field.name, field.default))
        settings.append(f"| `{field.name}` | {default} | {_cell(field.metadata['help'])} |")
    results = [f"| `{name}` | {_cell(text)} |" for name, text in documented_fields(Result)]
    return (
        "\n\n".join(
            [
                "# Settings and results",
                NOTE,
                "## Settings of a recipe",
                "The fields of `jaxstyle.Recipe`, keywords of `jaxstyle.stylize`, and keys of grid "
                "files. `None`: chosen for the network and the images of the run.",
                "\n".join(
                    ["| setting | default | what it does |", "| --- | --- | --- |", *settings]
                ),
                "## Fields of a result",
                "What `jaxstyle.stylize` returns, `jaxstyle.Result`.",
                "\n".join(["| field | what it is |", "| --- | --- |", *results]),
            ]
        )
        + "\n"
    )


def documented_fields(kind: Any) -> Iterator[tuple[str, str]]:
    """Yield the fields of a class with the strings that stand below them."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    body = definition.body
    for node, following in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            text = ""
            if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
                text = inspect.cleandoc(following.value.value)
            yield node.target.id, text


def _shown(name: str, default: Any) -> str:
    if name.endswith("_layers") and default:
        return f"`{format_layers(default)}`"
    return f"`{default!r}`"


def _cell(text: str) -> str:
    # Brackets would be read as links.
    return " ".join(text.split()).replace("|", "\\|").replace("[", "\\[")


def pages() -> dict[Path, str]:
    """Return the text of each page."""
    return {FOLDER / "flags.md": flags_page(), FOLDER / "settings.md": settings_page()}


if __name__ == "__main__":
    for path, page in pages().items():
        path.write_text(page, encoding="utf-8")
