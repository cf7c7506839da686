"""The JSON body of a request: read within its limits, strict, and refused with the reason.

Tests: tests/server/test_bodies.py.
"""

import asyncio
import json
import re
from typing import Any, NoReturn

from starlette.requests import Request

from nano_llama.server.errors import ApiError, ClientLeft
from nano_llama.server.settings import ServerSettings

PARSED_AT_ONCE = 64 * 1024  # bytes; a longer body is parsed in a thread, so that the event loop goes on
# A string, so that the brackets in it do not count, or a bracket. An unterminated string runs to the end.
STRINGS_AND_BRACKETS = re.compile(rb'"(?:[^"\\]|\\.)*+"?|[][{}]', re.DOTALL)


async def read_json(request: Request) -> dict[str, Any]:
    """The object in the body. Raises ApiError: 413 for a body that is too long, 415 for one that is compressed, 400 for
    one that is not an object.
    """
    settings: ServerSettings = request.app.state.service.settings
    if (coding := request.headers.get("content-encoding", "identity")).lower() != "identity":
        raise ApiError(
            415, f"Content-Encoding {coding:.40} is not supported. Send the body as it is.", code="unsupported_encoding"
        )
    body = await read_body(request, settings.max_body_bytes)
    if len(body) <= PARSED_AT_ONCE:
        return parse_object(body, settings.max_json_depth)
    return await asyncio.to_thread(parse_object, body, settings.max_json_depth)


async def read_body(request: Request, most: int) -> bytes:
    """At most so many bytes; a length that the client announces is believed, and refused before it is read."""
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > most:
        raise _too_long(most)
    pieces, total = [], 0
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientLeft
        pieces.append(message.get("body", b""))
        total += len(pieces[-1])
        if total > most:
            raise _too_long(most)
        if not message.get("more_body"):
            return b"".join(pieces)


def parse_object(body: bytes, max_depth: int, what: str = "The body", param: str | None = None) -> dict[str, Any]:
    """Strict JSON: UTF-8, no NaN and no Infinity, no half characters, and not too deep. what, param: for the error."""
    check_depth(body, max_depth, what, param)
    try:
        text = body.decode("utf-8")
        value = json.loads(text, parse_constant=_refuse_constant)
        if "\\ud" in text or "\\uD" in text:  # half of a surrogate pair, which no tokenizer takes
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except ValueError as error:  # JSONDecodeError and UnicodeError are ValueErrors
        reason = "a number has too many digits" if "set_int_max_str_digits" in str(error) else error  # Python's hint
        raise ApiError(400, f"{what} is not valid JSON: {reason}.", code="invalid_json", param=param) from None
    if not isinstance(value, dict):
        raise ApiError(400, f"{what} must be a JSON object, not {text[:40]}.", code="invalid_json", param=param)
    return value


def check_depth(body: bytes, most: int, what: str = "The body", param: str | None = None) -> None:
    """Raise ApiError where brackets nest deeper than that: parsers recurse, and a schema is walked again and again."""
    depth = 0
    for found in STRINGS_AND_BRACKETS.finditer(body):
        match found[0]:
            case b"[" | b"{":
                depth += 1
                if depth > most:
                    raise ApiError(400, f"{what} nests deeper than {most} levels (max_json_depth).", param=param)
            case b"]" | b"}":
                depth -= 1


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")


def _too_long(most: int) -> ApiError:
    return ApiError(413, f"The body exceeds {most:,} bytes (max_body_bytes).", code="body_too_large")
