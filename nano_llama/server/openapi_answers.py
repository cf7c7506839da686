"""JSON schemas of the answers, for the OpenAPI document.

Tests: tests/server/test_api_openapi.py, which holds real answers against them.
"""

from typing import Any

TEXT, COUNT, NUMBER, FLAG = (
    {"type": "string"},
    {"type": "integer", "minimum": 0},
    {"type": "number"},
    {"type": "boolean"},
)
NULL = {"type": "null"}


def _object(optional: dict[str, Any] | None = None, **required: Any) -> dict[str, Any]:
    """An object with these fields, those of `optional` perhaps, and no others."""
    fields = {**required, **(optional or {})}
    return {"type": "object", "properties": fields, "required": list(required), "additionalProperties": False}


def _list(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, NULL]}


USAGE = _object(
    prompt_tokens=COUNT,
    completion_tokens=COUNT,
    total_tokens=COUNT,
    prompt_tokens_details=_object({"truncated_tokens": COUNT}, cached_tokens=COUNT),
)
PROMPT_LOGPROBS = _list(
    _or_null(
        {
            "type": "object",
            "additionalProperties": _object(logprob=NUMBER, rank={"type": "integer"}, decoded_token=TEXT),
        }
    )
)
TEXT_LOGPROBS = _object(
    tokens=_list(TEXT),
    token_logprobs=_list(_or_null(NUMBER)),
    top_logprobs=_list(_or_null({"type": "object", "additionalProperties": NUMBER})),
    text_offset=_list(COUNT),
)
TOKEN_LOGPROB: dict[str, Any] = {"token": TEXT, "logprob": NUMBER, "bytes": _list(COUNT)}
CHAT_LOGPROBS = _object(
    content=_list(_object(**TOKEN_LOGPROB, top_logprobs=_list(_object(**TOKEN_LOGPROB)))), refusal=NULL
)
TOOL_CALL = _object(id=TEXT, type={"const": "function"}, function=_object(name=TEXT, arguments=TEXT))
HEAD: dict[str, Any] = {"id": TEXT, "created": COUNT, "model": TEXT, "system_fingerprint": TEXT, "usage": USAGE}
MODEL = _object(
    id=TEXT,
    object={"const": "model"},
    created=COUNT,
    owned_by=TEXT,
    parent=_or_null(TEXT),
    max_model_len=COUNT,
    meta=_object(n_ctx_train=COUNT, n_embd=COUNT, n_vocab=COUNT, n_params=COUNT, chat=FLAG),
)

ANSWERS: dict[str, Any] = {
    "Completion": _object(
        **HEAD,
        object={"const": "text_completion"},
        choices=_list(
            _object(
                {"token_ids": _list(COUNT), "prompt_token_ids": _list(COUNT), "prompt_logprobs": PROMPT_LOGPROBS},
                index=COUNT,
                text=TEXT,
                logprobs=_or_null(TEXT_LOGPROBS),
                finish_reason={"enum": ["stop", "length"]},
            )
        ),
    ),
    "ChatCompletion": _object(
        {"prompt_token_ids": _list(COUNT), "prompt_logprobs": PROMPT_LOGPROBS},
        **HEAD,
        object={"const": "chat.completion"},
        choices=_list(
            _object(
                {"token_ids": _list(COUNT)},
                index=COUNT,
                message=_object(
                    {"tool_calls": _list(TOOL_CALL)},
                    role={"const": "assistant"},
                    content=_or_null(TEXT),
                    refusal=NULL,
                ),
                logprobs=_or_null(CHAT_LOGPROBS),
                finish_reason={"enum": ["stop", "length", "tool_calls"]},
            )
        ),
    ),
    "Rendered": _object(model=TEXT, prompt=TEXT, prompt_token_ids=_list(COUNT), count=COUNT, max_model_len=COUNT),
    "Tokens": _object(count=COUNT, max_model_len=COUNT, tokens=_list(COUNT), token_strs=_or_null(_list(TEXT))),
    "Text": _object(prompt=TEXT),
    "TokenizerInfo": _object(
        tokenizer_class=TEXT,
        kind=TEXT,
        vocab_size=COUNT,
        model_max_length=COUNT,
        chat_template=_or_null(TEXT),
        **{f"{name}_token": _or_null(TEXT) for name in ("bos", "eos", "pad", "unk")},
        **{f"{name}_token_id": _or_null(COUNT) for name in ("bos", "eos", "pad", "unk")},
    ),
    "Model": MODEL,
    "ModelList": _object(object={"const": "list"}, data=_list(MODEL)),
    "Health": {"type": "object", "properties": {"status": TEXT}, "required": ["status"]},
    "Version": _object(version=TEXT),
    "Error": _object(error=_object(message=TEXT, type=TEXT, param=_or_null(TEXT), code=_or_null(TEXT))),
}
