"""POST /v1/chat/completions, and /render beside it: messages in, an answer out, or only what the model would read.

Tests: tests/server/test_api_chat.py, test_api_streams.py, test_api_tools.py, test_api_client.py.
"""

import asyncio
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route

from nano_llama.server.answering import respond
from nano_llama.server.bodies import parse_object
from nano_llama.server.chat_answer import ChatAnswer
from nano_llama.server.errors import ApiError, json_response
from nano_llama.server.images import image_parts, refuse_images, with_pixels
from nano_llama.server.models import served_model
from nano_llama.server.parameters import chat_params, check_characters, engine_errors
from nano_llama.server.schemas import ChatBody, Message, Part, RenderBody, TemplateBody
from nano_llama.server.streaming import unless_left
from nano_llama.server.tools import ToolUse, tool_use
from nano_llama.server.usage import Head, Usage, service_of
from nano_llama.server.validation import read_as
from nano_llama.tokenizer.conversation import RESERVED

if TYPE_CHECKING:
    from nano_llama.server.service import Service
    from nano_llama.vol3_engine.image_reader import ImageReader
    from nano_llama.vol3_engine.requests import Request


async def create_chat_completion(http: HttpRequest) -> Response:
    service = service_of(http)
    service.engine.require_room()
    with service.held.share() as hold:
        body = await read_as(http, ChatBody, hold if service.llm.images else None)
        model = served_model(service, body.model)
        messages, options = conversation(body.messages, body, service)
        if image_parts(body.messages):
            reader = _image_reader(body, service)
            messages = await unless_left(http, _decoded(messages, body.messages, reader, service))
    request, tools, truncated = await unless_left(http, _prepare(http, body, model, messages, options))
    answer = ChatAnswer(
        Head.of(service, "chat.completion", f"chatcmpl-{http.state.request_id}", model),
        body,
        Usage([request], body.stream_options, truncated),
        request,
        tools,
        service,
    )
    stream = service.engine.submit([request])
    long = not body.stream and (bool(body.logprobs) or body.prompt_logprobs is not None)
    return await respond(http, stream, answer, streamed=bool(body.stream), long=long)


async def _decoded(
    plain: list[dict[str, Any]], messages: Sequence[Message], reader: "ImageReader", service: "Service"
) -> list[dict[str, Any]]:
    async with service.decoding:
        return await asyncio.to_thread(with_pixels, plain, messages, reader)


async def _prepare(
    http: HttpRequest, body: ChatBody, model: str, messages: list[dict[str, Any]], options: dict[str, Any]
) -> "tuple[Request, ToolUse, int | None]":
    """The engine's request, how its tools are used, and how many of its tokens were cut off (None: none could be)."""
    service = service_of(http)
    engine, tokenizer = service.engine, service.tokenizer
    template = await engine.with_template(tokenizer.conversations.tool_template) if body.tools else None
    tools = tool_use(body, service, template)
    params = chat_params(body, service, tools.constraint)
    if tools.shown is not None:
        options["tools"] = tools.shown
    prompt: Any = messages
    truncated = None
    if body.truncate_prompt_tokens is not None:
        ids = await engine.with_template(tokenizer.encode_chat, messages, **options)
        truncated = max(0, len(ids) - body.truncate_prompt_tokens)
        prompt, options = ids[truncated:], {}
    with engine_errors(body):
        adapter, salt = service.adapter_of(model), service.cache_salt(http)
        request = await engine.prepare(prompt, params, adapter=adapter, cache_salt=salt, **options)
    return request, tools, truncated


async def render(http: HttpRequest) -> Response:
    """The text of a conversation and its ids, as the model would read them."""
    service = service_of(http)
    body = await read_as(http, RenderBody)
    model = served_model(service, body.model)
    text, ids = await unless_left(http, rendered(body.messages, body, service))
    context = service.llm.config.max_position_embeddings
    return json_response(
        {"model": model, "prompt": text, "prompt_token_ids": ids, "count": len(ids), "max_model_len": context}
    )


