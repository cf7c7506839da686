"""create_app: the routes, and around them what every request passes.

Tests: tests/server/test_app.py.
"""

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from nano_llama.core.errors import NanoLlamaError
from nano_llama.core.version import VERSION
from nano_llama.server.errors import ApiError, api_error, error_response, json_response
from nano_llama.server.service import Service


def create_app(service: Service) -> Starlette:
    """The ASGI application around one service."""
    handlers = {kind: answer_error for kind in (ApiError, NanoLlamaError, HTTPException)}
    app = Starlette(routes=ROUTES, exception_handlers=handlers)
    app.state.service = service
    return app


async def answer_error(request: Request, error: Exception) -> Response:
    """What a handler raised, in OpenAI's shape."""
    return error_response(api_error(error, getattr(request.state, "request_id", "")))


async def health(request: Request) -> Response:
    """200 while requests are served, else 503. Waits for nothing: it answers under full load too."""
    service: Service = request.app.state.service
    if service.state != "ready":
        return json_response({"status": service.state}, 503)
    return json_response({"status": "ok", "seconds_since_step": service.engine.stats().seconds_since_step})


async def version(request: Request) -> Response:
    return json_response({"version": VERSION})


ROUTES = [Route("/health", health), Route("/version", version)]
