"""The web application of a page: its addresses, answers and token."""

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
LARGEST_BODY = 128 * 2**20
"""Bytes of what a page sends: an image file."""
# Those that all pages have; each has more of its own.
_FILES = ("page.css", "page.js", "icon.svg")
_TYPES = {
    "html": "text/html",
    "js": "text/javascript",
    "css": "text/css",
    "svg": "image/svg+xml",
}


def make_app(view: View, token: str, *, embedded: bool = False) -> "Starlette":
    """Build the application; every address begins with the token.

    `GET /TOKEN/` is the page, `state` its numbers, other names its files or what the view
    answers; `POST /TOKEN/stop` stops the run, other names are what the view does. What has another
    token, or a host that is not this machine's own name, is not answered: a page of another site in
    the same browser can reach this port, but neither knows the token nor, by giving its own name
    this address, passes for this machine.

    Args:
      view: what is shown.
      token: has to be known to be answered.
      embedded: answer under any host name and let any page show this one in a frame: a notebook's
        platform chooses both. The token alone keeps others away.
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
        # Not async: encoding an image takes a while, and Starlette runs this in a thread.
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
            # Only now: browsers show no answer that comes before they have sent everything.
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
    # An address that is not known is not answered with another one.
    app.router.redirect_slashes = False
    return app
