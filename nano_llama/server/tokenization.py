"""POST /tokenize, POST /detokenize and GET /tokenizer_info, in vLLM's shapes: clients find a model's tokenizer by them.

Tests: tests/server/test_api_tokenization.py, test_api_lm_eval.py.
"""

import asyncio
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route

from nano_llama.server.chat import rendered
from nano_llama.server.errors import ApiError, json_response
from nano_llama.server.logprobs import token_name
from nano_llama.server.models import served_model
from nano_llama.server.parameters import check_characters
from nano_llama.server.schemas import DetokenizeBody, TokenizeBody
from nano_llama.server.streaming import unless_left
from nano_llama.server.usage import service_of
from nano_llama.server.validation import read_as

# Fields of a body that say how a text is read, and how a conversation is.
OF_TEXT = ("add_special_tokens", "parse_special")
OF_CHAT = ("tools", "add_generation_prompt", "continue_final_message", "chat_template_kwargs")


async def tokenize(http: HttpRequest) -> Response:
    service = service_of(http)
    body = await read_as(http, TokenizeBody)
    served_model(service, body.model)
    if (body.prompt is None) == (body.messages is None):
        raise ApiError(400, "Give prompt or messages, and one of them only.", param="prompt")
    for name in OF_TEXT if body.prompt is None else OF_CHAT:
        if getattr(body, name) is not None:
            other = "prompt" if body.prompt is None else "messages"
            raise ApiError(400, f"{name} needs {other}.", param=name)
    tokenizer = service.tokenizer
    if body.messages is not None:
        _, ids = await unless_left(http, rendered(body.messages, body, service))
    else:
        assert body.prompt is not None, "one of the two is given"
        check_characters(len(body.prompt), "prompt", service)
        add_bos = False if body.add_special_tokens is False else None
        ids = await asyncio.to_thread(
            tokenizer.encode, body.prompt, add_bos=add_bos, parse_special=body.parse_special is not False
        )
    answer: dict[str, Any] = {
        "count": len(ids),
        "max_model_len": service.llm.config.max_position_embeddings,
        "tokens": ids,
        "token_strs": None,
    }
    if body.return_token_strs:  # of a million characters it takes a while
        answer["token_strs"] = await asyncio.to_thread(lambda: [token_name(tokenizer, token) for token in ids])
    return json_response(answer)


async def detokenize(http: HttpRequest) -> Response:
    """The text of ids, special tokens included."""
    service = service_of(http)
    body = await read_as(http, DetokenizeBody)
    served_model(service, body.model)
    tokenizer = service.tokenizer
    for place, token in enumerate(body.tokens):
        if token >= tokenizer.vocab_size:
            raise ApiError(
                400, f"tokens[{place}]={token} is not a token id; ids go from 0 to {tokenizer.vocab_size - 1}.",
                param="tokens",
            )  # fmt: skip
    text = await asyncio.to_thread(tokenizer.decode, body.tokens, skip_special=False)
    return json_response({"prompt": text})


async def tokenizer_info(http: HttpRequest) -> Response:
    """What a client needs to use the tokenizer: special tokens and the chat template, as in tokenizer_config.json."""
    service = service_of(http)
    tokenizer = service.tokenizer
    roles = {"bos": tokenizer.bos_id, "eos": tokenizer.eos_id, "pad": tokenizer.pad_id, "unk": tokenizer.unk_id}
    special: dict[str, Any] = {}
    for name, token in roles.items():
        special[f"{name}_token"] = None if token is None else tokenizer.backend.id_to_token(token)
        special[f"{name}_token_id"] = token
    return json_response(
        {
            "tokenizer_class": type(tokenizer).__name__,
            "kind": tokenizer.kind,
            "vocab_size": tokenizer.vocab_size,
            "model_max_length": service.llm.config.max_position_embeddings,
            "chat_template": tokenizer.chat_template,
            **special,
        }
    )


ROUTES = [
    Route("/tokenize", tokenize, methods=["POST"]),
    Route("/detokenize", detokenize, methods=["POST"]),
    Route("/tokenizer_info", tokenizer_info),
]
