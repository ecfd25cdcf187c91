"""The web application of a page: its addresses, responses and token."""

from collections.abc import Callable, Mapping
from importlib.resources import files
from secrets import compare_digest
from typing import TYPE_CHECKING, Any

from jaxstyle.errors import JaxstyleError
from jaxstyle.monitor.serve.view import Answer, View

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

HEADERS = {
    "Cache-Control": "no-store",
    # Load from this server and the page itself (blob) only, and forbid frames in other pages.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
    # Keep the token, which is in the address, from other servers.
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
LARGEST_BODY = 128 * 2**20
"""Largest request body (an image file), in bytes."""
# Files that all pages have, in addition to `View.FILES`.
_FILES = ("page.css", "page.js", "icon.svg")
_TYPES = {
    "html": "text/html",
    "js": "text/javascript",
    "css": "text/css",
    "svg": "image/svg+xml",
}


def make_app(view: View, token: str, *, embedded: bool = False) -> "Starlette":
    """Build the application; every address begins with the token.

    `GET /TOKEN/` returns the page and `GET /TOKEN/state` its state; other names are files or go to
    `view.answer`. `POST /TOKEN/stop` stops the run; other names go to `view.post`.

    Requests with another token, or a host name other than this machine's, are refused. Pages of
    other sites in the same browser can reach the port, but do not know the token, and the host name
    reveals DNS rebinding.

    Args:
      view: state of the page.
      token: secret in the address.
      embedded: whether to accept any host name and allow frames in other pages, for notebook
        platforms, which choose both; only the token protects the page then.
    """
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.routing import Route

    endpoints = _Endpoints(view, token, _headers(embedded=embedded))
    guarded = endpoints.guarded
    routes = [
        Route("/{token}/", guarded(endpoints.read)),
        Route("/{token}/state", guarded(endpoints.state)),
        Route("/{token}/stop", guarded(endpoints.stop), methods=["POST"]),
        Route("/{token}/{name}", endpoints.post, methods=["POST"]),
        Route("/{token}/{name}", guarded(endpoints.read)),
        Route("/{token}/{name}/{number:int}", guarded(endpoints.read)),
    ]
    hosts = ["*"] if embedded else ["127.0.0.1", "localhost"]
    only_hosts = Middleware(TrustedHostMiddleware, allowed_hosts=hosts)
    app = Starlette(routes=routes, middleware=[only_hosts])
    # No redirects from unknown addresses.
    app.router.redirect_slashes = False
    return app


def _headers(*, embedded: bool) -> dict[str, str]:
    """Return the headers of all responses; `embedded` allows frames in other pages."""
    headers = dict(HEADERS)
    if embedded:
        policy = headers["Content-Security-Policy"]
        headers["Content-Security-Policy"] = policy.replace("; frame-ancestors 'none'", "")
        headers["Cross-Origin-Resource-Policy"] = "cross-origin"
    return headers


class _Endpoints:
    """The responses of a page.

    Args:
      view: state of the page.
      token: secret in the address.
      headers: headers of all responses.
    """

    def __init__(self, view: View, token: str, headers: Mapping[str, str]):
        self._view = view
        self._token = token.encode()
        self._headers = headers
        shared = {name: ("jaxstyle.monitor.serve", name) for name in _FILES}
        # Package and file of each name that is a file.
        self._files = shared | {name: (view.PACKAGE, file) for name, file in view.FILES.items()}

    def guarded(self, function: "Callable[[Request], Response]") -> "Callable[..., Response]":
        """Return an endpoint that responds only to requests with the token."""

        # Not async, so that Starlette runs it in a thread, as encoding an image takes time.
        def endpoint(request: "Request") -> "Response":
            if not self._has_token(request):
                return self._not_found()
            self._view.asked()
            try:
                return function(request)
            except LookupError:
                return self._not_found()

        return endpoint

    def read(self, request: "Request") -> "Response":
        """Return a file of the page, or the view's answer."""
        from starlette.responses import Response

        name, number = request.path_params.get("name", ""), request.path_params.get("number")
        if name in self._files and number is None:
            package, file = self._files[name]
            data = files(package).joinpath(file).read_bytes()
            answer = Answer(data, _TYPES[file.rpartition(".")[2]])
        else:
            answer = self._view.answer(name, number)
        return Response(answer.content, media_type=answer.kind, headers=self._headers)

    def state(self, request: "Request") -> "Response":
        """Return the state of the page as JSON."""
        since = request.query_params.get("since", "0")
        page = request.query_params.get("page", "")[:40]
        number = int(since) if since.isdecimal() and len(since) < 10 else 0
        if waits := request.query_params.get("wait"):
            self._view.hold(has_end=waits == "close")
        return self._json(self._view.state_for(page, number))

    def stop(self, request: "Request") -> "Response":
        """Stop the run."""
        from starlette.responses import Response

        self._view.stop.set()
        return Response("", headers=self._headers)

    async def post(self, request: "Request") -> "Response":
        """Pass the body of a request to the view, and return its result or error as JSON."""
        from starlette.concurrency import run_in_threadpool

        if not self._has_token(request):
            return self._not_found()
        self._view.asked()
        body, size = await _read_body(request)
        if body is None:
            told = (
                f"the file has {size / 2**20:.0f} MB, and at most {LARGEST_BODY // 2**20} are "
                "accepted; make it smaller"
            )
            return self._json({"error": told}, 413)
        name, query = request.path_params["name"], dict(request.query_params)
        try:
            result = await run_in_threadpool(self._view.post, name, query, body)
        except JaxstyleError as error:
            return self._json({"error": str(error)}, 400)
        except LookupError:
            return self._not_found()
        return self._json(result)

    def _has_token(self, request: "Request") -> bool:
        given: str = request.path_params["token"]
        return compare_digest(given.encode(), self._token)

    def _json(self, value: Any, status: int = 200) -> "Response":
        from starlette.responses import JSONResponse

        return JSONResponse(value, status, headers=self._headers)

    def _not_found(self) -> "Response":
        from starlette.responses import Response

        return Response("not found", 404, headers=self._headers)


async def _read_body(request: "Request") -> tuple[bytes | None, int]:
    """Return the body of a request, None if it is larger than `LARGEST_BODY`, and its size.

    A large body is read to its end, since browsers ignore a response that comes before.
    """
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size <= LARGEST_BODY:
            parts.append(part)
    return (b"".join(parts) if size <= LARGEST_BODY else None), size
