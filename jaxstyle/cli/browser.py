"""The live page of a command."""

import json
import os
import sys
from contextlib import suppress
from typing import TypeVar

import click

from jaxstyle.cli.streams import tell
from jaxstyle.monitor.serve import Page, View, serve

Shown = TypeVar("Shown", bound=View)


def open_page(
    port: int, view: Shown, *, argument: str = "--serve", as_json: bool = False
) -> Page[Shown]:
    """Serve a page until click's context closes, and print its address to standard error."""
    serving = serve(view, port=port, argument=argument)
    page = click.get_current_context().with_resource(serving)
    said = json.dumps({"page": page.address}) if as_json else f"jaxstyle: see {page.address}"
    print(said, file=sys.stderr, flush=True)
    return page


def keep_open(page: Page[Shown]) -> None:
    """Serve a page after the end until it is closed; only on a terminal, so that no script waits.

    Meanwhile the page can be loaded again.
    """
    if os.isatty(0) and sys.stderr.isatty() and page.is_open:
        with suppress(KeyboardInterrupt):
            tell("the page stays until it is closed; Ctrl-C ends it")
            page.wait_until_closed()
