"""LLM over a small Volume 2 model: the tokens of plain recomputation without cache or batch."""

import pytest

from helpers.stub_engine import END, ByteTokenizer, small_config

torch = pytest.importorskip("torch")

from nano_llama.core.sampling import SamplingParams, sample  # noqa: E402
from nano_llama.vol2_torch import Llama  # noqa: E402
from nano_llama.vol3_engine.llm import LLM  # noqa: E402

PROMPTS = ["a", "the quick brown fox", "hello", "x" * 40, "it is what it is"]
PARAMS = [
    SamplingParams(temperature=0.0, max_tokens=24),
    SamplingParams(temperature=0.8, seed=3, max_tokens=20),
    SamplingParams(temperature=1.0, top_k=20, top_p=0.9, seed=4, max_tokens=24, repetition_penalty=1.2),
    SamplingParams(temperature=1.3, min_p=0.05, seed=3, max_tokens=12),
    SamplingParams(temperature=0.0, max_tokens=30, presence_penalty=0.5, frequency_penalty=0.2),
]


@pytest.fixture(scope="module")
def model():
    return Llama.init(small_config(initializer_range=0.3), seed=5)


def check_by_recomputing(model, out, params):
    """Each token must be the one that the simplest generator would take after those before it.

    The whole text goes through the model once, without a cache: row t of its logits is what a loop would have had.
    """
    prompt, output = out.prompt_token_ids, out.token_ids
    with torch.no_grad():
        logits = model(torch.tensor([prompt + output]))[0].numpy()  # (T,V)
    for i, token in enumerate(output):
        row = logits[len(prompt) - 1 + i]
        assert token == sample(row, params, prompt, output[:i], seed=params.seed or 0), f"{out.prompt!r}, token {i}"


@pytest.mark.parametrize("max_num_seqs", [1, 3, 8])
def test_batches_give_the_tokens_of_computing_each_text_again(model, max_num_seqs):
    llm = LLM.from_model(model, ByteTokenizer(), max_num_seqs=max_num_seqs)
    outputs = llm.generate(PROMPTS, PARAMS)
    for out, params in zip(outputs, PARAMS, strict=True):
        check_by_recomputing(model, out, params)
        assert len(out.token_ids) == params.max_tokens or out.token_ids[-1] == END


def test_a_small_kv_cache_gives_the_same_tokens(model):
    roomy = LLM.from_model(model, ByteTokenizer())
    tight = LLM.from_model(model, ByteTokenizer(), kv_cache_memory=70 * roomy.engine.runner.kv_bytes_per_token)
    expected = [out.token_ids for out in roomy.generate(PROMPTS, PARAMS)]
    assert [out.token_ids for out in tight.generate(PROMPTS, PARAMS)] == expected


def test_the_whole_context_can_be_used(model):
    llm = LLM.from_model(model, ByteTokenizer())
    context = model.config.max_position_embeddings
    params = SamplingParams(temperature=0.0, max_tokens=None, ignore_eos=True)
    short, long = llm.generate([[1], [1] * (context - 1)], params)
    assert len(short.token_ids) == context - 1 and len(long.token_ids) == 1
    assert {short.outputs[0].finish_reason, long.outputs[0].finish_reason} == {"length"}
    check_by_recomputing(model, short, params)


def test_num_threads_does_not_leak(model):
    before = torch.get_num_threads()
    stream = LLM.from_model(model, ByteTokenizer(), num_threads=1).stream("a", PARAMS[0])
    next(stream)
    assert torch.get_num_threads() == before  # also while the stream is open
