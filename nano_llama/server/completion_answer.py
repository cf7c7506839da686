"""The answer of /v1/completions, whole or in chunks. A whole answer is a stream of one chunk for each choice.

Tests: tests/server/test_api_completions.py, test_api_streams.py.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from nano_llama.server.logprobs import TextLogprobs, empty_lists, prompt_logprobs
from nano_llama.server.schemas import CompletionBody
from nano_llama.server.usage import Head, Pieces, Usage, by_sample

if TYPE_CHECKING:
    from nano_llama.vol3_engine.llm import LLM
    from nano_llama.vol3_engine.outputs import Logprob, TextPiece
    from nano_llama.vol3_engine.requests import Request


class CompletionAnswer:
    """Choice i * n + k is sample k of prompt i.

    texts: the prompts as text, if they are echoed; in the order of the requests, whose numbers are their places.
    """

    def __init__(
        self,
        head: Head,
        body: CompletionBody,
        usage: Usage,
        requests: Sequence["Request"],
        texts: Sequence[str],
        llm: "LLM",
    ):
        self.head, self.body, self.usage = head, body, usage
        self.choices = [
            Choice(request, body, text, llm, index=len(request.sequences) * request.number + index)
            for request, text in zip(requests, texts, strict=True)
            for index in range(len(request.sequences))
        ]

    def chunks(self, pieces: Pieces) -> Iterator[dict[str, Any]]:
        """What these pieces add. Nothing goes out for a token whose text is held back."""
        for request, index, own in by_sample(pieces):
            for piece in own:
                self.usage.count(piece, dropped=self.body.max_tokens == 0)
            choice = self.choices[len(request.sequences) * request.number + index].advance(own)
            if choice is not None:
                yield {**self.head.fields(), "choices": [choice], **self.usage.of_chunk()}

    def last(self) -> Iterable[dict[str, Any]]:
        if self.usage.at_the_end:
            yield {**self.head.fields(), "choices": [], "usage": self.usage.fields()}

    def whole(self, pieces: Pieces) -> dict[str, Any]:
        choices = [choice for chunk in self.chunks(pieces) for choice in chunk["choices"]]
        choices.sort(key=lambda choice: choice["index"])
        return {**self.head.fields(), "choices": choices, "usage": self.usage.fields()}


class Choice:
    """One choice, as far as it has been sent. With max_tokens 0 its text is the prompt's alone."""

    def __init__(self, request: "Request", body: CompletionBody, prompt: str, llm: "LLM", *, index: int):
        self.request, self.body, self.llm, self.index = request, body, llm, index
        self.echo = prompt
        self.logprobs = TextLogprobs(llm.tokenizer) if body.logprobs is not None else None
        self.begun = False

    def advance(self, pieces: Sequence["TextPiece"]) -> dict[str, Any] | None:
        """What these pieces add to the choice; None for nothing."""
        begins, self.begun = not self.begun, True
        new = [] if self.body.max_tokens == 0 else pieces
        text = (self.echo if begins else "") + "".join(piece.text for piece in new)
        logprobs = self._logprobs(new, begins) if self.logprobs is not None else None
        ended = pieces[-1].finish_reason
        choice: dict[str, Any] = {
            "index": self.index,
            "text": text,
            "logprobs": logprobs,
            "finish_reason": ended if ended is None or new else "length",
        }
        if self.body.return_token_ids:
            choice["token_ids"] = [piece.token_id for piece in new]
            if begins:
                choice["prompt_token_ids"] = list(self.request.prompt_ids)
        if self.body.prompt_logprobs is not None and begins:
            choice["prompt_logprobs"] = prompt_logprobs(self._of_prompt())
        says_something = text or ended or (logprobs and logprobs["tokens"]) or self.body.return_token_ids
        return choice if says_something else None

    def _logprobs(self, pieces: Sequence["TextPiece"], begins: bool) -> dict[str, list[Any]]:
        assert self.logprobs is not None, "only asked where they are wanted"
        lists = empty_lists()
        if begins and self.body.echo:
            lists = self.logprobs.prompt(self.request.prompt_ids, self.echo, self._of_prompt())
        new = self.logprobs.extend([entries for piece in pieces for entries in piece.logprobs or ()])
        return {name: lists[name] + new[name] for name in lists}

    def _of_prompt(self) -> "list[dict[int, Logprob] | None]":
        """The prompt's logprobs, there before the first piece is."""
        entries = self.llm.prompt_logprobs_of(self.request)
        assert entries is not None, "parameters.py asked for them"
        return entries
