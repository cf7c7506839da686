"""Text longer than the model's context: whenever it is full, continue from the last half of it.

The model then no longer sees the beginning: its context is a sliding window. Text that fits into the context is the
same as without this. Not here: conversations, which drop whole turns (conversation.py).
Tests: tests/cli/test_past_context.py.
"""

import secrets
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from nano_llama.core.errors import UserError
from nano_llama.core.sampling import MAX_SEED, SamplingParams
from nano_llama.vol3_engine.outputs import CompletionOutput, Logprob, RequestOutput, TextPiece
from nano_llama.vol3_engine.text import TextStream

if TYPE_CHECKING:
    from nano_llama.vol3_engine.llm import LLM


def generate_past_context(
    llm: "LLM", prompt: str, params: SamplingParams, on_full: Callable[[int], None] = lambda kept: None
) -> Iterator[TextPiece]:
    """Like llm.stream, until params.max_tokens are generated, however short the context is.

    Every window is a request with a seed of its own; the text and the search for stop strings continue across windows.
    `on_full` is called with the number of tokens that the next window begins with. Raises UserError if the prompt
    alone fills the context.
    """
    max_tokens = params.max_tokens
    if llm.tokenizer is None or max_tokens is None:
        raise UserError(
            "A text prompt needs a tokenizer, and this model came without one.",
            hint="Put its tokenizer.json beside the weights.",
        )
    prompt_ids = llm.tokenizer.encode(prompt)
    if params.seed is None:
        params = params.replace(seed=0 if params.is_greedy else secrets.randbits(63))
    assert params.seed is not None, "set above"
    text = TextStream(llm.tokenizer.decoder(continues=True), params.stop_strings, params.min_tokens)
    ids: list[int] = []
    logprobs: list[dict[int, Logprob]] = []  # of the tokens whose text is certain, in their window at least
    told = 0  # those that pieces have brought: of tokens whose text is certain with all stop strings
    window = prompt_ids
    while True:
        window_params = params.replace(
            stop=None,
            max_tokens=max_tokens - len(ids),
            min_tokens=max(0, params.min_tokens - len(ids)),
            seed=(params.seed + len(ids)) & MAX_SEED,
        )
        for piece in llm.stream(window, window_params):
            ids.append(piece.token_id)
            logprobs += piece.logprobs or []
            ended = piece.output is not None and piece.output.outputs[0].finish_reason == "stop"  # the model's own end
            new = "" if ended else text.push(piece.token_id)
            last = ended or text.stopped_by is not None or len(ids) == max_tokens
            if last:
                new += text.finish()
            certain = len(ids) if last and text.stopped_by is None else text.num_certain
            here = None if params.logprobs is None else logprobs[told:certain]
            told += len(here or ())
            if last:
                reason = "stop" if ended or text.stopped_by is not None else "length"
                result = CompletionOutput(0, text.text, ids, reason, text.stopped_by, seed=params.seed)
                if here is not None:
                    result.logprobs = logprobs[:told]
                    result.cumulative_logprob = sum(next(iter(each.values())).logprob for each in result.logprobs)
                yield TextPiece(new, piece.token_id, RequestOutput("0", prompt, prompt_ids, [result]), logprobs=here)
                return
            yield TextPiece(new, piece.token_id, logprobs=here)
        window = (prompt_ids + ids)[-(llm.config.max_position_embeddings // 2) :]
        on_full(len(window))
