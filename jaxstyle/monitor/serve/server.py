"""The web server of a live page, in a background thread."""

import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

from jaxstyle.errors import JaxstyleError
from jaxstyle.monitor.serve.app import make_app
from jaxstyle.monitor.serve.view import View

HOST = "127.0.0.1"
# Open pages request the state every second; after these seconds without, a page counts as closed.
WATCHED_WITHIN = 4.0
# Seconds without requests after which the pages have loaded everything.
QUIET = 0.5
Shown = TypeVar("Shown", bound=View)


class Page(Generic[Shown]):
    """A page that is served."""

    def __init__(self, address: str, view: Shown):
        self.address = address
        """Address of the page, with the token."""
        self.view = view
        """State of the page."""

    @property
    def stopped(self) -> bool:
        """Whether the stop button was pressed."""
        return self.view.stop.is_set()

    def finish(self, message: str, *, wait: float = WATCHED_WITHIN) -> None:
        """Send the outcome to open pages, and wait at most `wait` seconds until they have it."""
        self.view.message = message
        self.view.ended.set()
        end = time.monotonic() + wait
        while time.monotonic() < end and self.view.has_unanswered_pages(WATCHED_WITHIN):
            time.sleep(0.05)
        # Then the pages load the last images.
        while time.monotonic() < min(self.view.last_asked + QUIET, end):
            time.sleep(0.05)

    @property
    def is_open(self) -> bool:
        """Whether a browser shows the page."""
        return self.view.is_open(WATCHED_WITHIN)

    def wait_until_closed(self) -> None:
        """Wait until no browser shows the page."""
        while self.is_open:
            time.sleep(0.1)


def check_port(port: int, *, argument: str = "port") -> None:
    """Raise an error, before long work, if `serve` could not use a port.

    Args:
      port: port of 127.0.0.1; 0 selects a free one.
      argument: name of the port in error messages, such as `--serve`.

    Raises:
      JaxstyleError: the web server is not installed, or the port is not available.
    """
    _listen(port, argument).close()


@contextmanager
def serve(
    view: Shown, *, port: int = 0, argument: str = "port", embedded: bool = False
) -> Iterator[Page[Shown]]:
    """Serve a live page while the block runs.

    Args:
      view: state of the page.
      port: port of 127.0.0.1; 0 selects a free one.
      argument: name of the port in error messages, such as `--serve`.
      embedded: whether a notebook shows the page in a frame, as in `make_app`.

    Raises:
      JaxstyleError: the web server is not installed, or the port is not available.
    """
    listener = _listen(port, argument)
    import uvicorn

    token = secrets.token_urlsafe(24)
    # No access log, as the address contains the token.
    config = uvicorn.Config(
        make_app(view, token, embedded=embedded), log_config=None, access_log=False, lifespan="off",
        timeout_graceful_shutdown=1, server_header=False,
    )  # fmt: skip
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    try:
        yield Page(f"http://{HOST}:{listener.getsockname()[1]}/{token}/", view)
    finally:
        view.closing.set()
        server.should_exit = True
        thread.join(3)
        listener.close()


def _listen(port: int, argument: str) -> socket.socket:
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError:
        raise JaxstyleError(
            f"{argument}: the web server is not installed; get it with "
            "`pip install 'jaxstyle[serve]'`"
        ) from None
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, port))
        listener.listen()
    except (OSError, OverflowError) as error:
        listener.close()
        raise JaxstyleError(
            f"{argument}: port {port} of {HOST} cannot be had ({error}); give another, or none for "
            "a free one"
        ) from None
    return listener
