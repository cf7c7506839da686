"""llama.cpp loads the GGUF files that we write, and computes what transformers computes from our folder; with an
adapter, what we compute.

Needs the package llama-cpp-python (extra `bench`); skipped without it.
"""

import ctypes

import numpy as np
import pytest

from helpers.adapters import random_adapter
from nano_llama.core.lora import LAYER_TARGETS, TARGETS, LoraConfig
from nano_llama.formats import open_weights, save_gguf, save_hf
from nano_llama.formats.gguf_adapter import save_gguf_adapter
from nano_llama.formats.peft import read_adapter, save_adapter_files
from nano_llama.tokenizer import Tokenizer
from nano_llama.vol1_numpy import Llama

llama_cpp = pytest.importorskip("llama_cpp")
transformers = pytest.importorskip("transformers")
torch = pytest.importorskip("torch")

TOKENS = [(7 * position + 3) % 101 for position in range(60)]


def their_logits(path, adapter=None) -> np.ndarray:
    """(T, V) of TOKENS, by llama.cpp's low-level functions: a file without a tokenizer takes ids."""
    parameters = llama_cpp.llama_model_default_params()
    parameters.use_mmap = True
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), parameters)
    assert model, "llama.cpp does not load the file"
    settings = llama_cpp.llama_context_default_params()
    settings.n_ctx, settings.n_batch, settings.n_threads = 64, 64, 1
    settings.type_k = settings.type_v = 0  # keys and values in float32, not float16 ...
    settings.flash_attn_type = 0  # ... and attention without its float16 shortcut
    context = llama_cpp.llama_init_from_model(model, settings)
    assert context, "llama.cpp makes no context of the file"
    if adapter is not None:
        loaded = llama_cpp.llama_adapter_lora_init(model, str(adapter).encode())
        assert loaded, "llama.cpp does not load the adapter"
        adapters, scales = (llama_cpp.llama_adapter_lora_p_ctypes * 1)(loaded), (ctypes.c_float * 1)(1.0)
        assert llama_cpp.llama_set_adapters_lora(context, adapters, 1, scales) == 0
    batch = llama_cpp.llama_batch_init(len(TOKENS), 0, 1)
    batch.n_tokens = len(TOKENS)
    for position, token in enumerate(TOKENS):
        batch.token[position], batch.pos[position] = token, position
        batch.n_seq_id[position], batch.seq_id[position][0], batch.logits[position] = 1, 0, 1
    assert llama_cpp.llama_decode(context, batch) == 0
    vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
    rows = [
        np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(context, row), (vocabulary,)) for row in range(len(TOKENS))
    ]
    logits = np.stack(rows)
    llama_cpp.llama_batch_free(batch)
    llama_cpp.llama_free(context)
    llama_cpp.llama_model_free(model)
    return logits


@pytest.mark.parametrize("attention", ["mha", "gqa", "mqa"])
@pytest.mark.parametrize("rope", ["default", "linear", "yarn", "llama3"])
def test_logits_of_every_rope_and_attention(tmp_path, tiny_config, random_weights, attention, rope):
    config = tiny_config(attention, tied=attention == "mqa", rope=rope, hidden_size=96)
    weights = random_weights(config)
    save_hf(tmp_path / "hf", config, weights)
    save_gguf(tmp_path / "m.gguf", config, weights, dtype="F32")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "hf", dtype=torch.float32)
    with torch.no_grad():
        ours = model(torch.tensor([TOKENS])).logits[0].numpy()
    theirs = their_logits(tmp_path / "m.gguf")
    assert np.abs(theirs - ours).max() / np.abs(ours).max() < 1e-4


