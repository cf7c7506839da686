"""From a body's fields to SamplingParams: what is absent gets OpenAI's default, what exceeds a limit is refused.

Ranges of single fields are the schemas' (schemas.py), those that need the model are the engine's.
Tests: tests/server/test_api_validation.py, test_api_streams.py.
"""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from nano_llama.core.errors import ContextLengthError, UserError
from nano_llama.core.sampling import SamplingParams
from nano_llama.server.errors import ApiError, limit_exceeded, on_one_line
from nano_llama.server.schemas import ChatBody, CompletionBody, GenerationBody

if TYPE_CHECKING:
    from nano_llama.server.service import Service

COMPLETION_TOKENS = 16  # OpenAI's default for /v1/completions; a chat has the rest of the context

# Fields that have SamplingParams' name and meaning.
SAME = (
    "temperature", "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty", "repetition_penalty", "n",
    "min_tokens", "stop", "stop_token_ids", "ignore_eos",
)  # fmt: skip


def completion_params(body: CompletionBody, service: "Service") -> SamplingParams:
    """max_tokens 0, which needs echo, runs one token: the answer leaves it out (completion_answer.py)."""
    max_tokens = COMPLETION_TOKENS if body.max_tokens is None else body.max_tokens
    if max_tokens == 0 and not body.echo:
        raise ApiError(
            400, "max_tokens=0 leaves nothing to answer. Ask for at least 1, or set echo.", param="max_tokens"
        )
    _check(service, "logprobs", body.logprobs, "max_logprobs")
    echoed = body.logprobs if body.echo else None
    if echoed is not None and body.prompt_logprobs is not None:
        raise ApiError(
            400, "echo with logprobs has the prompt's logprobs already. Leave prompt_logprobs out.",
            param="prompt_logprobs",
        )  # fmt: skip
    return _checked(
        **_common(body, service),
        **_constraint(body, service),
        max_tokens=max(max_tokens, 1),
        logprobs=body.logprobs,
        prompt_logprobs=body.prompt_logprobs if echoed is None else echoed,
    )


def chat_params(body: ChatBody, service: "Service", of_tools: Mapping[str, Any] | None) -> SamplingParams:
    """of_tools: the constraint by which tool calls obey their schemas."""
    if body.max_tokens is not None and body.max_completion_tokens not in (None, body.max_tokens):
        raise ApiError(
            400,
            f"max_tokens={body.max_tokens} and max_completion_tokens={body.max_completion_tokens} contradict each "
            "other. Give one of them.",
            param="max_completion_tokens",
        )
    if body.top_logprobs is not None and not body.logprobs:
        raise ApiError(400, f"top_logprobs={body.top_logprobs} needs logprobs=true.", param="top_logprobs")
    _check(service, "top_logprobs", body.top_logprobs, "max_logprobs")
    return _checked(
        **_common(body, service),
        **(_constraint(body, service) if of_tools is None else {"structured_outputs": of_tools}),
        max_tokens=body.max_tokens if body.max_completion_tokens is None else body.max_completion_tokens,
        logprobs=(body.top_logprobs or 0) if body.logprobs else None,
        prompt_logprobs=body.prompt_logprobs,
    )


def _checked(**fields: Any) -> SamplingParams:
    """SamplingParams; its errors begin with the name of the field, NAME=VALUE or NAME: ..."""
    try:
        return SamplingParams(**fields)
    except UserError as error:
        name = re.split("[=:]", error.message, maxsplit=1)[0]
        raise ApiError(400, str(error).replace("\n", " "), param=name if name in fields else None) from None


