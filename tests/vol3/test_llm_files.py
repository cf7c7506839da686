"""LLM from files: a folder, single files beside their config, a GGUF, with and without a tokenizer; clear refusals."""

import pytest

from helpers.stub_engine import small_config

torch = pytest.importorskip("torch")

from nano_llama import LLM, SamplingParams, Tokenizer  # noqa: E402
from nano_llama.core.errors import FormatError, UserError  # noqa: E402
from nano_llama.formats import save_gguf, save_hf  # noqa: E402
from nano_llama.vol2_torch import Llama  # noqa: E402

GREEDY = SamplingParams(temperature=0.0, max_tokens=20, ignore_eos=True)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder and a .gguf of one small model with a tokenizer of its own, and what it says."""
    tokenizer = Tokenizer.train_bpe(["it is what it is, and what it is not it is not"] * 4, vocab_size=280)
    config = small_config(vocab_size=tokenizer.vocab_size, initializer_range=0.3, eos_token_id=tokenizer.eos_id)
    model = Llama.init(config, seed=1)
    weights = {name: p.detach().numpy() for name, p in model.named_params().items()}
    root = tmp_path_factory.mktemp("saved")
    save_hf(root / "folder", config, weights, tokenizer)
    save_hf(root / "mute", config, weights)
    save_gguf(root / "model.gguf", config, weights, tokenizer, dtype="F32")
    (out,) = LLM.from_model(model, tokenizer).generate("it is what", GREEDY)
    return root, out


@pytest.mark.parametrize("file", ["folder", "folder/model.safetensors", "model.gguf"])
def test_every_format_gives_the_same_text(saved, file):
    root, expected = saved
    (out,) = LLM(root / file, device="cpu").generate("it is what", GREEDY)
    assert (out.token_ids, out.text) == (expected.token_ids, expected.text)
    assert (out.prompt, out.prompt_token_ids) == (expected.prompt, expected.prompt_token_ids)


def test_a_folder_without_a_tokenizer_takes_and_gives_ids(saved):
    root, expected = saved
    llm = LLM(str(root / "mute"), device="cpu")
    assert llm.generate([expected.prompt_token_ids], GREEDY)[0].token_ids == expected.token_ids
    with pytest.raises(UserError, match="came without one"):
        llm.generate("it is what", GREEDY)


def test_half_precision_on_request(saved):
    root, _ = saved
    llm = LLM(root / "folder", device="cpu", dtype="bfloat16")
    whole = LLM(root / "folder", device="cpu")
    assert llm.engine.runner.kv_bytes_per_token * 2 == whole.engine.runner.kv_bytes_per_token
    assert len(llm.generate("it is what", GREEDY)[0].token_ids) == 20


def test_a_base_model_refuses_conversations(saved):
    with pytest.raises(UserError, match="chat template"):
        LLM(saved[0] / "folder", device="cpu").chat([{"role": "user", "content": "hi"}])


def test_a_missing_or_damaged_model_is_named(saved, tmp_path):
    with pytest.raises(UserError, match=r"Model not found: .*nowhere"):
        LLM(tmp_path / "nowhere")
    broken = tmp_path / "broken.gguf"
    broken.write_bytes((saved[0] / "model.gguf").read_bytes()[:2000])
    with pytest.raises(FormatError, match=r"broken\.gguf"):
        LLM(broken, device="cpu")
