"""LLM on a real pretrained model against transformers, which loads the same .gguf by code of its own, in float32.

Not here: logits tensor by tensor (test_transformers.py). Greedy tokens are compared one by one.
"""

import json

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("gguf")

from nano_llama import LLM, SamplingParams  # noqa: E402

BLOCK_BYTES = 16 * 30 * 2 * 3 * 64 * 4  # tokens x layers x (keys and values) x heads x head_dim x float32
GREEDY = SamplingParams(temperature=0.0, max_tokens=64, ignore_eos=True)
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
PROMPTS = [
    "The capital of France is",
    "Once upon a time, in a village by the sea,",
    "def fibonacci(n):\n    ",
    "1, 2, 3, 4, 5,",
    "The three laws of thermodynamics say that",
    "Q: Why is the sky blue?\nA:",
    "Zürich, Łódź, 東京 and 🦙 are",
    "import numpy as np\n\nx = np.",
    "Dear Sir or Madam,\n\nI am writing to",
    "a",
    "The mitochondria is the powerhouse of the cell. " * 8 + "In other words,",
    '{"name": "Ada", "born": 1815, "field": "',
    "The mitochondria is the powerhouse of the cell. " * 8 + "It was first seen",
    "SELECT name, count(*) FROM",
    "Il était une fois",
    "The king said to the queen, and the queen said to the king:",
    "HTTP/1.1 200 OK\nContent-Type:",
    "\n\n# Introduction\n\n",
    "Once upon a time, in a village by the sea, there lived",
]


@pytest.fixture(scope="module")
def llm(smollm2):
    return LLM(smollm2, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def reference(smollm2):
    """transformers' model. It dequantizes the file itself, with the library gguf."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(smollm2.parent, gguf_file=smollm2.name, dtype=torch.float32).eval()
    model.generation_config.eos_token_id = None  # 64 tokens, whatever they are, as ignore_eos asks of ours
    return model


def test_two_prompts_in_a_padded_batch_are_transformers_greedy_tokens(llm, reference):
    """One pass over prompt and output: where the reference would have gone another way, its largest logit tells."""
    outputs = llm.generate([PROMPTS[0], PROMPTS[6]], GREEDY)
    for out in outputs:
        text = torch.tensor([out.prompt_token_ids + out.token_ids])
        with torch.no_grad():
            chosen = reference(text).logits[0].argmax(-1).tolist()
        assert out.token_ids == chosen[len(out.prompt_token_ids) - 1 : -1]


def test_the_chat_template_gets_an_answer(llm):
    (out,) = llm.chat(QUESTION, SamplingParams(temperature=0.0, max_tokens=32))
    assert "Paris" in out.text
    assert out.outputs[0].finish_reason == "stop"
    assert "".join(piece.text for piece in llm.stream(QUESTION, SamplingParams(temperature=0.0))) == out.text


@pytest.mark.parametrize("attention", ["mha", "gqa", "mqa"])
@pytest.mark.parametrize("rope", ["default", "yarn", "llama3"])
def test_small_models_that_transformers_wrote(tiny_config, tmp_path, attention, rope):
    """Written by transformers, read by LLM: the same greedy tokens, in one padded batch of ids."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    shape = tiny_config(attention, rope=rope).to_hf_dict()
    theirs = LlamaForCausalLM(LlamaConfig(**shape)).eval()
    theirs.save_pretrained(tmp_path / "model")
    prompts = [[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11], [99], [50, 40, 30]]
    llm = LLM(tmp_path / "model", device="cpu")
    for out in llm.generate(prompts, GREEDY.replace(max_tokens=24)):
        with torch.no_grad():
            chosen = theirs(torch.tensor([out.prompt_token_ids + out.token_ids])).logits[0].argmax(-1).tolist()
        assert out.token_ids == chosen[len(out.prompt_token_ids) - 1 : -1]


@pytest.mark.parametrize(("attention", "rope", "tied"), [("gqa", "default", False), ("mqa", "llama3", True)])
def test_prompt_logprobs_are_transformers(tiny_config, tmp_path, attention, rope, tied):
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    theirs = LlamaForCausalLM(LlamaConfig(**tiny_config(attention, tied, rope).to_hf_dict())).eval()
    theirs.save_pretrained(tmp_path / "model")
    prompts = [torch.randint(0, 101, (length,)).tolist() for length in (63, 40, 17, 2)]
    with LLM(tmp_path / "model", device="cpu", max_num_batched_tokens=48) as llm:
        outputs = llm.generate(prompts, SamplingParams(temperature=0.0, max_tokens=1, prompt_logprobs=5))
    for prompt, out in zip(prompts, outputs, strict=True):
        with torch.no_grad():
            logprobs = theirs(torch.tensor([prompt])).logits[0].double().log_softmax(-1)  # (T,V)
        assert len(out.prompt_logprobs) == len(prompt) and out.prompt_logprobs[0] is None
        for before, token, found in zip(logprobs, prompt[1:], out.prompt_logprobs[1:], strict=False):
            assert list(dict.fromkeys([token, *before.topk(5).indices.tolist()])) == list(found)
            assert found[token].rank == (before >= before[token]).sum()
            for other, entry in found.items():
                assert entry.logprob == pytest.approx(before[other].item(), abs=2e-5)


@pytest.fixture(scope="module")
def greedy(llm, reference, smollm2):
    """-> prompts, and of each the 64 tokens of transformers' own tokenizer and `generate`."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(smollm2.parent, gguf_file=smollm2.name)
    prompts = [tokenizer(prompt).input_ids for prompt in PROMPTS] + [llm.tokenizer.encode_chat(QUESTION)]
    for prompt, ids in zip(PROMPTS, prompts, strict=False):
        assert llm.tokenizer.encode(prompt) == ids
    expected = []
    for prompt in prompts:
        ids = torch.tensor([prompt])
        found = reference.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=64)
        expected.append(found[0, len(prompt) :].tolist())
    return prompts, expected


def decisions(trace):
    return [event for event in map(json.loads, trace.read_text().splitlines()) if event["event"] == "step"]


@pytest.mark.slow  # 20 texts of 64 tokens by transformers' own generate
def test_greedy_tokens_one_at_a_time(llm, greedy):
    for prompt, expected in zip(*greedy, strict=True):
        (out,) = llm.generate([prompt], GREEDY)
        assert out.token_ids == expected, prompt


@pytest.mark.slow  # the same 20 texts, twice for each setting
@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({}, id="all in one batch"),
        pytest.param({"prefix_caching": False}, id="no prefix kept"),
        pytest.param({"max_num_batched_tokens": 7, "max_num_seqs": 7}, id="in pieces of 7 rows beside decoding"),
        pytest.param({"kv_cache_memory": 24 * BLOCK_BYTES}, id="memory for a fifth of them"),
    ],
)
def test_greedy_tokens_in_one_batch(smollm2, greedy, tmp_path, settings):
    """Twice, so that the second time every prompt's whole blocks are there already, where prefixes are kept."""
    prompts, expected = greedy
    llm = LLM(smollm2, device="cpu", dtype="float32", trace=tmp_path / "trace", **settings)
    for _ in range(2):
        assert [out.token_ids for out in llm.generate(prompts, GREEDY)] == expected
    llm.close()
    steps = decisions(tmp_path / "trace")
    assert any(step["prefix_hits"] for step in steps) == settings.get("prefix_caching", True)
    assert any(step["preempted"] for step in steps) == ("kv_cache_memory" in settings)
    assert any({row["count"] > 1 for row in step["rows"]} == {True, False} for step in steps)  # prompts beside decoding
