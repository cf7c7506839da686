"""From prompts and parameters to sequences, all checked here, and from finished sequences to outputs.

Not here: running them (engine.py). Tests: tests/vol3/test_llm.py.
"""

import secrets
from collections import abc
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from nano_llama.core.config import LlamaConfig
from nano_llama.core.errors import UserError
from nano_llama.core.sampling import MAX_SEED, SamplingParams, TokenLogprob
from nano_llama.core.vision.image_processing import Tiles
from nano_llama.vol3_engine.adapters import AdapterChoice, Default, chosen_adapter
from nano_llama.vol3_engine.constraints import Constraint, ConstraintCompiler
from nano_llama.vol3_engine.engine import TokenEvent
from nano_llama.vol3_engine.image_prompts import joined_parts, messages_and_images, no_images, prompt_and_images
from nano_llama.vol3_engine.image_reader import ImageReader
from nano_llama.vol3_engine.outputs import CompletionOutput, Logprob, RequestOutput, TextPiece
from nano_llama.vol3_engine.scheduler import length_limit
from nano_llama.vol3_engine.sequence import PromptLogprobs, Sequence
from nano_llama.vol3_engine.text import Decoder, TextStream
from nano_llama.vol3_engine.timing import Timing

if TYPE_CHECKING:
    from nano_llama.tokenizer import Tokenizer


@dataclass(frozen=True)
class Request:
    """One prompt and the n sequences that continue it."""

    number: int
    prompt: str | None
    prompt_ids: list[int]
    sequences: list[Sequence]
    adapter: str | None = None  # its name; None: the base model alone

    @property
    def timing(self) -> Timing:
        """Of its samples together."""
        return Timing.merged(sequence.timing for sequence in self.sequences)


