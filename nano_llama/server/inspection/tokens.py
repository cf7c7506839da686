"""POST /inspect/tokens: what the model really reads of a text or a conversation: ids, their bytes, and the merges.

Tests: tests/server/page/test_inspect_tokens.py.
"""

import asyncio
import re
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from nano_llama.server.chat import rendered
from nano_llama.server.errors import ApiError, json_response, limit_exceeded
from nano_llama.server.inspection.limits import MAX_TOKENS
from nano_llama.server.inspection.schemas import TokensBody
from nano_llama.server.models import served_model
from nano_llama.server.parameters import check_characters
from nano_llama.server.streaming import unless_left
from nano_llama.server.tokenization import OF_CHAT
from nano_llama.server.usage import service_of
from nano_llama.server.validation import read_as

if TYPE_CHECKING:
    from nano_llama.server.service import Service
    from nano_llama.tokenizer import Tokenizer

SOURCES = ("prompt", "messages", "tokens")
Span = tuple[int, int]  # of bytes


async def tokens(http: HttpRequest) -> Response:
    service = service_of(http)
    body = await read_as(http, TokensBody)
    served_model(service, body.model)
    given = [name for name in SOURCES if getattr(body, name) is not None]
    if len(given) != 1:
        raise ApiError(400, f"Give one of {', '.join(SOURCES)}.", param=given[0] if given else "prompt")
    for name in OF_CHAT if body.messages is None else ():
        if getattr(body, name) is not None:
            raise ApiError(400, f"{name} needs messages.", param=name)
    ids = await unless_left(http, read_ids(body, service))
    if len(ids) > MAX_TOKENS:
        raise limit_exceeded(given[0], f"{len(ids)} tokens", "of /inspect/tokens", MAX_TOKENS)
    return json_response(await asyncio.to_thread(describe, service.tokenizer, ids))


async def read_ids(body: TokensBody, service: "Service") -> list[int]:
    """The ids that /v1/completions or /v1/chat/completions would make of it."""
    if body.messages is not None:
        return (await rendered(body.messages, body, service))[1]
    if body.prompt is None:
        return body.tokens or []
    return await asyncio.to_thread(encode_text, body.prompt, service)


def encode_text(text: str, service: "Service") -> list[int]:
    """As /v1/completions reads a prompt."""
    check_characters(len(text), "prompt", service)
    images = service.llm.images
    return service.tokenizer.encode(text, parse_special=(images.image_token_id,) if images else False)


def describe(tokenizer: "Tokenizer", ids: Sequence[int]) -> dict[str, Any]:
    """The answer. Offsets count the bytes of all tokens, joined."""
    pieces = [tokenizer.token_bytes(token) for token in ids]
    spans = [(end - len(piece), end) for end, piece in zip(accumulate(map(len, pieces)), pieces, strict=True)]
    joined = b"".join(pieces)
    special = {span for span, token in zip(spans, ids, strict=True) if token in tokenizer.special_ids}
    typed = [span for span in special_names(tokenizer, joined) if span not in special]
    entries = [
        {
            "id": token,
            "text": whole_text(piece),
            "bytes": list(piece),
            "start": start,
            "end": end,
            "special": token in tokenizer.special_ids,
            "injected": any(start < last and first < end for first, last in typed),
            "merges": merges_of(tokenizer, token),
        }
        for token, piece, (start, end) in zip(ids, pieces, spans, strict=True)
    ]
    return {"text": joined.decode(errors="replace"), "count": len(ids), "tokens": entries}


def special_names(tokenizer: "Tokenizer", text: bytes) -> Iterator[Span]:
    """Where a text has a special token's name, whether it is that token or was typed."""
    names = [tokenizer.backend.added_tokens[token].content.encode() for token in tokenizer.special_ids]
    if names:
        pattern = b"|".join(map(re.escape, sorted(names, key=len, reverse=True)))
        yield from (found.span() for found in re.finditer(pattern, text))


def whole_text(piece: bytes) -> str | None:
    """None: it is a part of a character."""
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return None


def text_of(tokenizer: "Tokenizer | None", token: int) -> str | None:
    """None: a part of a character, or there is no tokenizer."""
    return None if tokenizer is None else whole_text(tokenizer.token_bytes(token))


def merges_of(tokenizer: "Tokenizer", token: int) -> list[dict[str, Any]] | None:
    steps, text = tokenizer.merge_steps.of(token), tokenizer.merge_steps.text
    if steps is None:
        return None
    return [{"left": text(step.left), "right": text(step.right), "rank": step.rank} for step in steps]