@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize(
    ("attention", "tied", "targets"),
    [("mha", False, TARGETS), ("gqa", True, LAYER_TARGETS), ("mqa", False, ("k_proj",))],
)
def test_logits_with_an_adapter(tmp_path, tiny_config, random_weights, attention, tied, targets, rslora):
    config = tiny_config(attention, tied=tied, hidden_size=96)
    weights = random_weights(config)
    lora = LoraConfig(r=3, alpha=5, rslora=rslora, target_modules=targets)
    save_hf(tmp_path / "hf", config, weights)
    save_gguf(tmp_path / "m.gguf", config, weights, dtype="F32")
    save_adapter_files(tmp_path / "adapter", lora, random_adapter(lora, config, weights))
    save_gguf_adapter(tmp_path / "a.gguf", read_adapter(tmp_path / "adapter", config), config)
    ours = Llama.from_pretrained(tmp_path / "hf", adapter=tmp_path / "adapter").forward(np.array([TOKENS]))[0]
    theirs = their_logits(tmp_path / "m.gguf", tmp_path / "a.gguf")
    assert np.abs(theirs - ours).max() / np.abs(ours).max() < 1e-4
    assert np.abs(their_logits(tmp_path / "m.gguf") - ours).max() / np.abs(ours).max() > 0.01


@pytest.mark.slow  # runs a real model
@pytest.mark.parametrize("rslora", [False, True])
def test_logits_of_the_real_model_with_an_adapter(tmp_path, smollm2, rslora):
    """Weights in float32, so that llama.cpp does not round activations, as it does beside blocks."""
    lora = LoraConfig(r=8, rslora=rslora)
    with open_weights(smollm2) as weights:
        tensors = random_adapter(lora, weights.config, weights)
        tensors |= {name: array * np.float32(0.02) for name, array in tensors.items() if name.endswith("lora_B")}
        save_adapter_files(tmp_path / "adapter", lora, tensors)
        save_gguf(tmp_path / "m.gguf", weights.config, weights, dtype="F32")
        save_gguf_adapter(tmp_path / "a.gguf", read_adapter(tmp_path / "adapter", weights.config), weights.config)
    ours = Llama.from_pretrained(smollm2, adapter=tmp_path / "adapter").forward(np.array([TOKENS]))[0]
    theirs = their_logits(tmp_path / "m.gguf", tmp_path / "a.gguf")
    assert np.abs(theirs - ours).max() / np.abs(ours).max() < 1e-4
    assert np.abs(their_logits(tmp_path / "m.gguf") - ours).max() / np.abs(ours).max() > 0.05


@pytest.mark.slow  # exports and runs a real model, in llama.cpp and in transformers
@pytest.mark.parametrize("dtype", ["F16", "Q8_0"])
def test_greedy_text_of_the_real_model(tmp_path, smollm2, dtype):
    """Our export, in llama.cpp, continues as transformers does from the same numbers."""
    with open_weights(smollm2) as weights:
        save_gguf(tmp_path / "m.gguf", weights.config, weights, Tokenizer.from_pretrained(smollm2), dtype=dtype)
    with open_weights(tmp_path / "m.gguf") as weights:
        save_hf(tmp_path / "hf", weights.config, weights, dtype="F32")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "hf", dtype=torch.float32)
    llama = llama_cpp.Llama(str(tmp_path / "m.gguf"), n_ctx=256, verbose=False, n_threads=2)
    for prompt in ("The capital of France is", "Once upon a time", "def fibonacci(n):", "Water boils at"):
        ids = llama.tokenize(prompt.encode(), add_bos=False)
        wanted = model.generate(torch.tensor([ids]), max_new_tokens=24, do_sample=False)[0, len(ids) :].tolist()
        llama.reset()
        found = [token for token, _ in zip(llama.generate(ids, temp=0.0), range(24), strict=False)]
        step = next((step for step, pair in enumerate(zip(found, wanted, strict=False)) if pair[0] != pair[1]), None)
        if step is None:
            continue
        # Beside Q8_0 weights llama.cpp rounds activations to 8 bits: it may then break a near tie the other way.
        assert dtype == "Q8_0", f"{prompt!r}: {found} instead of {wanted}"
        with torch.no_grad():
            logits = model(torch.tensor([ids + wanted[:step]])).logits[0, -1]
        assert logits[wanted[step]] - logits[found[step]] < 0.1, f"{prompt!r}: {found} instead of {wanted}"
