"""The web application of a page: its addresses, responses and token."""

from importlib.resources import files
from secrets import compare_digest
from typing import TYPE_CHECKING, Any

from jaxstyle.errors import JaxstyleError
from jaxstyle.monitor.serve.view import Answer, View

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request

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
    from starlette.concurrency import run_in_threadpool
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Route

    shared = {name: ("jaxstyle.monitor.serve", name) for name in _FILES}
    headers = dict(HEADERS)
    if embedded:
        policy = headers["Content-Security-Policy"]
        headers["Content-Security-Policy"] = policy.replace("; frame-ancestors 'none'", "")
        headers["Cross-Origin-Resource-Policy"] = "cross-origin"
    own = shared | {name: (view.PACKAGE, file) for name, file in view.FILES.items()}

    def guarded(function: Any) -> Any:
        # Not async, so that Starlette runs it in a thread, as encoding an image takes time.
        def endpoint(request: "Request") -> Response:
            given = request.path_params["token"]
            if not compare_digest(given.encode(), token.encode()):
                return Response("not found", 404, headers=headers)
            view.asked()
            try:
                response: Response = function(request)
            except LookupError:
                return Response("not found", 404, headers=headers)
            return response

        return endpoint

    def read(request: "Request") -> Response:
        name, number = request.path_params.get("name", ""), request.path_params.get("number")
        if name in own and number is None:
            package, file = own[name]
            data = files(package).joinpath(file).read_bytes()
            answer = Answer(data, _TYPES[file.rpartition(".")[2]])
        else:
            answer = view.answer(name, number)
        return Response(answer.content, media_type=answer.kind, headers=headers)

    def state(request: "Request") -> Response:
        since = request.query_params.get("since", "0")
        page = request.query_params.get("page", "")[:40]
        if waits := request.query_params.get("wait"):
            view.hold(has_end=waits == "close")
        state = view.state_for(page, int(since) if since.isdecimal() and len(since) < 10 else 0)
        return JSONResponse(state, headers=headers)

    def stop(request: "Request") -> Response:
        view.stop.set()
        return Response("", headers=headers)

    async def post(request: "Request") -> Response:
        given = request.path_params["token"]
        if not compare_digest(given.encode(), token.encode()):
            return Response("not found", 404, headers=headers)
        view.asked()
        parts, size = [], 0
        async for part in request.stream():
            size += len(part)
            if size <= LARGEST_BODY:
                parts.append(part)
        if size > LARGEST_BODY:
            # Not earlier, as browsers ignore a response that comes before the end of their request.
            told = (
                f"the file has {size / 2**20:.0f} MB, and at most {LARGEST_BODY // 2**20} are "
                "accepted; make it smaller"
            )
            return JSONResponse({"error": told}, 413, headers=headers)
        name, query = request.path_params["name"], dict(request.query_params)
        try:
            result = await run_in_threadpool(view.post, name, query, b"".join(parts))
        except JaxstyleError as error:
            return JSONResponse({"error": str(error)}, 400, headers=headers)
        except LookupError:
            return Response("not found", 404, headers=headers)
        return JSONResponse(result, headers=headers)

    routes = [
        Route("/{token}/", guarded(read)),
        Route("/{token}/state", guarded(state)),
        Route("/{token}/stop", guarded(stop), methods=["POST"]),
        Route("/{token}/{name}", post, methods=["POST"]),
        Route("/{token}/{name}", guarded(read)),
        Route("/{token}/{name}/{number:int}", guarded(read)),
    ]
    hosts = ["*"] if embedded else ["127.0.0.1", "localhost"]
    only_hosts = Middleware(TrustedHostMiddleware, allowed_hosts=hosts)
    app = Starlette(routes=routes, middleware=[only_hosts])
    # No redirects from unknown addresses.
    app.router.redirect_slashes = False
    return app
