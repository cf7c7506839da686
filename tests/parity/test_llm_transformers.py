"""LLM on a real pretrained model against transformers, which loads the same .gguf by code of its own, in float32.

Not here: logits tensor by tensor (test_transformers.py). Greedy tokens are compared one by one.
"""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("gguf")

from nano_llama import LLM, SamplingParams  # noqa: E402

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


@pytest.mark.slow
def test_greedy_is_token_identical_to_transformers_generate(llm, reference, smollm2):
    """64 tokens of each prompt: transformers' own tokenizer and generate, ours alone, and ours in one padded batch."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(smollm2.parent, gguf_file=smollm2.name)
    prompts = [*PROMPTS, llm.tokenizer.encode_chat(QUESTION)]
    together = llm.generate(prompts, GREEDY)
    for number, out in enumerate(together):
        if out.prompt is not None:
            assert out.prompt_token_ids == tokenizer(out.prompt).input_ids
        ids = torch.tensor([out.prompt_token_ids])
        expected = reference.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=64)
        expected = expected[0, ids.shape[1] :].tolist()
        (alone,) = llm.generate(prompts[number], GREEDY)
        assert alone.token_ids == expected, f"alone: {prompts[number]!r}"
        assert out.token_ids == expected, f"in the batch: {prompts[number]!r}"
