"""Generation, one sequence at a time: naively, computing the whole text again for each token, and with a KV cache.

Why a cache is enough: a token attends to itself and to what came before it. So appending a token changes no key or
value of the earlier ones, in any layer; only the new token's row is left to compute.
Not here: how a token is sampled (core/sampling), text and batches (vol3_engine/runner/numpy.py serves this model).
Tests: tests/vol1/test_vol1_generate.py shows that both ways are equal.
"""

import secrets
from collections.abc import Collection, Iterator, Sequence

import numpy as np

from nano_llama.core.config import LlamaConfig
from nano_llama.core.errors import UserError
from nano_llama.core.sampling import SamplingParams, sample
from nano_llama.vol1_numpy.data_parallel import single_threaded_blas
from nano_llama.vol1_numpy.model import Llama
from nano_llama.vol1_numpy.ops.array import Array
from nano_llama.vol1_numpy.ops.registry import PLAIN


class KVCache:
    """The keys, with RoPE applied, and values of every token so far: two arrays (L,B,G,max_length,K)."""

    def __init__(
        self, config: LlamaConfig, max_length: int, batch_size: int = 1, dtype: np.typing.DTypeLike = np.float32
    ):
        G, K = config.num_key_value_heads, config.head_dim
        self.keys = np.empty((config.num_hidden_layers, batch_size, G, max_length, K), dtype)
        self.values = np.empty_like(self.keys)
        self.length = 0  # tokens whose keys and values every layer has

    def append(self, layer: int, k: Array, v: Array) -> tuple[Array, Array]:
        """Append k, v (B,G,T,K) of the new tokens; return those of all tokens, (B,G,S,K) each."""
        end = self.length + k.shape[2]
        assert end <= self.keys.shape[3], f"{end} tokens do not fit into a cache of {self.keys.shape[3]}"
        self.keys[layer, :, :, self.length : end] = k
        self.values[layer, :, :, self.length : end] = v
        keys, values = self.keys[layer, :, :, :end], self.values[layer, :, :, :end]
        if layer == len(self.keys) - 1:  # the last layer has these tokens now
            self.length = end
        return keys, values


def generate(
    model: Llama,
    prompt_ids: Sequence[int],
    params: SamplingParams | None = None,
    *,
    end_ids: Collection[int] | None = None,
    use_cache: bool = True,
) -> Iterator[int]:
    """Yield the tokens that follow the prompt, up to and including one that ends the text.

    params: how tokens are sampled, and how many. end_ids: the ids that end a text unless params.ignore_eos; by default
    the config's (a chat needs the tokenizer's stop_ids). use_cache=False: the naive way, for comparison. Never
    generates past the model's context. Raises UserError for a prompt that is empty or too long, and for parameters
    that only the engine supports (n > 1, logprobs of output or prompt, stop strings).
    """
    params = params or SamplingParams()
    if params.n > 1 or params.logprobs is not None or params.prompt_logprobs is not None or params.stop:
        raise UserError(
            "This function generates one list of tokens: it does not support n, logprobs and stop strings.",
            hint='Use the engine: nano_llama.LLM(path), or LLM(path, runner="numpy") to stay in Volume 1.',
        )
    context = model.config.max_position_embeddings
    if not 0 < len(prompt_ids) < context:
        raise UserError(
            f"The prompt has {len(prompt_ids):,} tokens; this model takes 1 to {context - 1:,}, so that one can follow."
        )
    left = context - len(prompt_ids)
    steps = left if params.max_tokens is None else min(left, params.max_tokens)
    ends = {*(params.stop_token_ids or ())}
    if not params.ignore_eos:
        ends |= {*(model.config.eos_token_ids if end_ids is None else end_ids)}
    return _tokens(model, list(prompt_ids), params, ends, steps, use_cache)


def _tokens(
    model: Llama, prompt_ids: list[int], params: SamplingParams, ends: set[int], steps: int, use_cache: bool
) -> Iterator[int]:
    seed = secrets.randbits(63) if params.seed is None else params.seed
    next_logits = _cached(model, len(prompt_ids) + steps) if use_cache else _naive(model)
    output_ids: list[int] = []
    new = prompt_ids
    for _ in range(steps):
        token = sample(next_logits(new), params, prompt_ids, output_ids, seed=seed, end_ids=ends)
        output_ids.append(token)
        yield token
        if token in ends:
            return
        new = [token]


def _naive(model: Llama):
    """A function from the new tokens to the logits (V,) after them; it computes the whole text each time."""
    text: list[int] = []

    def next_logits(new: list[int]) -> Array:
        text.extend(new)
        return last_logits(model, text)

    return next_logits


def _cached(model: Llama, max_length: int):
    """The same function; it computes the new tokens only."""
    cache = KVCache(model.config, max_length, dtype=model.dtype)
    # For one query the T x S matrix is a single row: cutting it into tiles would only cost time.
    one_token = model.with_ops(attention=PLAIN.attention)

    def next_logits(new: list[int]) -> Array:
        if len(new) > 1:
            return last_logits(model, new, cache)
        # A matrix times a vector takes less time than threads need to synchronize, above all on a busy machine.
        with single_threaded_blas():
            return last_logits(one_token, new, cache)

    return next_logits


def last_logits(model: Llama, tokens: list[int], past: KVCache | None = None) -> Array:
    """The logits (V,) of the token after `tokens`; the head runs for the last position only."""
    hidden = model.hidden_states(np.array([tokens]), past=past)  # (1,T,D)
    return model.logits(hidden[:, -1:])[0, 0]
