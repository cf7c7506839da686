"""The bodies of /inspect's requests.

Tests: tests/server/page.
"""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints

from nano_llama.server.schemas import Body, CompletionBody, Count, Messages, TemplateBody, TokenId


class TokensBody(TemplateBody):
    """POST /inspect/tokens: a text, a conversation, or ids."""

    prompt: str | None = None
    messages: Messages | None = None
    tokens: Annotated[list[TokenId], Field(min_length=1)] | None = None


_ONE_TOKEN = "This is about one token: give the ids so far."


class NextBody(CompletionBody):
    """POST /inspect/next: the body of a completion, of which the place after prompt and output is looked at."""

    refused: ClassVar[Mapping[str, str]] = {
        **CompletionBody.refused,
        **dict.fromkeys(
            ("stream", "stream_options", "n", "max_tokens", "stop", "echo", "logprobs", "prompt_logprobs",
             "truncate_prompt_tokens", "return_token_ids", "add_special_tokens"),
            _ONE_TOKEN,
        ),
    }  # fmt: skip

    output: list[TokenId] | None = None  # of the answer so far; penalties and min_tokens count it, seeds its place


class EventsBody(Body):
    """POST /inspect/events. own: how the client's own requests are called, as the beginning of their x-request-id;
    nobody else may guess it. time_phases: each step says how long its phases took."""

    own: Annotated[str, StringConstraints(pattern=r"^page-[A-Za-z0-9]{16,64}$")] | None = None
    time_phases: bool | None = None


class RooflineBody(Body):
    """POST /inspect/roofline: nothing to say."""


class VolumesBody(Body):
    """POST /inspect/volumes."""

    tokens: Annotated[list[TokenId], Field(min_length=1)]
    token: TokenId | None = None  # is listed, however unlikely


class ReplayBody(Body):
    """POST /inspect/replay; which fields a view reads is said in replay.py."""

    tokens: Annotated[list[TokenId], Field(min_length=1)]
    view: Literal["lens", "attention", "attribution"]
    layer: Count | None = None  # attention: None: all
    first: Count | None = None  # lens: the first position
    pins: Annotated[list[TokenId], Field(max_length=8)] | None = None  # lens: tokens whose rank is followed
    position: Count | None = None  # attribution: None: the last
    token: TokenId | None = None  # attribution: None: the likeliest
