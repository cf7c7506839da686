"""A sequence: one sample in flight, its token ids and parameters, and the one place that decides when it ends.

Tests: tests/vol3/test_sequence.py, tests/vol3/test_prompt_logprobs.py.
"""

from collections import abc
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from typing import Any

from nano_llama.core.sampling import SamplingParams, TokenLogprob
from nano_llama.vol3_engine.blocks import EMPTY_PREFIX
from nano_llama.vol3_engine.constraints import Constraint
from nano_llama.vol3_engine.images import PlacedImage
from nano_llama.vol3_engine.text import TextStream
from nano_llama.vol3_engine.timing import Timing


class Status(Enum):
    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"


class PromptLogprobs:
    """The log-probabilities of a prompt's tokens, and of the `count` likeliest, as far as they are computed.

    The n samples of a request share it: whichever computes a row first adds what its logits say of the token after it.
    """

    def __init__(self, prompt_ids: abc.Sequence[int], count: int):
        self.prompt_ids, self.count = prompt_ids, count
        self.entries: list[list[TokenLogprob]] = []  # entry i is prompt token i + 1's, from row i

    @property
    def num_missing(self) -> int:
        return len(self.prompt_ids) - 1 - len(self.entries)

    @property
    def next_token(self) -> int:
        """The one that the next row's logits are asked about."""
        return self.prompt_ids[len(self.entries) + 1]


@dataclass(kw_only=True, eq=False)
class Sequence:
    """Sample number `index` of request number `request`.

    adapter: the name of the one that computes it; None: the base model alone.
    cache_salt: sequences share cached blocks with those of the same salt only.
    end_ids: the model's own end-of-text ids (params.stop_token_ids come on top).
    constraint: what its text may be; None: anything.
    max_length: the most tokens that prompt and output may have together; context, memory and max_tokens limit it.
    prompt_logprobs: None unless requested.
    images: what stands in the places of the prompt's image tokens, in their order.
    on_logits: is called with each row of logits (V,) from which a token is sampled, in the engine's thread; the row is
        the engine's own, and overwritten later.
    """

    request: int
    index: int
    prompt_ids: abc.Sequence[int]
    params: SamplingParams
    seed: int
    text: TextStream
    max_length: int
    end_ids: frozenset[int] = frozenset()
    constraint: Constraint | None = None
    adapter: str | None = None
    cache_salt: str | None = None
    prompt_logprobs: PromptLogprobs | None = None
    images: abc.Sequence[PlacedImage] = ()
    on_logits: abc.Callable[[Any], None] | None = None

    output_ids: list[int] = field(default_factory=list)
    logprobs: list[list[TokenLogprob]] = field(default_factory=list)  # of each token, if the request asks for them
    status: Status = Status.WAITING
    finish_reason: str | None = None  # "stop" | "length" | "abort"
    stop_reason: int | str | None = None  # the stop token id or stop string; None for the model's own end
    timing: Timing = field(default_factory=Timing)

    # Kept by the scheduler: where the keys and values are.
    number: int = -1  # in the order of arrival
    block_table: list[int] = field(default_factory=list)
    num_computed: int = 0  # tokens whose keys and values are in the blocks, or will be by the end of the step
    prefix_id: int = EMPTY_PREFIX  # the block pool's id for the contents of the first num_hashed_blocks blocks
    num_hashed_blocks: int = 0
    num_cached_tokens: int | None = None  # of the prompt: found in cached blocks when it first ran

    def __len__(self) -> int:
        return len(self.prompt_ids) + len(self.output_ids)

    def tokens(self, start: int, end: int) -> list[int]:
        """Ids start ... end-1 of prompt and output together."""
        prompt = len(self.prompt_ids)
        if start >= prompt:
            return self.output_ids[start - prompt : end - prompt]
        return [*self.prompt_ids[start:end], *self.output_ids[: max(0, end - prompt)]]

    @property
    def num_settled(self) -> int:
        """Tokens whose rows are not needed for prompt_logprobs: only these may be skipped if they are cached."""
        record = self.prompt_logprobs
        return len(self) if record is None or not record.num_missing else len(record.entries)

    @property
    def finished(self) -> bool:
        return self.status is Status.FINISHED

    @property
    def max_new_tokens(self) -> int:
        return self.max_length - len(self.prompt_ids)

    @cached_property
    def stop_ids(self) -> frozenset[int]:
        """All ids that end it."""
        return (frozenset() if self.params.ignore_eos else self.end_ids) | frozenset(self.params.stop_token_ids or ())

    @property
    def num_certain(self) -> int:
        """Tokens whose text is certain; at the end all, but for those whose whole text a stop string cut off."""
        cut = self.text.stopped_by is not None
        return len(self.output_ids) if self.finished and not cut else self.text.num_certain

    def append(self, token: int, logprobs: list[TokenLogprob] | None = None) -> str:
        """Add the next token, decide whether the sequence ends with it, and return the text that is now certain.

        A stop token is kept in output_ids and adds no text; a stop string is cut off the text. Raises UserError where
        the constraint cannot be followed any further.
        """
        assert not self.finished, "a finished sequence takes no more tokens"
        self.output_ids.append(token)
        if logprobs is not None:
            self.logprobs.append(logprobs)
        if token in (self.params.stop_token_ids or ()):
            return self._finish("stop", token)
        if token in self.end_ids and not self.params.ignore_eos:
            return self._finish("stop", None)
        new_text = self.text.push(token)
        if self.text.stopped_by is not None:
            return new_text + self._finish("stop", self.text.stopped_by)
        if self.constraint is not None:
            self.constraint.accept(token)
            if self.constraint.finished:
                return new_text + self._finish("stop", None)
        if len(self) >= self.max_length:
            new_text += self._finish("length", None)
        return new_text

    def abort(self) -> None:
        """End here: the rest is not needed."""
        if not self.finished:
            self._finish("abort", None)

    def _finish(self, reason: str, stop_reason: int | str | None) -> str:
        self.status = Status.FINISHED
        self.finish_reason, self.stop_reason = reason, stop_reason
        rest = self.text.finish()
        if self.text.stopped_by is not None and reason == "length":
            # Bytes that the decoder held back until now completed a stop string.
            self.finish_reason, self.stop_reason = "stop", self.text.stopped_by
        return rest