def _common(body: GenerationBody, service: "Service") -> dict[str, Any]:
    """The fields that both endpoints share, those that are absent left out."""
    if body.stream_options is not None and not body.stream:
        raise ApiError(400, "stream_options needs stream=true.", param="stream_options")
    if body.prompt_logprobs is not None and body.stream:
        raise ApiError(
            400, "prompt_logprobs is not streamed. Set echo and logprobs, or stream=false.", param="prompt_logprobs"
        )
    stops = [body.stop] if isinstance(body.stop, str) else body.stop or []
    most = min(service.settings.max_choices, service.llm.settings.max_num_seqs)
    if (body.n or 1) > most:
        raise limit_exceeded("n", body.n, "max_choices, max_num_seqs", most)
    _check(service, "prompt_logprobs", body.prompt_logprobs, "max_logprobs")
    _check(service, "logit_bias", len(body.logit_bias or ()), "max_logit_bias")
    _check(service, "stop", len(stops), "max_stop_strings")
    _check(service, "stop", max(map(len, stops), default=0), "max_stop_characters")
    given = {name: getattr(body, name) for name in SAME if getattr(body, name) is not None}
    if body.logit_bias:
        given["logit_bias"] = {int(token): bias for token, bias in body.logit_bias.items()}
    if body.seed is not None:
        given["seed"] = body.seed % 2**64
    return given


def _constraint(body: GenerationBody, service: "Service") -> dict[str, Any]:
    """{"structured_outputs": ...} from the field of that name or from response_format, or nothing."""
    wanted: dict[str, Any] = {}
    if (form := body.response_format) is not None and form.type != "text":
        if form.type == "json_schema" and form.json_schema is None:
            raise ApiError(
                400, 'response_format={"type": "json_schema"} needs json_schema.', param="response_format.json_schema"
            )
        wanted = {"json": form.json_schema.schema_ if form.json_schema else {"type": "object"}}
    if body.structured_outputs is not None:
        if wanted:
            raise ApiError(
                400, "structured_outputs and response_format are both given. Give one.", param="structured_outputs"
            )
        wanted = body.structured_outputs.model_dump(by_alias=True, exclude_none=True)
        if len(wanted) != 1:
            raise ApiError(
                400,
                f"structured_outputs has {len(wanted)} constraints. Give one of json, regex, choice and grammar.",
                param="structured_outputs",
            )
    if not wanted:
        return {}
    field = "response_format" if body.structured_outputs is None else "structured_outputs"
    check_schema(wanted, field, service)
    return {"structured_outputs": wanted}


@contextmanager
def engine_errors(body: GenerationBody) -> Iterator[None]:
    """What the engine says of a prompt or a constraint is said of the field that it came from."""
    try:
        yield
    except ContextLengthError as error:
        field = "messages" if isinstance(body, ChatBody) else "prompt"
        raise ApiError(400, on_one_line(error), code="context_length_exceeded", param=field) from None
    except UserError as error:
        before, of_constraint, what = error.message.partition("structured_outputs: ")
        if before or not of_constraint:
            raise
        form = body.response_format
        field = "structured_outputs" if body.structured_outputs is not None else "response_format"
        if field == "response_format" and (form is None or form.type == "text"):
            field = "tools"  # the schema of a function
        raise ApiError(400, " ".join(filter(None, (f"{field}: {what}", error.hint))), param=field) from None


def check_characters(length: int, param: str, service: "Service") -> None:
    """Raises ApiError for more text than the server encodes."""
    most = service.settings.max_prompt_characters
    if length > most:
        raise limit_exceeded(param, f"{length} characters", "max_prompt_characters", most)


def check_schema(constraint: Mapping[str, Any], param: str, service: "Service") -> None:
    """Raises ApiError for one that is longer than the server takes."""
    size = len(json.dumps(constraint))
    if size > service.settings.max_schema_bytes:
        raise limit_exceeded(param, f"{size} bytes", "max_schema_bytes", service.settings.max_schema_bytes)


def _check(service: "Service", param: str, value: int | None, limit: str) -> None:
    most = getattr(service.settings, limit)
    if value is not None and value > most:
        raise limit_exceeded(param, value, limit, most)
