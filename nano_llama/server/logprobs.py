"""Logprobs in the shapes of the two endpoints, and the names of tokens.

/v1/completions has parallel lists (tokens, token_logprobs, top_logprobs, text_offset), chats one object per token.
JSON has no infinity: a token that is impossible has OpenAI's -9999.0.
Tests: tests/server/test_api_completions.py, test_api_streams.py.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nano_llama.vol3_engine.outputs import Logprob

if TYPE_CHECKING:
    from nano_llama.tokenizer import Tokenizer

LOWEST = -9999.0
Entries = Mapping[int, Logprob]  # of one position: the token that stands there first, then the likeliest


class TextLogprobs:
    """The lists of /v1/completions, for a text that grows: `extend` returns what a piece of it adds.

    text_offset: where a token's text begins in the text of the choice; for the later bytes of a character, where the
    character does.
    """

    def __init__(self, tokenizer: "Tokenizer | None"):
        self.tokenizer = tokenizer
        self.length = 0  # of the text so far, in characters
        self._decoder = tokenizer.decoder(continues=True) if tokenizer else None

    def prompt(self, ids: Sequence[int], text: str, entries: Sequence[Entries | None]) -> dict[str, list[Any]]:
        """Those of an echoed prompt, whose first token has none."""
        decoder = self.tokenizer.decoder(skip_special=False, continues=True) if self.tokenizer else None
        lists = empty_lists()
        length = 0
        for token, entry in zip(ids, entries, strict=True):
            self._append(lists, token, entry, min(length, len(text)))
            length += len(decoder.push(token)) if decoder else 0
        self.length = len(text)
        return lists

    def extend(self, entries: Sequence[Entries]) -> dict[str, list[Any]]:
        lists = empty_lists()
        for entry in entries:
            token = next(iter(entry))
            self._append(lists, token, entry, self.length)
            self.length += len(self._decoder.push(token)) if self._decoder else 0
        return lists

    def _append(self, lists: dict[str, list[Any]], token: int, entries: Entries | None, offset: int) -> None:
        lists["tokens"].append(token_name(self.tokenizer, token))
        lists["text_offset"].append(offset)
        lists["token_logprobs"].append(None if entries is None else finite(entries[token].logprob))
        lists["top_logprobs"].append(None if entries is None else self._top(entries))

    def _top(self, entries: Entries) -> dict[str, float]:
        """By name. A second token of the same text, such as a byte's, is named by its id."""
        top: dict[str, float] = {}
        for token, entry in entries.items():
            name = token_name(self.tokenizer, token)
            top[f"token_id:{token}" if name in top else name] = finite(entry.logprob)
        return top


def empty_lists() -> dict[str, list[Any]]:
    return {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}


def chat_logprobs(tokenizer: "Tokenizer", entries: Entries, count: int) -> dict[str, Any]:
    """One token's, with those of the `count` likeliest."""

    def named(token: int, entry: Logprob) -> dict[str, Any]:
        read = list(tokenizer.token_bytes(token))
        return {"token": entry.decoded_token, "logprob": finite(entry.logprob), "bytes": read}

    chosen = next(iter(entries))
    likeliest = sorted(entries, key=lambda token: entries[token].rank)[:count]
    top = [named(token, entries[token]) for token in likeliest]
    return {**named(chosen, entries[chosen]), "top_logprobs": top}


def prompt_logprobs(entries: Sequence[Entries | None]) -> list[dict[str, Any] | None]:
    """In vLLM's shape: per token {id: {"logprob", "rank", "decoded_token"}}, None for the first."""
    return [
        None
        if entry is None
        else {
            str(token): {"logprob": finite(value.logprob), "rank": value.rank, "decoded_token": value.decoded_token}
            for token, value in entry.items()
        }
        for entry in entries
    ]


def token_name(tokenizer: "Tokenizer | None", token: int) -> str:
    """Its text; for a part of a character its bytes, as OpenAI writes them; without a tokenizer its id."""
    if tokenizer is None:
        return f"token_id:{token}"
    read = tokenizer.token_bytes(token)
    try:
        return read.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in read)


def finite(logprob: float) -> float:
    return max(logprob, LOWEST)
