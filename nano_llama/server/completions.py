"""POST /v1/completions: prompts in, continuations out.

Tests: tests/server/test_api_completions.py, test_api_streams.py, test_api_client.py.
"""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route

from nano_llama.server.answering import respond
from nano_llama.server.completion_answer import CompletionAnswer
from nano_llama.server.errors import limit_exceeded
from nano_llama.server.models import served_model
from nano_llama.server.parameters import check_characters, completion_params, engine_errors
from nano_llama.server.schemas import CompletionBody
from nano_llama.server.streaming import unless_left
from nano_llama.server.usage import Head, Usage, service_of
from nano_llama.server.validation import read_as

if TYPE_CHECKING:
    from nano_llama.core.sampling import SamplingParams
    from nano_llama.server.service import Service
    from nano_llama.vol3_engine.requests import Request


async def create_completion(http: HttpRequest) -> Response:
    service = service_of(http)
    service.engine.require_room()
    body = await read_as(http, CompletionBody)
    model = served_model(service, body.model)
    params = completion_params(body, service)
    prompts = listed_prompts(body.prompt, service)
    prepared = await unless_left(http, _prepare_all(service, body, model, params, prompts, http))
    requests = [request for request, _ in prepared]
    truncated = sum(cut for _, cut in prepared) if body.truncate_prompt_tokens is not None else None
    texts = await asyncio.to_thread(_texts, service, prompts, prepared) if body.echo else [""] * len(prompts)
    answer = CompletionAnswer(
        Head.of(service, "text_completion", f"cmpl-{http.state.request_id}", model),
        body,
        Usage(requests, body.stream_options, truncated),
        requests,
        texts,
        service.llm,
    )
    stream = service.engine.submit(requests)
    echoed = bool(body.echo) and body.logprobs is not None
    long = echoed if body.stream else body.logprobs is not None or body.prompt_logprobs is not None
    return await respond(http, stream, answer, streamed=bool(body.stream), long=long)


def listed_prompts(prompt: str | list[str] | list[int] | list[list[int]], service: "Service") -> list[str | list[int]]:
    """One prompt or several, each a text or a list of ids. Raises ApiError for too many."""
    single = isinstance(prompt, str) or (len(prompt) > 0 and isinstance(prompt[0], int))
    prompts: list[str | list[int]] = [prompt] if single else list(prompt)  # type: ignore[list-item,arg-type]
    most = service.settings.max_prompts
    if len(prompts) > most:
        raise limit_exceeded("prompt", f"{len(prompts)} prompts", "max_prompts", most)
    for entry in prompts:
        if isinstance(entry, str):
            check_characters(len(entry), "prompt", service)
    return prompts


async def _prepare_all(
    service: "Service",
    body: CompletionBody,
    model: str,
    params: "SamplingParams",
    prompts: list[str | list[int]],
    http: HttpRequest,
) -> "list[tuple[Request, int]]":
    """As _prepare, all prompts at once. Where one of them is refused, the others are not begun."""
    tasks = [
        asyncio.create_task(_prepare(service, body, model, params, number, prompt, http))
        for number, prompt in enumerate(prompts)
    ]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


async def _prepare(
    service: "Service",
    body: CompletionBody,
    model: str,
    params: "SamplingParams",
    number: int,
    prompt: str | list[int],
    http: HttpRequest,
) -> "tuple[Request, int]":
    """The engine's request for one prompt, and how many of its tokens were cut off."""
    keep, given = body.truncate_prompt_tokens, prompt
    if isinstance(prompt, str) and (keep is not None or body.add_special_tokens is False):
        add_bos = False if body.add_special_tokens is False else None
        given = await asyncio.to_thread(service.tokenizer.encode, prompt, add_bos=add_bos)
    cut = 0
    if keep is not None:
        cut = max(0, len(given) - keep)
        given = given[cut:]
    adapter, salt = service.adapter_of(model), service.cache_salt(http)
    with engine_errors(body):
        return await service.engine.prepare(given, params, number=number, adapter=adapter, cache_salt=salt), cut


def _texts(
    service: "Service", prompts: "Sequence[str | list[int]]", prepared: "Sequence[tuple[Request, int]]"
) -> list[str]:
    """The prompts as text; of ids, special tokens included."""
    tokenizer = service.llm.tokenizer
    return [
        prompt
        if isinstance(prompt, str) and not cut
        else tokenizer.decode(request.prompt_ids, skip_special=False)
        if tokenizer
        else ""
        for prompt, (request, cut) in zip(prompts, prepared, strict=True)
    ]


ROUTES = [Route("/v1/completions", create_completion, methods=["POST"])]
