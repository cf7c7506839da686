"""The answer of /v1/chat/completions, whole or in chunks. A whole answer is a stream of one chunk for each choice.

Tests: tests/server/test_api_chat.py, test_api_streams.py, test_api_tools.py.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from nano_llama.server.logprobs import chat_logprobs, prompt_logprobs
from nano_llama.server.schemas import ChatBody
from nano_llama.server.tool_calls import Found, joined
from nano_llama.server.tools import ToolUse
from nano_llama.server.usage import Head, Pieces, Usage, by_sample

if TYPE_CHECKING:
    from nano_llama.server.service import Service
    from nano_llama.tokenizer import Tokenizer
    from nano_llama.vol3_engine.outputs import TextPiece
    from nano_llama.vol3_engine.requests import Request

CHUNK = "chat.completion.chunk"


class ChatAnswer:
    """Choice i is sample i of the one request."""

    def __init__(
        self, head: Head, body: ChatBody, usage: Usage, request: "Request", tools: ToolUse, service: "Service"
    ):
        self.head, self.body, self.usage, self.request, self.llm = head, body, usage, request, service.llm
        tokenizer = service.tokenizer
        self.choices = [Choice(body, tools, tokenizer, index) for index in range(len(request.sequences))]

    def chunks(self, pieces: Pieces) -> Iterator[dict[str, Any]]:
        """What these pieces add; the role goes before a choice's first text."""
        for choice, index, new in self._advance(pieces):
            if not choice.begun:
                choice.begun = True
                role = {"index": index, "delta": {"role": "assistant", "content": ""}}
                yield self._chunk({**role, "logprobs": None, "finish_reason": None}, self._of_prompt())
            if new is not None:
                yield self._chunk(new)

    def last(self) -> Iterable[dict[str, Any]]:
        if self.usage.at_the_end:
            yield {**self.head.fields(CHUNK), "choices": [], "usage": self.usage.fields()}

    def whole(self, pieces: Pieces) -> dict[str, Any]:
        choices = []
        for _, _, new in self._advance(pieces):
            assert new is not None, "the last piece says why it ended"
            delta = new.pop("delta")
            message = {"role": "assistant", "content": delta.get("content"), "refusal": None}
            if "tool_calls" in delta:
                message["tool_calls"] = joined(delta["tool_calls"])
            elif message["content"] is None:
                message["content"] = ""
            choices.append({"index": new.pop("index"), "message": message, **new})
        answer = {**self.head.fields(), "choices": sorted(choices, key=lambda choice: choice["index"])}
        if (of_prompt := self.llm.prompt_logprobs_of(self.request)) is not None:
            answer["prompt_logprobs"] = prompt_logprobs(of_prompt)
        return {**answer, **self._of_prompt(), "usage": self.usage.fields()}

    def _advance(self, pieces: Pieces) -> "Iterator[tuple[Choice, int, dict[str, Any] | None]]":
        for _, index, own in by_sample(pieces):
            for piece in own:
                self.usage.count(piece)
            yield self.choices[index], index, self.choices[index].advance(own)

    def _chunk(self, choice: dict[str, Any], more: dict[str, Any] | None = None) -> dict[str, Any]:
        return {**self.head.fields(CHUNK), **(more or {}), "choices": [choice], **self.usage.of_chunk()}

    def _of_prompt(self) -> dict[str, Any]:
        return {"prompt_token_ids": list(self.request.prompt_ids)} if self.body.return_token_ids else {}


class Choice:
    """One choice, as far as it has been sent. begun: whether its role has."""

    def __init__(self, body: ChatBody, tools: ToolUse, tokenizer: "Tokenizer", index: int):
        self.body, self.tokenizer, self.index = body, tokenizer, index
        self.reader = tools.reader()
        self.begun = False

    def advance(self, pieces: Sequence["TextPiece"]) -> dict[str, Any] | None:
        """What these pieces add to the choice; None for nothing."""
        ended = pieces[-1].finish_reason
        found = self._read("".join(piece.text for piece in pieces), ended is not None)
        delta: dict[str, Any] = {}
        if found.text:
            delta["content"] = found.text
        if found.calls:
            delta["tool_calls"] = found.calls
        if ended == "stop" and self.reader is not None and self.reader.num_calls and not self.reader.amid_call:
            ended = "tool_calls"  # not for one that max_tokens ("length") or a stop string ("stop") cut off
        choice = {"index": self.index, "delta": delta, "logprobs": self._logprobs(pieces), "finish_reason": ended}
        if self.body.return_token_ids:
            choice["token_ids"] = [piece.token_id for piece in pieces]
        silent = not delta and ended is None and not choice["logprobs"] and not self.body.return_token_ids
        return None if silent else choice

    def _read(self, text: str, ends: bool) -> Found:
        if self.reader is None:
            return Found(text)
        found = self.reader.push(text)
        if ends:
            found += self.reader.finish()
        return found

    def _logprobs(self, pieces: Sequence["TextPiece"]) -> dict[str, Any] | None:
        """None where there are none in a chunk; a whole answer that asked for them has a list, be it empty."""
        if not self.body.logprobs:
            return None
        count = self.body.top_logprobs or 0
        new = [chat_logprobs(self.tokenizer, entries, count) for piece in pieces for entries in piece.logprobs or ()]
        return {"content": new, "refusal": None} if new or pieces[-1].finish_reason else None
