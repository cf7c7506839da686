"""A body as its schema, or an error that names the field, its value and what it must be.

Tests: tests/server/test_api_validation.py.
"""

import json
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from starlette.requests import Request

from nano_llama.server.bodies import Hold, read_json
from nano_llama.server.errors import ApiError
from nano_llama.server.schemas import NOTED, TAGS, Body
from nano_llama.server.settings import ServerSettings

B = TypeVar("B", bound=Body)

# pydantic's kinds of errors -> what the value must be; {names} are the error's own context.
MUST_BE = {
    "missing": "is missing",
    "string_type": "must be a string",
    "string_too_short": "must have at least {min_length} character",
    "string_pattern_mismatch": "must match the pattern {pattern}",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "list_type": "must be a list",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "none_required": "is not supported and must be null",
    "literal_error": "must be {expected}",
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be below {lt}",
    "less_than_equal": "must be at most {le}",
    "too_short": "must have at least {min_length} entries",
    "too_long": "must have at most {max_length} entries",
}


async def read_as(request: Request, schema: type[B], hold: Hold | None = None) -> B:
    """The request's body, whatever its Content-Type says. Raises ApiError: 413 and 400 as bodies.py, 400 for a field.
    hold: given, it may have pictures.

    Fields that are accepted without effect are named in the log.
    """
    body = validate(await read_json(request, hold), schema, request.app.state.service.settings)
    if noted := [name for name in NOTED if name in body.model_fields_set]:
        request.state.log["noted"] = noted
    return body


def validate(body: dict[str, Any], schema: type[B], settings: ServerSettings) -> B:
    """The body as its schema. Raises ApiError (400) for the first field that is wrong."""
    for name, instead in schema.refused.items():
        if body.get(name) is not None:
            raise ApiError(400, f"{name} is not supported by this server. {instead}", param=name, code="unsupported")
    given = {name: value for name, value in body.items() if name not in schema.refused}
    try:
        return schema.model_validate(given, extra="ignore" if settings.ignore_unknown_fields else "forbid")
    except ValidationError as error:
        raise _api_error(error.errors(include_url=False, include_context=True), schema) from None


def _api_error(errors: Sequence[ErrorDetails], schema: type[Body]) -> ApiError:
    """About the first error; where a part of a message is of another type than text, that is the cause of the rest."""
    error = errors[0]
    path = _path(error["loc"])
    if error["type"] == "extra_forbidden":
        return _unknown_field(path, error["loc"], schema)
    context = {name: _plain(value) for name, value in error.get("ctx", {}).items()}
    expected = MUST_BE[error["type"]].format(**context) if error["type"] in MUST_BE else error["msg"]
    value = "" if error["type"] == "missing" else f"={json.dumps(error['input'], ensure_ascii=False):.80}"
    return ApiError(400, f"{path}{value} {expected}.", param=path)


def _unknown_field(path: str, place: Sequence[int | str], schema: type[Body]) -> ApiError:
    """An unknown field is not ignored: what it asks for would silently not happen."""
    message = f"The field {path:.80} is not known to this server."
    close = get_close_matches(str(place[-1]), schema.model_fields, n=1) if len(place) == 1 else []
    hint = f"Did you mean {close[0]}?" if close else "Leave it out; /openapi.json lists the fields."
    return ApiError(400, f"{message} {hint}", param=path[:80], code="unknown_field")


def _path(place: Sequence[int | str]) -> str:
    """messages[0].content[1].type"""
    path = ""
    for step in place:
        if isinstance(step, int):
            path += f"[{step}]"
        elif step not in TAGS and step != "[key]":
            path += f".{step}" if path else step
    return path


def _plain(value: Any) -> Any:
    """2.0 as 2, and the values of a Literal as JSON has them."""
    if isinstance(value, str):
        return value.replace("'", '"').replace("False", "false")
    return f"{value:g}" if isinstance(value, float) else value
