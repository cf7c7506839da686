"""GET /v1/models and /v1/models/{id}: what is served, and how long its context is.

Tests: tests/server/test_api_models.py.
"""

from typing import TYPE_CHECKING, Any

from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route

from nano_llama.server.errors import ApiError, json_response
from nano_llama.server.usage import service_of

if TYPE_CHECKING:
    from nano_llama.server.service import Service


def served_model(service: "Service", asked: str | None) -> str:
    """The name of the model that answers. Raises ApiError 404 for one that is not served."""
    if asked is None:
        return service.model_ids[0]
    if asked not in service.model_ids:
        raise ApiError(
            404,
            f"The model {asked!r:.80} is not served here. Served: {', '.join(service.model_ids)}.",
            type="invalid_request_error",
            code="model_not_found",
            param="model",
        )
    return asked


async def list_models(http: HttpRequest) -> Response:
    service = service_of(http)
    return json_response({"object": "list", "data": [describe(service, name) for name in service.model_ids]})


async def get_model(http: HttpRequest) -> Response:
    service = service_of(http)
    return json_response(describe(service, served_model(service, http.path_params["id"])))


def describe(service: "Service", name: str) -> dict[str, Any]:
    """OpenAI's fields; max_model_len and an adapter's parent, as vLLM's; meta, as llama-server's."""
    config, tokenizer = service.llm.config, service.llm.tokenizer
    return {
        "id": name,
        "object": "model",
        "created": service.created,
        "owned_by": "nano-llama-engine",
        "parent": None if service.adapter_of(name) is None else service.model_ids[0],
        "max_model_len": config.max_position_embeddings,
        "meta": {
            "n_ctx_train": config.max_position_embeddings,
            "n_embd": config.hidden_size,
            "n_vocab": config.vocab_size,
            "n_params": config.num_parameters,
            "chat": bool(tokenizer and tokenizer.chat_templates),
        },
    }


ROUTES = [
    Route("/v1/models", list_models),
    Route("/v1/models/{id:path}", get_model),
]
