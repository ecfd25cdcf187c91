"""The live page of a command, open until the command ends."""

import json
import sys
from typing import TypeVar

import click

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
