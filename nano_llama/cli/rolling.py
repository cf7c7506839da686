"""Text that is longer than the model's context: when it is full, go on from the later half of what was written.

The model then forgets the beginning, as a reader would who looks through a window that moves. A text that fits is
exactly the engine's own. Not here: conversations, which forget whole turns (conversation.py).
Tests: tests/cli/test_rolling.py.
"""

import secrets
from collections.abc import Callable, Iterator

from nano_llama.cli.engines import Speaker
from nano_llama.core.errors import UserError
from nano_llama.core.sampling import MAX_SEED, SamplingParams
from nano_llama.vol3_engine.outputs import CompletionOutput, RequestOutput, TextPiece
from nano_llama.vol3_engine.text import TextStream


def roll(
    speaker: Speaker, prompt: str, params: SamplingParams, on_full: Callable[[int], None] = lambda kept: None
) -> Iterator[TextPiece]:
    """As speaker.stream, until params.max_tokens are made, however short the context is.

    Every window is a request of its own, with a seed of its own; text and stop strings run on across them. `on_full`
    hears with how many tokens the next window begins. Raises UserError where the prompt alone fills the context.
    """
    most = params.max_tokens
    if speaker.tokenizer is None or most is None:
        raise UserError(
            "Text needs a tokenizer, and this model came without one.", hint="Put its tokenizer.json there."
        )
    prompt_ids = speaker.tokenizer.encode(prompt)
    if params.seed is None:
        params = params.replace(seed=0 if params.is_greedy else secrets.randbits(63))
    assert params.seed is not None, "set above"
    text = TextStream(speaker.tokenizer.decoder(continues=True), params.stop_strings)
    ids: list[int] = []
    window = prompt_ids
    while True:
        asked = params.replace(stop=None, max_tokens=most - len(ids), seed=(params.seed + len(ids)) & MAX_SEED)
        for piece in speaker.stream(window, asked):
            ids.append(piece.token_id)
            ended = piece.output is not None and piece.output.outputs[0].finish_reason == "stop"  # the model's own end
            new = "" if ended else text.push(piece.token_id)
            if ended or text.stopped_by is not None or len(ids) == most:
                new += text.finish()
                reason = "stop" if ended or text.stopped_by is not None else "length"
                done = CompletionOutput(0, text.text, ids, reason, text.stopped_by, seed=params.seed)
                yield TextPiece(new, piece.token_id, RequestOutput("0", prompt, prompt_ids, [done]))
                return
            yield TextPiece(new, piece.token_id)
        window = (prompt_ids + ids)[-(speaker.config.max_position_embeddings // 2) :]
        on_full(len(window))
