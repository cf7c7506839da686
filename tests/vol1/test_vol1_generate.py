"""Generation with a cache equals generation without, on every kind of model; and SmolLM2 answers."""

import numpy as np
import pytest

from nano_llama.core.config import LlamaConfig, RopeScaling
from nano_llama.core.errors import UserError
from nano_llama.core.sampling import SamplingParams
from nano_llama.vol1_numpy import Llama
from nano_llama.vol1_numpy.generate import KVCache, generate

V = 41


def tiny(**changes):
    shape = {
        "vocab_size": V,
        "hidden_size": 24,
        "intermediate_size": 40,
        "num_hidden_layers": 3,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "max_position_embeddings": 48,
        "initializer_range": 0.3,
    }
    return Llama.init(LlamaConfig(**{**shape, **changes}), seed=3, dtype=np.float64)


@pytest.mark.parametrize("kv_heads", [6, 2, 1])
@pytest.mark.parametrize("chunks", [(9, 1, 1, 1), (1,) * 12, (5, 4, 3), (1, 11)])
def test_the_cache_changes_no_logit(kv_heads, chunks):
    model = tiny(num_key_value_heads=kv_heads)
    tokens = np.random.default_rng(0).integers(0, V, (2, 12))
    whole, cache, start = model.forward(tokens), KVCache(model.config, 12, batch_size=2, dtype=np.float64), 0
    for length in chunks:
        part = model.forward(tokens[:, start : start + length], past=cache)
        np.testing.assert_allclose(part, whole[:, start : start + length], rtol=1e-9, atol=1e-11)
        start += length
        assert cache.length == start


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("tied", [False, True])
def test_naive_and_cached_give_the_same_tokens(temperature, tied):
    model = tiny(tie_word_embeddings=tied)
    params = SamplingParams(temperature=temperature, top_k=20, repetition_penalty=1.1, max_tokens=30, seed=7)
    cached = list(generate(model, [1, 2, 3], params))
    assert cached == list(generate(model, [1, 2, 3], params, use_cache=False))
    assert len(cached) == 30 and len(set(cached)) > 3


def test_each_token_is_sampled_from_the_uncached_logits():
    model = tiny(rope_scaling=RopeScaling(rope_type="linear", factor=2.0))
    text = [5, 6]
    for token in generate(model, text.copy(), SamplingParams(temperature=0.0, max_tokens=10)):
        assert token == int(np.argmax(model.forward(np.array([text]))[0, -1]))
        text.append(token)


def test_a_seed_repeats_and_another_differs():
    model = tiny()

    def draw(seed):
        return list(generate(model, [1], SamplingParams(seed=seed, max_tokens=20)))

    assert draw(1) == draw(1) != draw(2)


def test_generation_ends_at_eos_or_at_the_context_limit():
    model = tiny()
    free = list(generate(model, [1, 2], SamplingParams(temperature=0.0, max_tokens=None)))
    assert len(free) == 46  # 48 positions
    third = free[2]
    place = free.index(third) + 1
    greedy = SamplingParams(temperature=0.0, max_tokens=20)
    assert list(generate(model, [1, 2], greedy, end_ids=[third])) == free[:place]
    ignoring = SamplingParams(temperature=0.0, max_tokens=20, ignore_eos=True)
    assert list(generate(model, [1, 2], ignoring, end_ids=[third])) == free[:20]
    asked = SamplingParams(temperature=0.0, max_tokens=20, ignore_eos=True, stop_token_ids=[third])
    assert list(generate(model, [1, 2], asked)) == free[:place]
    longer = list(generate(model, [1, 2], greedy.replace(min_tokens=8), end_ids=[third]))
    assert longer[: place - 1] == free[: place - 1] and third not in longer[:8] and len(longer) > 8
    ended = Llama(model.config.replace(eos_token_id=third), model.params)
    assert list(generate(ended, [1, 2], greedy)) == free[:place]


@pytest.mark.parametrize("prompt", [[], list(range(30)) * 2])
def test_an_empty_or_too_long_prompt_is_refused_with_its_length(prompt):
    with pytest.raises(UserError, match=f"The prompt has {len(prompt)} tokens"):
        generate(tiny(), prompt)


@pytest.mark.parametrize("wish", [{"n": 2}, {"logprobs": 1}, {"prompt_logprobs": 0}, {"stop": "x"}])
def test_unsupported_sampling_params_are_refused(wish):
    with pytest.raises(UserError, match="does not support"):
        generate(tiny(), [1], SamplingParams(**wish))


def test_smollm2_answers_from_its_gguf_through_its_chat_template(smollm2):
    from nano_llama.tokenizer import Tokenizer

    tokenizer, model = Tokenizer.from_pretrained(smollm2), Llama.from_pretrained(smollm2)
    ids = tokenizer.encode_chat([{"role": "user", "content": "What is the capital of France?"}])
    answer = generate(model, ids, SamplingParams(temperature=0.0, max_tokens=12), end_ids=tokenizer.stop_ids)
    assert tokenizer.decode(list(answer)) == "The capital of France is Paris."
