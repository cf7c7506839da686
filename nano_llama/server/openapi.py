"""GET /openapi.json: the API described for programs, made from the schemas of the bodies.

Tests: tests/server/test_api_openapi.py.
"""

from functools import cache
from typing import Any

from pydantic.json_schema import models_json_schema
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route

from nano_llama.core.version import VERSION
from nano_llama.server.errors import json_response
from nano_llama.server.openapi_answers import ANSWERS
from nano_llama.server.schemas import (
    Body,
    ChatBody,
    CompletionBody,
    DetokenizeBody,
    RenderBody,
    TokenizeBody,
)

BODIES: tuple[type[Body], ...] = (CompletionBody, ChatBody, RenderBody, TokenizeBody, DetokenizeBody)
PLACE = "#/components/schemas/{model}"

ERRORS = {
    400: "A field is missing, unknown or out of range; the error names it.",
    401: "The API key is missing or wrong.",
    403: "This Host or Origin may not use the server.",
    404: "The model, or the path, is not served here.",
    405: "The path is served, with another method.",
    413: "The body exceeds max_body_bytes, or the pictures in it max_image_bytes.",
    415: "The body is compressed.",
    429: "The queue is full. Retry-After says in how many seconds there is likely to be room.",
    500: "A fault of the server, which its log explains.",
    503: "The model is loading, the server is shutting down, or its engine has failed.",
}
OF_POST, OF_GET = tuple(ERRORS), (401, 403, 404, 405, 500, 503)


@cache
def document() -> dict[str, Any]:
    """The OpenAPI 3.1 document."""
    _, schemas = models_json_schema([(body, "validation") for body in BODIES], ref_template=PLACE)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "nano-llama-engine",
            "version": VERSION,
            "description": "OpenAI's API over the nano-llama engine. Null is as good as absent; unknown fields are "
            "refused.",
        },
        "security": [{}, {"key": []}],
        "paths": {
            "/v1/completions": _post(CompletionBody, "Continue prompts", "Completion", stream=True),
            "/v1/chat/completions": _post(ChatBody, "Answer a conversation", "ChatCompletion", stream=True),
            "/v1/chat/completions/render": _post(RenderBody, "What the model would read", "Rendered"),
            "/tokenize": _post(TokenizeBody, "Text or a conversation to token ids", "Tokens"),
            "/detokenize": _post(DetokenizeBody, "Token ids to text", "Text"),
            "/tokenizer_info": _get("Special tokens and the chat template", "TokenizerInfo"),
            "/v1/models": _get("What is served", "ModelList"),
            "/v1/models/{id}": _get("One model", "Model", parameter="id"),
            "/health": _get("Whether requests are served, and how long ago the last step was", "Health"),
            "/version": _get("The version of the software", "Version"),
        },
        "components": {
            "schemas": {**schemas["$defs"], **ANSWERS},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _post(body: type[Body], summary: str, answer: str, *, stream: bool = False) -> dict[str, Any]:
    content: dict[str, Any] = {"application/json": {"schema": _ref(answer)}}
    if stream:
        content["text/event-stream"] = {"schema": {"type": "string"}}
    asked = {"required": True, "content": {"application/json": {"schema": _ref(body.__name__)}}}
    return {"post": {"summary": summary, "requestBody": asked, "responses": _responses(content, OF_POST)}}


def _get(summary: str, answer: str, *, parameter: str = "") -> dict[str, Any]:
    content = {"application/json": {"schema": _ref(answer)}}
    operation: dict[str, Any] = {"summary": summary, "responses": _responses(content, OF_GET)}
    if parameter:
        operation["parameters"] = [{"name": parameter, "in": "path", "required": True, "schema": {"type": "string"}}]
    return {"get": operation}


def _responses(content: dict[str, Any], errors: tuple[int, ...]) -> dict[str, Any]:
    failed = {"application/json": {"schema": _ref("Error")}}
    return {
        "200": {"description": "The answer.", "content": content},
        **{str(status): {"description": ERRORS[status], "content": failed} for status in errors},
    }


def _ref(name: str) -> dict[str, str]:
    return {"$ref": PLACE.format(model=name)}


async def openapi(http: HttpRequest) -> Response:
    return json_response(document())


ROUTES = [Route("/openapi.json", openapi)]