async def rendered(messages: Sequence[Message], body: TemplateBody, service: "Service") -> tuple[str, list[int]]:
    """A conversation as text and as ids. Special tokens that a user typed are text: in the ids they differ."""
    refuse_images(messages, "only /v1/chat/completions reads images.")
    given, options = conversation(messages, body, service)
    if body.tools:
        options["tools"] = [tool.model_dump(exclude_none=True) for tool in body.tools]
    tokenizer = service.tokenizer
    ids = await service.engine.with_template(tokenizer.encode_chat, given, **options)
    return await asyncio.to_thread(tokenizer.decode, ids, skip_special=False), ids


def conversation(
    messages: Sequence[Message], body: TemplateBody, service: "Service"
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The messages as templates read them, and the arguments of Tokenizer.encode_chat. Raises ApiError."""
    if not (service.tokenizer.chat_templates or image_parts(messages)):
        raise ApiError(
            400, "This model has no chat template: it continues texts. Use /v1/completions.", code="no_chat_template"
        )
    options: dict[str, Any] = {
        name: value
        for name in ("add_generation_prompt", "continue_final_message")
        if (value := getattr(body, name)) is not None
    }
    # whatever the operator lists, RESERVED names are ours
    allowed = [name for name in service.settings.chat_template_kwargs if name not in RESERVED]
    for name, value in (body.chat_template_kwargs or {}).items():
        if name not in allowed:
            raise ApiError(
                400,
                f"chat_template_kwargs: {name!r:.80} is not among the names that this server's operator allows: "
                f"{', '.join(allowed) or 'none'} (chat_template_kwargs).",
                param="chat_template_kwargs",
            )
        options[name] = value
    plain = [_plain(message, number, service.settings.max_json_depth) for number, message in enumerate(messages)]
    check_characters(sum(len(part) for message in messages for part in _texts(message)), "messages", service)
    _check_calls_are_read(messages, service.tokenizer.chat_templates.values())
    return plain, options


def _check_calls_are_read(messages: Sequence[Message], templates: Iterable[str]) -> None:
    """Raise ApiError for tool calls that the model would not see."""
    if any("tool_calls" in template for template in templates):
        return
    for number, message in enumerate(messages):
        if message.tool_calls:
            raise ApiError(
                400,
                f"messages[{number}].tool_calls: this model's chat template does not read tool calls. Say in the "
                "content of messages what was called and what it returned.",
                param=f"messages[{number}].tool_calls",
                code="unsupported",
            )


def _plain(message: Message, number: int, max_depth: int) -> dict[str, Any]:
    """A message as a dict without what is empty. Arguments of earlier calls are objects for templates, text for us."""
    plain = message.model_dump(exclude_none=True, exclude={"annotations": True})
    for place, call in enumerate(plain.get("tool_calls", ())):
        call.pop("index", None)
        path = f"messages[{number}].tool_calls[{place}].function.arguments"
        arguments = (call["function"]["arguments"] or "{}").encode()
        call["function"]["arguments"] = parse_object(arguments, max_depth, path, path)
    return plain


def _texts(message: Message) -> list[str]:
    content = message.content
    return [content] if isinstance(content, str) else [part.text for part in content or () if isinstance(part, Part)]


def _image_reader(body: ChatBody, service: "Service") -> "ImageReader":
    """The model's. Raises ApiError where it has none, and for what cannot be combined with images."""
    if service.llm.images is None:
        refuse_images(body.messages, "this model reads text only.")
    if body.truncate_prompt_tokens is not None:
        refuse_images(body.messages, "a prompt with images is not truncated: leave truncate_prompt_tokens out.")
    if body.tools and not service.tokenizer.chat_templates:
        refuse_images(body.messages, "this model has no chat template, so it reads no tools.")
    assert service.llm.images is not None, "refused above"
    return service.llm.images


ROUTES = [
    Route("/v1/chat/completions", create_chat_completion, methods=["POST"]),
    Route("/v1/chat/completions/render", render, methods=["POST"]),
]
