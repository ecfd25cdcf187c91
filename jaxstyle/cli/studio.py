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
    help="Port of the page on this machine; 0 chooses a free one.",
)
@click.option(
    "-o",
    "--output",
    type=IMAGE,
    default=Path("studio"),
    show_default=True,
    metavar="DIR",
    help="Folder for input images and results.",
)
@weights_option
@click.option("--open", "open_browser", is_flag=True, help="Open the page in the browser.")
def studio(port: int, output: Path, weights_name: str, open_browser: bool) -> int:
    """Serve a web page for stylizing images interactively.

    Drop a photograph and a style on the page, choose the strength of the style, and press Run. The
    page can be opened on this machine only; all images are stored in DIR. Ctrl-C ends the studio
    and saves the best image so far of the current run; waiting runs continue when the studio is
    started again.
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
            tell(f"the studio has ended; the images are in {output}")
            return TERMINATED if isinstance(signal, Terminated) else INTERRUPTED
