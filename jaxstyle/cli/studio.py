"""`jaxstyle studio`: a page in the browser that starts runs."""

import time
from pathlib import Path

import click

from jaxstyle.cli.options import IMAGE, weights_option
from jaxstyle.cli.streams import tell, tell_from_signal


@click.command()
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    metavar="N",
    help="Port of this machine; a free one if not given.",
)
@click.option(
    "-o",
    "--output",
    type=IMAGE,
    default=Path("studio"),
    show_default=True,
    metavar="DIR",
    help="Folder that keeps the images given and made.",
)
@weights_option
@click.option("--open", "open_browser", is_flag=True, help="Open the page in the browser.")
def studio(port: int, output: Path, weights_name: str, open_browser: bool) -> int:
    """Start runs from a page in the browser.

    Drop a photograph and a style on the page, choose how much of the style, and press Run. The page
    works on this machine alone; images stay in DIR. Ctrl-C ends the studio and keeps the image so
    far of the run under way; runs that wait go on when it is started again.
    """
    from jaxstyle.cli.browser import open_page
    from jaxstyle.cli.devices import enable_compilation_cache
    from jaxstyle.cli.inputs import tell_weights
    from jaxstyle.monitor.interrupts import INTERRUPTED, TERMINATED, Terminated, interrupts
    from jaxstyle.monitor.serve.server import check_port
    from jaxstyle.studio import Folder, RunQueue, StudioView
    from jaxstyle.weights import load_network

    check_port(port, argument="--port")
    enable_compilation_cache()
    network = load_network(weights_name)
    queue = RunQueue(Folder(output, argument="-o"), network=network, weights=weights_name)
    tell_weights(weights_name)
    with interrupts(tell_from_signal) as check_interrupt:
        queue.start()
        page = open_page(port, StudioView(queue), argument="--port")
        if open_browser:
            click.launch(page.address)
        try:
            while True:
                time.sleep(0.3)
                check_interrupt()
        except KeyboardInterrupt as signal:
            queue.end()
            page.finish("the studio has ended; start it again with jaxstyle studio")
            tell(f"ended; the images are in {output}")
            return TERMINATED if isinstance(signal, Terminated) else INTERRUPTED
