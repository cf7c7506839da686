"""The JSON body of a request: read within its limits, strict, and refused with the reason.

A body with pictures may be far longer than one without. What is parsed, checked and validated value by value is only
its rest, which is held to the limit of all other bodies; a picture is one string, whatever its length.
Tests: tests/server/test_bodies.py.
"""

import asyncio
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from starlette.requests import Request

from nano_llama.server.errors import ApiError, ClientLeft
from nano_llama.server.settings import ServerSettings

PARSED_AT_ONCE = 64 * 1024  # bytes; a longer body is parsed in a thread, so that the event loop goes on
# A string, so that the brackets in it do not count, or a bracket. An unterminated string runs to the end.
STRINGS_AND_BRACKETS = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[][{}]', re.DOTALL)
PICTURE = b'"data:image'  # how a string begins that is a picture
Hold = Callable[[int], None]  # is told of bytes that have come, and raises ApiError where they are too many


class HeldBodies:
    """How many bytes of bodies are in memory, of all requests together."""

    def __init__(self, most: int):
        self.most, self.bytes = most, 0

    @contextmanager
    def share(self) -> Iterator[Hold]:
        """One request's, which are let go at the end of the block. Its Hold raises ApiError, 429."""
        own = 0

        def hold(count: int) -> None:
            nonlocal own
            if self.bytes + count > self.most:
                raise ApiError(
                    429,
                    f"The bodies of requests with pictures take {self.bytes:,} bytes (max_held_bytes={self.most:,}).",
                    code="overloaded",
                    headers={"Retry-After": "1"},
                )
            own, self.bytes = own + count, self.bytes + count

        try:
            yield hold
        finally:
            self.bytes -= own


async def read_json(request: Request, hold: Hold | None = None) -> dict[str, Any]:
    """The object in the body. Raises ApiError: 413 for a body that is too long, 415 for one that is compressed, 400 for
    one that is not an object. hold: given, the body may have pictures.
    """
    settings: ServerSettings = request.app.state.service.settings
    if (coding := request.headers.get("content-encoding", "identity")).lower() != "identity":
        raise ApiError(
            415, f"Content-Encoding {coding:.40} is not supported. Send the body as it is.", code="unsupported_encoding"
        )
    body = await read_body(request, settings, hold)
    if len(body) <= PARSED_AT_ONCE:
        return _parse_within(body, settings)
    return await asyncio.to_thread(_parse_within, body, settings)


async def read_body(request: Request, settings: ServerSettings, hold: Hold | None) -> bytes:
    """A length that the client announces is believed, and refused before it is read."""
    most = settings.max_body_bytes
    too_long = _too_long(f"The body exceeds {most:,} bytes (max_body_bytes).")
    if hold is not None:
        most += settings.max_image_bytes
        too_long = _too_long(
            f"The body exceeds {most:,} bytes: {settings.max_image_bytes:,} for pictures as base64 (max_image_bytes), "
            f"{settings.max_body_bytes:,} for the rest (max_body_bytes). Make the pictures smaller, or send fewer."
        )
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > most:
        raise too_long
    pieces, total = [], 0
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientLeft
        pieces.append(message.get("body", b""))
        total += len(pieces[-1])
        if total > most:
            raise too_long
        if hold is not None:
            hold(len(pieces[-1]))
        if not message.get("more_body"):
            return b"".join(pieces)


def _parse_within(body: bytes, settings: ServerSettings) -> dict[str, Any]:
    """parse_object, of a body with pictures too. Raises ApiError 413 where pictures, or the rest, are too long."""
    if len(body) > settings.max_body_bytes:
        rest = len(without_pictures(body))
        if rest > settings.max_body_bytes:
            raise _too_long(
                f"The body without its pictures has {rest:,} bytes, more than {settings.max_body_bytes:,}"
                " (max_body_bytes)."
            )
        if len(body) - rest > settings.max_image_bytes:
            raise _too_long(
                f"The pictures in the body have {len(body) - rest:,} bytes as base64, more than "
                f"{settings.max_image_bytes:,} (max_image_bytes). Make them smaller, or send fewer."
            )
    return parse_object(body, settings.max_json_depth)


def without_pictures(body: bytes) -> bytes:
    """The body with each string that is a data URL of a picture cut short: the same brackets, the same strings.

    Found by bytes.find, at the speed of memory: a regular expression would hold Python's lock for as long as a step of
    the engine takes.
    """
    pieces, place = [], 0
    while (begin := body.find(PICTURE, place)) >= 0:
        stop = body.find(b'"', begin + 1)
        # any escape but \/, which some clients write for /, may be that of a quote: then this is a text about pictures
        if stop < 0 or b"\\" in body[max(begin - 1, 0) : stop].replace(b"\\/", b""):
            stop = begin + len(PICTURE)
        pieces.append(body[place : begin + len(PICTURE)])
        place = stop
    return b"".join([*pieces, body[place:]])


def parse_object(body: bytes, max_depth: int, what: str = "The body", param: str | None = None) -> dict[str, Any]:
    """Strict JSON: UTF-8, no NaN and no Infinity, no half characters, and not too deep. what, param: for the error."""
    check_depth(without_pictures(body), max_depth, what, param)
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


def _too_long(message: str) -> ApiError:
    return ApiError(413, message, code="body_too_large")
