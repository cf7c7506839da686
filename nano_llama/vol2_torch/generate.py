"""Generation with Volume 2's model, one sequence at a time: for samples during training.

Not here: how a token is sampled (core/sampling), text and batches (vol3_engine/runner/torch.py serves this model).
Tests: tests/vol2/test_generate.py.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch

from nano_llama.core.sampling import SamplingParams, sample
from nano_llama.vol2_torch.cache import KVCache
from nano_llama.vol2_torch.model import Llama


def generate(
    model: Llama, prompt_ids: Sequence[int], params: SamplingParams, *, use_cache: bool = True,
    computing: Callable[[], AbstractContextManager] = nullcontext,
) -> Iterator[int]:  # fmt: skip
    """Yield the tokens that follow the prompt, up to and including one that ends the text; never past the context.

    params: its `seed` and `max_tokens` must be set. use_cache=False: compute the whole text for each token, for
    comparison; RoPE of the kind 'dynamic' always does. computing: entered around each forward pass. Compiled layers run
    eagerly here: the length changes with every token, and each length would be compiled again.
    """
    assert params.seed is not None and params.max_tokens is not None, "a sample has a seed and a length"
    config, ends = model.config, {*(params.stop_token_ids or ()), *model.config.eos_token_ids}
    context = list(prompt_ids)
    steps = min(params.max_tokens, config.max_position_embeddings - len(context))
    cache = None
    if use_cache and config.rope_kind != "dynamic":
        cache = KVCache(config, 1, len(context) + max(steps, 0), device=model.device, dtype=model.dtype)
    new, output = context, list[int]()
    for _ in range(steps):
        with computing():
            logits = _next_logits(model, new if cache else context + output, cache)
        token = sample(logits.numpy(), params, context, output, seed=params.seed, end_ids=ends)
        output.append(token)
        yield token
        if token in ends:
            return
        new = [token]


@torch.no_grad()
def _next_logits(model: Llama, tokens: Sequence[int], cache: KVCache | None) -> torch.Tensor:
    """Logits (V,) of the token that follows `tokens`, after what the cache holds; on the CPU."""
    ids = torch.tensor([list(tokens)], device=model.device)  # (1,T)
    training = model.training
    model.eval()  # no dropout
    with torch.compiler.set_stance("force_eager"):
        hidden = model.hidden_states(ids, cache=cache)  # (1,T,D)
    model.train(training)
    return model.logits(hidden[0, -1]).float().cpu()
