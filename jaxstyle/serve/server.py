"""The server of a live page: a thread beside the run, gone when the run is."""

import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from jaxstyle import images
from jaxstyle.errors import JaxstyleError
from jaxstyle.live import Live
from jaxstyle.serve.page import Shared, make_app

HOST = "127.0.0.1"
# A page asks once a second; one that has not asked for so long is closed.
WATCHED_WITHIN = 4.0


class Page:
    """A page that is being served."""

    def __init__(self, address: str, shared: Shared):
        self.address = address
        """Where to look, with the token."""
        self._shared = shared

    @property
    def live(self) -> Live:
        """To be ticked by the run."""
        return self._shared.live

    @property
    def stopped(self) -> bool:
        """Whether somebody pressed the button."""
        return self._shared.stop.is_set()

    def finish(self, message: str, *, wait: float = WATCHED_WITHIN) -> None:
        """Tell the page what became of the run; wait, if somebody looks, until it is told."""
        self._shared.message = message
        if time.monotonic() - self._shared.last_asked < WATCHED_WITHIN:
            if self._shared.told.wait(wait):
                # The page asks for the last picture and curve after that.
                time.sleep(0.5)


def check_port(port: int) -> None:
    """Raise, before any long work, what `serve` would raise.

    Raises:
      JaxstyleError: the web server is not installed, or the port cannot be had.
    """
    _listen(port).close()


@contextmanager
def serve(live: Live, content: np.ndarray, *, port: int = 0) -> Iterator[Page]:
    """Serve a live page while the block runs.

    Args:
      live: to be ticked by the run.
      content: the picture `[h, w, 3]` in [0, 1] to compare with.
      port: of 127.0.0.1; 0 takes a free one.

    Raises:
      JaxstyleError: the web server is not installed, or the port cannot be had.
    """
    listener = _listen(port)
    import uvicorn

    token = secrets.token_urlsafe(24)
    shared = Shared(live, images.encode_image(content, "JPEG"))
    # The address holds the token: no access log.
    config = uvicorn.Config(
        make_app(shared, token), log_config=None, access_log=False, lifespan="off",
        timeout_graceful_shutdown=1, server_header=False,
    )  # fmt: skip
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    try:
        yield Page(f"http://{HOST}:{listener.getsockname()[1]}/{token}/", shared)
    finally:
        server.should_exit = True
        thread.join(3)
        listener.close()


def _listen(port: int) -> socket.socket:
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError:
        raise JaxstyleError(
            "--serve: the web server is not installed; get it with `pip install 'jaxstyle[serve]'`"
        ) from None
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, port))
        listener.listen()
    except (OSError, OverflowError) as error:
        listener.close()
        raise JaxstyleError(
            f"--serve: port {port} of {HOST} cannot be had ({error}); give another, or none for "
            "a free one"
        ) from None
    return listener