class Requests:
    """Makes requests for one model, and their outputs. Without a tokenizer both are token ids only.

    cache_tokens: how many tokens the KV cache holds. adapters: the names of those that are loaded; default_adapter: the
    one that a request gets which does not choose. images: of a model that reads them.
    """

    def __init__(
        self,
        tokenizer: "Tokenizer | None",
        config: LlamaConfig,
        cache_tokens: int,
        adapters: tuple[str, ...] = (),
        default_adapter: str | None = None,
        images: ImageReader | None = None,
    ):
        self.tokenizer = tokenizer
        self.config = config
        self.cache_tokens = cache_tokens
        self.adapters, self.default_adapter = adapters, default_adapter
        self.images = images
        end_ids = {*config.eos_token_ids, *(tokenizer.stop_ids if tokenizer else ())}
        self.end_ids = frozenset(token for token in end_ids if token < config.vocab_size)
        self._texts: dict[int, str] = {}  # of tokens that logprobs named; no more than the vocabulary

    def from_prompt(
        self,
        number: int,
        prompt: str | abc.Sequence[int] | abc.Mapping[str, Any],
        params: SamplingParams,
        adapter: AdapterChoice = Default.ADAPTER,
        cache_salt: str | None = None,
    ) -> Request:
        """A string, token ids, or {"prompt": one of these, "images": [...]}.

        Raises UserError if it is none of these, empty, outside the vocabulary, or too long.
        """
        images: list[Any] = []
        if isinstance(prompt, abc.Mapping):
            prompt, images = prompt_and_images(prompt, number)
        if isinstance(prompt, str):
            ids = self._encode(prompt)
            return self._make(number, prompt, ids, params, adapter, cache_salt, images=images)
        ids = plain(prompt)
        if isinstance(ids, (dict, bytes)) or not hasattr(ids, "__iter__"):
            raise UserError(
                f"Prompt {number} is {prompt!r:.80}; expected a string or a list of token ids.",
                hint="Use chat for the messages of a conversation.",
            )
        return self._make(number, None, list(ids), params, adapter, cache_salt, images=images)

    def from_messages(
        self,
        number: int,
        messages: abc.Sequence[Any],
        params: SamplingParams,
        adapter: AdapterChoice = Default.ADAPTER,
        cache_salt: str | None = None,
        **template: Any,
    ) -> Request:
        """A conversation, formatted by the model's chat template. template: arguments of Tokenizer.encode_chat.

        An unset max_tokens means the end of the answer.

        An image is a part of a message's content, {"type": "image", "image": as for a prompt}. A model that reads
        images may have no template: then the parts of a single message are its prompt.
        """
        tokenizer = self._required_tokenizer("A conversation")
        params = params.for_chat
        messages, images = messages_and_images(messages)
        if images and self.images is None:
            raise no_images(number)
        if self.images is not None and not (tokenizer.chat_templates or template):
            text = joined_parts(messages, self._image_token)
            return self._make(number, text, self._encode(text), params, adapter, cache_salt, images=images)
        ids = tokenizer.encode_chat(messages, **template)
        text = tokenizer.decode(ids, skip_special=False)  # what the model actually reads
        continues = bool(template.get("continue_final_message"))
        return self._make(number, text, ids, params, adapter, cache_salt, continues=continues, images=images)

    def _make(
        self,
        number: int,
        prompt: str | None,
        ids: list[int],
        params: SamplingParams,
        adapter: AdapterChoice,
        cache_salt: str | None,
        *,
        continues: bool = True,
        images: abc.Sequence[Any] = (),
    ) -> Request:
        """continues: the output continues the prompt's text, so a space at its start is kept. images: one for each
        image token among the ids.
        """
        if not ids:
            raise UserError(
                f"Prompt {number} is empty: there is nothing to continue.",
                hint="Give some text, or the token id that begins a document.",
            )
        ids = [self._checked_id(token, f"Prompt {number}") for token in ids]  # a tokenizer may belong to another model
        context, max_tokens = self.config.max_position_embeddings, params.max_tokens
        within = partial(length_limit, max_tokens=max_tokens, context=context, cache_tokens=self.cache_tokens)
        read: list[Tiles] = []
        if self.images is not None:
            self.images.check_count(ids, len(images), f"Prompt {number}", self._image_token)
            read = self.images.read_all(images, len(ids), within)
            ids = self.images.expand(ids, read)
        elif images:
            raise no_images(number)
        for field in ("stop_token_ids", "logit_bias"):
            for token in getattr(params, field) or ():
                self._checked_id(token, field)
        name = chosen_adapter(adapter, self.default_adapter, self.adapters)
        if params.stop_strings:
            self._required_tokenizer("A stop string")
        limit = within(len(ids))
        placed = self.images.place(ids, read) if self.images is not None and read else ()
        constraint = self._constraint(params)
        keeps_space = continues or constraint is not None  # a constraint means every byte of the text
        seed = params.seed
        if seed is None:
            seed = 0 if params.is_greedy else secrets.randbits(63)
        wanted = params.prompt_logprobs
        prompt_logprobs = None if wanted is None else PromptLogprobs(ids, wanted)
        sequences = [
            Sequence(
                request=number,
                index=index,
                prompt_ids=ids,
                params=params,
                seed=(seed + index) & MAX_SEED,
                text=TextStream(self._decoder(keeps_space), params.stop_strings, params.min_tokens),
                max_length=limit,
                end_ids=self.end_ids,
                constraint=constraint.copy() if constraint else None,
                adapter=name,
                cache_salt=cache_salt,
                prompt_logprobs=prompt_logprobs,
                images=placed,
            )
            for index in range(params.n)
        ]
        return Request(number, prompt, ids, sequences, name)

    def _encode(self, text: str) -> list[int]:
        tokenizer = self._required_tokenizer("A text prompt")
        if self.images is None:
            return tokenizer.encode(text)
        return tokenizer.encode(text, parse_special=(self.images.image_token_id,))

    @property
    def _image_token(self) -> str:
        """How a prompt names it."""
        assert self.images is not None, "asked only of a model that reads images"
        number = self.images.image_token_id
        return (self.tokenizer and self.tokenizer.backend.id_to_token(number)) or f"the image token, id {number},"

    def _constraint(self, params: SamplingParams) -> Constraint | None:
        if params.structured_outputs is None:
            return None
        self._required_tokenizer("structured_outputs")
        return self._constraints.compile(params.structured_outputs)

    @cached_property
    def _constraints(self) -> ConstraintCompiler:
        assert self.tokenizer is not None, "checked before"
        return ConstraintCompiler(self.tokenizer, self.config.vocab_size, self.end_ids)

    def _decoder(self, continues: bool) -> Decoder:
        return self.tokenizer.decoder(continues=continues) if self.tokenizer else NoText()

    def _required_tokenizer(self, what: str) -> "Tokenizer":
        if self.tokenizer is None:
            raise UserError(
                f"{what} needs a tokenizer, and this model came without one.",
                hint="Put its tokenizer.json beside the weights, or give prompts as lists of token ids.",
            )
        return self.tokenizer

    def _checked_id(self, token: Any, where: str) -> int:
        if isinstance(token, bool) or not hasattr(token, "__index__") or not 0 <= token < self.config.vocab_size:
            raise UserError(
                f"{where}: {token!r} is not a token id of this model; ids go from 0 to {self.config.vocab_size - 1}."
            )
        return int(token)

    def output(self, request: Request) -> RequestOutput:
        """The result, once its sequences have finished."""
        return RequestOutput(
            request_id=str(request.number),
            prompt=request.prompt,
            prompt_token_ids=request.prompt_ids,
            outputs=[self._completion(sequence) for sequence in request.sequences],
            prompt_logprobs=self.prompt_logprobs(request),
            num_cached_tokens=request.sequences[0].num_cached_tokens or 0,
        )

    def prompt_logprobs(self, request: Request) -> list[dict[int, Logprob] | None] | None:
        """As RequestOutput's. They are complete before the first event of any of the request's sequences."""
        record = request.sequences[0].prompt_logprobs
        return None if record is None else [None, *(self._with_text(entries) for entries in record.entries)]

    def piece(self, request: Request, event: TokenEvent, *, last: bool) -> TextPiece:
        """What a stream shows of an event. last: no other event of the request follows."""
        sequence = event.sequence
        return TextPiece(
            text=event.text,
            token_id=event.token,
            output=self.output(request) if last else None,
            index=sequence.index,
            logprobs=None if event.logprobs is None else [self._with_text(entries) for entries in event.logprobs],
            finish_reason=sequence.finish_reason if event.last else None,
            stop_reason=sequence.stop_reason if event.last else None,
        )

    def _completion(self, sequence: Sequence) -> CompletionOutput:
        with_logprobs = sequence.params.logprobs is not None
        logprobs = sequence.logprobs[: sequence.num_certain]
        return CompletionOutput(
            index=sequence.index,
            text=sequence.text.text,
            token_ids=sequence.output_ids,
            finish_reason=sequence.finish_reason,
            stop_reason=sequence.stop_reason,
            logprobs=[self._with_text(entries) for entries in logprobs] if with_logprobs else None,
            cumulative_logprob=sum(entries[0].logprob for entries in logprobs) if with_logprobs else None,
            seed=sequence.seed,
        )

    def _with_text(self, entries: list[TokenLogprob]) -> dict[int, Logprob]:
        return {entry.token: Logprob(entry.logprob, entry.rank, self._text_of(entry.token)) for entry in entries}

    def _text_of(self, token: int) -> str:
        """A token's text by itself. Kept, since decoding takes longer than all else about a logprob."""
        text = self._texts.get(token)
        if text is None:
            text = self.tokenizer.decode([token], skip_special=False, continues=True) if self.tokenizer else ""
            self._texts[token] = text
        return text


def plain(value: Any) -> Any:
    """NumPy and torch arrays and scalars as Python lists and numbers; everything else unchanged."""
    return value.tolist() if hasattr(value, "tolist") else value


class NoText:
    """The decoder of a model without a tokenizer: no text, so a stream's logprobs come with its last piece."""

    def push(self, token: int) -> str:
        return ""

    def finish(self) -> str:
        return ""
