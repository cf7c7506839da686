"""The bodies of /inspect's requests.

Tests: tests/server/page.
"""

from typing import Annotated

from pydantic import Field

from nano_llama.server.schemas import Messages, TemplateBody, TokenId


class TokensBody(TemplateBody):
    """POST /inspect/tokens: a text, a conversation, or ids."""

    prompt: str | None = None
    messages: Messages | None = None
    tokens: Annotated[list[TokenId], Field(min_length=1)] | None = None
