"""Greedy answers about images, many at a time: what is asked about each, and then token after token.

Tests: tests/vol2/vision/test_vision_generate.py.
"""

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from nano_llama.vol2_torch.cache import KVCache
from nano_llama.vol2_torch.vision.model import VisionLanguageModel


@torch.no_grad()
def greedy_answers(
    model: VisionLanguageModel, prompts: Sequence[Sequence[int]], pixel_values: Tensor, max_tokens: int
) -> list[list[int]]:
    """The ids that follow each prompt, without one that ends the text; at most `max_tokens`.

    prompts: with the places of one image each, image n of pixel_values (N,3,S,S) for prompt n. Those of one length are
    answered together, so that no row has padding.
    """
    lengths = defaultdict[int, list[int]](list)
    for place, prompt in enumerate(prompts):
        lengths[len(prompt)].append(place)
    answers: dict[int, list[int]] = {}
    for places in lengths.values():
        tokens = torch.tensor([prompts[place] for place in places], device=model.device)  # (B,T)
        written = _continued(model, tokens, pixel_values[places], max_tokens)
        answers |= dict(zip(places, written, strict=True))
    return [answers[place] for place in range(len(prompts))]


def _continued(model: VisionLanguageModel, tokens: Tensor, pixel_values: Tensor, max_tokens: int) -> list[list[int]]:
    """tokens (B,T) with one image each, pixel_values (B,3,S,S) -> what follows each."""
    config, ends = model.config.text_config, model.config.text_config.eos_token_ids
    steps = min(max_tokens, config.max_position_embeddings - tokens.shape[1])
    cache = KVCache(config, len(tokens), tokens.shape[1] + steps, device=model.device, dtype=model.dtype)
    written: list[list[int]] = [[] for _ in range(len(tokens))]
    going_on = list(range(len(tokens)))
    images: Tensor | None = pixel_values
    for _ in range(steps):
        hidden = model.hidden_states(tokens, images, cache=cache)[:, -1]  # (B,D)
        likeliest = next_tokens(model, hidden)  # (B,)
        images = None
        for row, token in zip(list(going_on), likeliest[going_on].tolist(), strict=True):
            if token in ends:
                going_on.remove(row)
            else:
                written[row].append(token)
        if not going_on:
            break
        tokens = likeliest[:, None]  # (B,1); of rows that have ended nothing is kept
    return written


def next_tokens(model: VisionLanguageModel, hidden: Tensor) -> Tensor:
    """The likeliest token after each of (..., D): never the image token, which stands for no text."""
    logits = model.logits(hidden)  # (..., V)
    logits[..., model.config.image_token_id] = -torch.inf
    return logits.argmax(-1)
