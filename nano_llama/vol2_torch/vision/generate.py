"""Greedy answers about images, many at a time: what is asked about each, and then token after token.

Tests: tests/vol2/vision/test_vision_generate.py.
"""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from nano_llama.vol2_torch.cache import KVCache
from nano_llama.vol2_torch.precision import Precision
from nano_llama.vol2_torch.vision.model import VisionLanguageModel, splice

BATCH_SIZE = 64  # images, and prompts, at a time; it changes memory and speed, not the result


def answer_in(
    precision: Precision, model: VisionLanguageModel, prompts: Sequence[list[int]], pixel_values: np.ndarray,
    images: Sequence[int], max_tokens: int,
) -> list[list[int]]:  # fmt: skip
    """`greedy_answers` for arrays, in this precision: after the first two what data/vqa/answers.py calls Answer."""
    training = model.training
    model.eval()
    with precision.autocast(), torch.compiler.set_stance("force_eager"):  # lengths change all the time
        shown = torch.from_numpy(pixel_values).to(model.device)
        answers = greedy_answers(model, prompts, shown, images, max_tokens)
    model.train(training)
    return answers


@torch.no_grad()
def greedy_answers(
    model: VisionLanguageModel, prompts: Sequence[Sequence[int]], pixel_values: Tensor, images: Sequence[int],
    max_tokens: int,
) -> list[list[int]]:  # fmt: skip
    """The ids that follow each prompt, without one that ends the text; at most `max_tokens`.

    prompts: with the places of one image each. pixel_values (N,3,S,S); images: for each prompt, which of these it is
    about. An image is encoded once. Prompts of one length are answered together, so that no row has padding.
    """
    encoded = torch.cat([model.encode(part) for part in pixel_values.split(BATCH_SIZE)])  # (N,n,D)
    places = defaultdict[int, list[int]](list)
    for place, prompt in enumerate(prompts):
        places[len(prompt)].append(place)
    answers: list[list[int]] = [[] for _ in prompts]
    for alike in places.values():
        for first in range(0, len(alike), BATCH_SIZE):
            batch = alike[first : first + BATCH_SIZE]
            tokens = torch.tensor([prompts[place] for place in batch], device=model.device)  # (B,T)
            rows = encoded[[images[place] for place in batch]]  # (B,n,D)
            for place, answer in zip(batch, _continued(model, tokens, rows, max_tokens), strict=True):
                answers[place] = answer
    return answers


def _continued(model: VisionLanguageModel, tokens: Tensor, rows: Tensor, max_tokens: int) -> list[list[int]]:
    """tokens (B,T) with the places of one image each, whose rows are (B,n,D) -> what follows each."""
    llama, ends = model.language_model, model.config.text_config.eos_token_ids
    (B, T), longest = tokens.shape, model.config.text_config.max_position_embeddings
    steps = min(max_tokens, longest - T)
    cache = KVCache(llama.config, B, T + steps, device=model.device, dtype=model.dtype)
    x = splice(model.model.text_model.embed_tokens(tokens), rows, tokens == model.config.image_token_id)  # (B,T,D)
    hidden = llama.decode(x, cache=cache)  # (B,T,D)
    written: list[list[int]] = [[] for _ in range(B)]
    going_on = list(range(B))
    for _ in range(steps):
        likeliest = next_tokens(model, hidden[:, -1]).tolist()  # (B,)
        kept = [place for place, token in enumerate(likeliest) if token not in ends]
        if not kept:
            break
        if len(kept) < len(going_on):
            cache.keep_rows(torch.tensor(kept, device=model.device))
        going_on, new = [going_on[place] for place in kept], [likeliest[place] for place in kept]
        for row, token in zip(going_on, new, strict=True):
            written[row].append(token)
        hidden = llama.hidden_states(torch.tensor(new, device=model.device)[:, None], cache=cache)  # (B,1,D)
    return written


def next_tokens(model: VisionLanguageModel, hidden: Tensor) -> Tensor:
    """The likeliest token after each of (..., D): never the image token, which stands for no text."""
    logits = model.logits(hidden)  # (..., V)
    logits[..., model.config.image_token_id] = -torch.inf
    return logits.argmax(-1)
