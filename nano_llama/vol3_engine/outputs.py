"""What the engine returns, in the shape of vLLM's classes of the same names.

Tests: tests/vol3/test_llm.py, tests/vol3/test_stream.py.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Logprob:
    """One token's natural log-probability under the model itself, its rank (1: most likely), and its text."""

    logprob: float
    rank: int
    decoded_token: str


@dataclass
class CompletionOutput:
    """One sample.

    token_ids: all new ids, including the one that ended the text; text: without it, and cut before a stop string.
    finish_reason: "stop" (end of text, stop token, stop string) or "length" (max_tokens, or the context is full).
    stop_reason: the stop string or stop token id; None for the model's own end of text and for "length".
    logprobs: for each new token {id: Logprob}, the sampled one first; None unless requested. Tokens whose whole text a
    stop string cut off are left out, so there may be fewer than token_ids. cumulative_logprob: the sum over the sampled
    tokens in logprobs. seed: SamplingParams(seed=..., n=1) gives the same sample again.
    """

    index: int
    text: str
    token_ids: list[int]
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    logprobs: list[dict[int, Logprob]] | None = None
    cumulative_logprob: float | None = None
    seed: int | None = None


@dataclass
class RequestOutput:
    """One prompt and its n samples. prompt is None if the prompt was given as ids.

    prompt_logprobs: one entry per prompt token, None for the first, then {id: Logprob}, the prompt's token first; None
    unless requested. num_cached_tokens: prompt tokens whose keys and values were there already, from other requests.
    """

    request_id: str
    prompt: str | None
    prompt_token_ids: list[int]
    outputs: list[CompletionOutput] = field(default_factory=list)
    finished: bool = True
    prompt_logprobs: list[dict[int, Logprob] | None] | None = None
    num_cached_tokens: int = 0

    @property
    def token_ids(self) -> list[int]:
        """The first sample's."""
        return self.outputs[0].token_ids

    @property
    def text(self) -> str:
        """The first sample's."""
        return self.outputs[0].text


@dataclass(frozen=True)
class TextPiece:
    """One step of a stream: the text that is now certain (often "", never half a character) and the new token.

    index: which of the n samples it continues. logprobs: one {id: Logprob} for each token whose text is certain with
    this piece, so joined over the stream they are the sample's; None unless requested. finish_reason, stop_reason: as
    CompletionOutput's, on the last piece of each sample. output: the whole result, on the very last piece.
    str(piece) is its text.
    """

    text: str
    token_id: int
    output: RequestOutput | None = None
    index: int = 0
    logprobs: list[dict[int, Logprob]] | None = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None

    def __str__(self) -> str:
        return self.text
