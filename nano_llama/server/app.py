"""create_app: the routes, and the Entrance, through which every request passes on its way in and out.

Tests: tests/server/test_app.py.
"""

import asyncio
import time
from contextlib import suppress

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nano_llama.core.version import VERSION
from nano_llama.server import chat, completions, inspection, models, openapi, page_files, tokenization
from nano_llama.server.auth import OPEN_PATHS, PAGE_PREFIX, check_key
from nano_llama.server.errors import ApiError, ClientLeft, api_error, error_response, json_response
from nano_llama.server.hosts import check_host, check_origin, cors_headers, preflight, with_path
from nano_llama.server.logs import REQUEST_ID, event, request_id
from nano_llama.server.metrics import CONTENT_TYPE
from nano_llama.server.service import Service

# For browsers: take an answer for what it says it is, tell nobody where it came from, run nothing that it holds. (The
# files of the page have a content-security-policy of their own.)
SECURITY_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
]
ANSWERED_WHILE_LOADING = (*OPEN_PATHS, "/version", "/metrics")  # and the files of the page
PATIENT_PATH, PATIENCE_SECONDS = "/inspect/model", 50.0  # a page that is open early shows something once it can
UNREADY = {
    "loading": "The model is being loaded.",
    "draining": "The server is shutting down.",
    "failed": "The engine has failed: this server must be started again.",
}
REFUSALS = (401, 403, 408, 413, 415, 429, 431, 503)  # statuses of requests that cost nothing, counted in rejected_total
CLIENT_LEFT = 499  # in the log; nobody receives it


def create_app(service: Service) -> Starlette:
    """The ASGI application around one service."""
    app = Starlette(
        routes=[*ROUTES, *(PAGE_ROUTES if service.settings.page else ())],
        middleware=[Middleware(Entrance, service=service)],
        exception_handlers={HTTPException: _raise},  # the framework's own errors are answered by the Entrance too
    )
    app.router.redirect_slashes = False  # a redirect behind a proxy with TLS would lead to http, and take the key along
    app.state.service = service
    return app


def _raise(request: Request, error: Exception) -> Response:
    raise error


class Entrance:
    """Around all routes: the id of a request, the checks before it costs anything, its errors, and its line in the log.

    Plain ASGI: what Starlette offers for it would put a task and a queue between a stream and its client.
    """

    def __init__(self, app: ASGIApp, service: Service):
        self.app, self.service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        scope = with_path(scope)
        request = Request(scope, receive)
        request.state.request_id = request_id(request.headers.get("x-request-id"))
        request.state.log = {}
        REQUEST_ID.set(request.state.request_id)
        answer = Answer(request, self.service, send)
        began = time.perf_counter()
        self.service.in_flight += 1
        try:
            asked_by_browser = preflight(request, self.service.settings.cors_origins)
            if asked_by_browser is None:
                self.check(request)
                await self.check_state(scope["path"])
            await (asked_by_browser or self.app)(scope, receive, answer.send)
        except ClientLeft:
            answer.status = CLIENT_LEFT
        except Exception as error:
            if answer.status is not None:
                raise  # amid an answer: uvicorn cuts the connection, which no client takes for a success
            await self.refuse(api_error(error, request.state.request_id), scope, receive, answer)
        finally:
            self.service.in_flight -= 1
            self.log(request, answer.status, time.perf_counter() - began)

    def check(self, request: Request) -> None:
        """Raise ApiError for a request that may not come in."""
        settings = self.service.settings
        check_host(request, settings.allowed_hosts)
        check_origin(request, settings.cors_origins)
        check_key(request, settings.api_key_digests)
        size = sum(len(name) + len(value) for name, value in request.scope["headers"])
        if size > settings.max_header_bytes:
            raise ApiError(431, f"The headers exceed {settings.max_header_bytes:,} bytes (max_header_bytes).")

    async def check_state(self, path: str) -> None:
        """Raise ApiError where a request needs the model and it is not there; on the PATIENT_PATH, not at once."""
        if path == PATIENT_PATH:
            with suppress(TimeoutError):
                await asyncio.wait_for(self.service.loading_over.wait(), PATIENCE_SECONDS)
        state = self.service.state
        if state != "ready" and path not in ANSWERED_WHILE_LOADING and not path.startswith(PAGE_PREFIX):
            raise ApiError(503, UNREADY[state], code=state, headers={"Retry-After": "2"})

    async def refuse(self, error: ApiError, scope: Scope, receive: Receive, answer: "Answer") -> None:
        if error.status in REFUSALS:
            self.service.metrics.rejected(error.code or str(error.status))
        await error_response(error)(scope, receive, answer.send)

    def log(self, request: Request, status: int | None, seconds: float) -> None:
        scope, key = request.scope, getattr(request.state, "key_digest", None)
        event(
            "request",
            method=scope["method"],
            path=scope["path"],
            status=status,
            seconds=round(seconds, 4),
            client=scope["client"][0] if scope["client"] else None,
            key=key and key[:8],
            **request.state.log,
        )


class Answer:
    """What is sent for one request: adds the headers that all answers have, and notes the status."""

    def __init__(self, request: Request, service: Service, send: Send):
        self.status: int | None = None
        self._request, self._service, self._send = request, service, send

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            own = list(message.get("headers", ()))
            named = {name for name, _ in own}
            message["headers"] = [*own, *(header for header in self._headers() if header[0] not in named)]
        await self._send(message)

    def _headers(self) -> list[tuple[bytes, bytes]]:
        closing = [(b"connection", b"close")] if self._service.draining else []
        own_id = (b"x-request-id", self._request.state.request_id.encode())
        cors = cors_headers(self._request, self._service.settings.cors_origins)
        return [own_id, *SECURITY_HEADERS, *cors, *closing]


# -- routes that need no model ----------------------------------------------------------------------------------------


async def health(request: Request) -> Response:
    """200 while requests are served, else 503. Waits for nothing: it answers under full load too."""
    service: Service = request.app.state.service
    if service.state != "ready":
        return json_response({"status": service.state}, 503)
    stats = service.engine.stats()
    return json_response({"status": "ok", "busy": stats.busy, "seconds_since_step": stats.seconds_since_step})


async def version(request: Request) -> Response:
    return json_response({"version": VERSION})


async def metrics(request: Request) -> Response:
    return Response(request.app.state.service.metrics.text(), media_type=CONTENT_TYPE)


ROUTES = [
    Route("/health", health),
    Route("/version", version),
    Route("/metrics", metrics),
    *completions.ROUTES,
    *chat.ROUTES,
    *tokenization.ROUTES,
    *models.ROUTES,
    *openapi.ROUTES,
]
PAGE_ROUTES = [*page_files.ROUTES, *inspection.ROUTES]  # absent with --no-page
