"""The live page as a web application: what it answers to whom."""

import math
import threading
import time
from importlib.resources import files
from secrets import compare_digest
from typing import TYPE_CHECKING, Any

from jaxstyle.live import Live

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request

HEADERS = {
    "Cache-Control": "no-store",
    # Nothing but what this server gives, and no page may show this one in a frame.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
    # The token is in the address: no other server is to hear of it.
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_FILES = {"": "page.html", "page.js": "page.js", "page.css": "page.css"}
_TYPES = {"html": "text/html", "js": "text/javascript", "css": "text/css"}


class Shared:
    """What the run and its page tell each other, from two threads.

    Args:
      live: the run's pictures and numbers.
      content: the content picture as a JPEG, as large as the pictures shown.
    """

    def __init__(self, live: Live, content: bytes):
        self.live = live
        self.content = content
        self.stop = threading.Event()
        """Set by the page's button."""
        self.message = ""
        """What became of the run; empty while it goes on."""
        self.told = threading.Event()
        """Set when a page has been given the message."""
        self.last_asked = -math.inf
        """When a page last asked, by `time.monotonic`."""

    def state(self) -> dict[str, Any]:
        """Give the run's state as JSON has it: what is not finite is null."""
        self.last_asked = time.monotonic()
        message = self.message
        view = self.live.view()
        if view is None:
            return {"step": None, "message": message}
        return {
            "step": view.step,
            "steps": view.steps,
            "labels": list(view.labels),
            "losses": [_finite(loss) for loss in view.losses],
            "terms": [{k: _finite(v) for k, v in terms.items()} for terms in view.terms],
            "evaluations_per_second": view.evaluations_per_second,
            "seconds_left": view.seconds_left,
            "stopping": self.stop.is_set(),
            "message": message,
        }


def make_app(shared: Shared, token: str) -> "Starlette":
    """Build the application; every address begins with the token.

    `GET /TOKEN/` is the page, `state` its numbers, `picture/LANE` the best picture so far,
    `content` the content picture, `curves` an SVG; `POST /TOKEN/stop` stops the run. What has
    another token, or a host that is not this machine's own name, is not answered: a page of
    another site in the same browser can reach this port, but neither knows the token nor, by
    giving its own name this address, passes for this machine.
    """
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Route

    def answer(content: bytes | str, kind: str) -> Response:
        return Response(content, media_type=kind, headers=HEADERS)

    def guarded(function: Any) -> Any:
        # Not async: encoding a picture takes a while, and Starlette runs this in a thread.
        def endpoint(request: "Request") -> Response:
            given = request.path_params["token"]
            if not compare_digest(given.encode(), token.encode()):
                return Response("not found", 404, headers=HEADERS)
            try:
                response: Response = function(request)
            except LookupError:
                return Response("not found", 404, headers=HEADERS)
            return response

        return endpoint

    def file(request: "Request") -> Response:
        name = _FILES[request.path_params.get("name", "")]
        data = files("jaxstyle.serve").joinpath(name).read_bytes()
        return answer(data, _TYPES[name.rpartition(".")[2]])

    def state(request: "Request") -> Response:
        found = shared.state()
        if found["message"]:
            shared.told.set()
        return JSONResponse(found, headers=HEADERS)

    def picture(request: "Request") -> Response:
        return answer(shared.live.picture(request.path_params["lane"]), "image/jpeg")

    def content(request: "Request") -> Response:
        return answer(shared.content, "image/jpeg")

    def curves(request: "Request") -> Response:
        return answer(shared.live.curves(width=720, height=260), "image/svg+xml")

    def stop(request: "Request") -> Response:
        shared.stop.set()
        return answer("", "text/plain")

    routes = [
        Route("/{token}/", guarded(file)),
        Route("/{token}/state", guarded(state)),
        Route("/{token}/content", guarded(content)),
        Route("/{token}/curves", guarded(curves)),
        Route("/{token}/stop", guarded(stop), methods=["POST"]),
        Route("/{token}/picture/{lane:int}", guarded(picture)),
        Route("/{token}/{name}", guarded(file)),
    ]
    hosts = Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"])
    app = Starlette(routes=routes, middleware=[hosts])
    # An address that is not known is not answered with another one.
    app.router.redirect_slashes = False
    return app


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
