"""Padded batches: each text gets the logits that the model gives it alone, and those of packed rows."""

import numpy as np
import pytest

from helpers.stub_engine import PackedTexts

torch = pytest.importorskip("torch")

from nano_llama.vol2_torch import Llama  # noqa: E402
from nano_llama.vol3_engine.runner import padded as padded_module  # noqa: E402
from nano_llama.vol3_engine.runner.padded import PaddedBatch  # noqa: E402
from nano_llama.vol3_engine.runner.torch import TorchRunner  # noqa: E402

PROMPTS = [[5, 6, 7], [1, 2, 3, 4, 5, 6, 7, 8, 9], [11]]
STEPS = [[21, 22, 23], [31, 32, 33], [41, 42, 43]]  # three tokens for each text, one a row


def alone(model, text):
    with torch.no_grad():
        return model(torch.tensor([text]))[0, -1].numpy()


def close(ours, expected, what):
    error = np.abs(ours - expected).max() / np.abs(expected).max()
    assert error < 1e-5, f"{what}: relative error {error:.1e}"


@pytest.mark.parametrize("rope", ["default", "linear", "llama3", "yarn"])
@pytest.mark.parametrize("attention", ["mha", "gqa", "mqa"])
def test_padded_rows_equal_the_model_alone(tiny_config, attention, rope):
    model = Llama.init(tiny_config(attention, tied=True, rope=rope), seed=1)
    batch = PaddedBatch(model, PROMPTS, cache_length=9 + 3)
    texts = [list(prompt) for prompt in PROMPTS]
    logits = batch.prefill()
    assert logits.shape == (3, 101) and logits.dtype == np.float32
    for step in range(4):
        for row, text in enumerate(texts):
            close(logits[row], alone(model, text), f"text {row} after {step} steps")
        if step < 3:
            tokens = [STEPS[row][step] for row in range(3)]
            for text, token in zip(texts, tokens, strict=True):
                text.append(token)
            logits = batch.decode(tokens)


def test_keep_does_not_change_the_rows_it_keeps(tiny_config):
    model = Llama.init(tiny_config("gqa"), seed=2)
    batch = PaddedBatch(model, PROMPTS, cache_length=9 + 2)
    batch.prefill()
    batch.decode([21, 31, 41])
    batch.keep([0, 2])
    logits = batch.decode([22, 42])
    close(logits[0], alone(model, [*PROMPTS[0], 21, 22]), "text 0")
    close(logits[1], alone(model, [*PROMPTS[2], 41, 42]), "text 2")


@pytest.mark.parametrize("prompts", [PROMPTS, [[1, 2, 3, 4, 5], [6, 7, 8, 9, 10]]], ids=["padded", "even"])
@pytest.mark.parametrize("slice_tokens", [1, 6, 8])
def test_a_prefill_in_slices_is_the_same(tiny_config, monkeypatch, prompts, slice_tokens):
    model = Llama.init(tiny_config("gqa"), seed=3)
    monkeypatch.setattr(padded_module, "PREFILL_TOKENS", slice_tokens)
    logits = PaddedBatch(model, prompts, cache_length=10).prefill()
    for row, prompt in enumerate(prompts):
        close(logits[row], alone(model, prompt), f"text {row}")


def test_cache_memory_is_that_of_its_tokens(tiny_config):
    for dtype in (torch.float32, torch.bfloat16):
        model = Llama.init(tiny_config("gqa"), seed=0, dtype=dtype)
        batch = PaddedBatch(model, PROMPTS, cache_length=12)
        held = sum(layer.keys.nbytes + layer.values.nbytes for layer in batch.cache.layers)
        assert held == 3 * 12 * TorchRunner(model).kv_bytes_per_token


@pytest.mark.parametrize("rope", ["default", "yarn"])
@pytest.mark.parametrize("attention", ["mha", "gqa", "mqa"])
def test_padded_and_packed_rows_are_equal(tiny_config, attention, rope):
    """Texts of mixed lengths, some leaving in between: the two ways give the same logits at every step."""
    model = Llama.init(tiny_config(attention, rope=rope), seed=4)
    padded = PaddedBatch(model, PROMPTS, cache_length=9 + 3)
    packed = PackedTexts(TorchRunner(model))
    live = [0, 1, 2]
    logits = padded.prefill(), packed.step(dict(enumerate(PROMPTS)))
    for step in range(3):
        for row, text in enumerate(live):
            close(logits[0][row], logits[1][text], f"text {text} after {step} steps")
        if step == 1:
            padded.keep([0, 2])
            live = [0, 2]
        tokens = {text: [STEPS[text][step]] for text in live}
        logits = padded.decode([token for (token,) in tokens.values()]), packed.step(tokens)
