"""The live page of a command, open until the command ends."""

import json
import sys

import click
import numpy as np

from jaxstyle.live import Live
from jaxstyle.serve import Page, serve


def open_page(port: int, steps: int, content: np.ndarray, *, as_json: bool) -> Page:
    """Serve a page until click's context closes, and say on standard error where it is."""
    page = click.get_current_context().with_resource(serve(Live(steps), content, port=port))
    said = json.dumps({"page": page.address}) if as_json else f"jaxstyle: see {page.address}"
    print(said, file=sys.stderr, flush=True)
    return page
