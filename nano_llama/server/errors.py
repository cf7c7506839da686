"""Every failure in OpenAI's shape: {"error": {"message", "type", "param", "code"}}, with the status that fits.

A handler raises ApiError, or an error of ours: UserError (400), ContextLengthError (400), EngineOverloaded (429).
Whatever else it raises is a bug: 500 with the id of the request, under which the log has the traceback.
Tests: tests/server/test_app.py.
"""

import json
import logging
import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import Response

from nano_llama.core.errors import ContextLengthError, EngineOverloaded, UserError

log = logging.getLogger("nano_llama.server")

TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_exceeded",
    500: "server_error",
    503: "server_error",
}


class ApiError(Exception):
    """An answer that is an error. `param` names the field of the body, `code` is for programs."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str | None = None,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ):
        super().__init__(message)
        self.status = status
        self.message = message
        self.type = type or TYPES.get(status, "invalid_request_error")
        self.code = code
        self.param = param
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}


class ClientLeft(Exception):
    """The client closed the connection while its request waited or ran."""


def limit_exceeded(param: str, value: object, limit: str, most: float) -> ApiError:
    """`value` of the body's field `param` exceeds the setting `limit`, which is `most`."""
    return ApiError(400, f"{param}: {value} exceeds this server's limit of {most} ({limit}).", param=param)


def api_error(error: BaseException, request_id: str) -> ApiError:
    """What the client is told of an exception. What is a bug is logged, with its traceback."""
    match error:
        case ApiError():
            return error
        case HTTPException():
            return _from_starlette(error)
        case ContextLengthError():
            return ApiError(400, on_one_line(error), code="context_length_exceeded")
        case UserError():
            return ApiError(400, on_one_line(error))
        case EngineOverloaded():
            headers = {"Retry-After": str(max(1, math.ceil(error.retry_after)))}
            return ApiError(429, on_one_line(error), code="overloaded", headers=headers)
    log.error("internal error", exc_info=error)
    return ApiError(500, f"Internal error. The server's log has the details under {request_id}.", code="internal_error")


def _from_starlette(error: HTTPException) -> ApiError:
    """404, 405 and 413, which the framework finds by itself."""
    codes = {404: "unknown_url", 405: "method_not_allowed", 413: "body_too_large"}
    phrase = HTTPStatus(error.status_code).phrase
    hint = "OpenAI's paths begin with /v1; /openapi.json lists what this server offers."
    message = error.detail if error.detail != phrase else f"{phrase}. {hint}"
    return ApiError(error.status_code, message, code=codes.get(error.status_code), headers=error.headers)


def on_one_line(error: UserError | EngineOverloaded) -> str:
    return " ".join(filter(None, (error.message, error.hint)))


def error_response(error: ApiError) -> Response:
    """The error as a whole answer."""
    return json_response(error.body(), error.status, error.headers)


def json_response(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON answer in ASCII, in which no client can cut a character."""
    text = json.dumps(body, separators=(",", ":"), allow_nan=False)
    return Response(text, status, headers, media_type="application/json")
