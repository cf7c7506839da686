"""The Torch runner: a padded batch gives each text the logits that the model gives it alone, and leaves no traces."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from nano_llama.core.errors import UserError  # noqa: E402
from nano_llama.vol2_torch import Llama  # noqa: E402
from nano_llama.vol3_engine.runner import torch as runner_module  # noqa: E402
from nano_llama.vol3_engine.runner.torch import TorchRunner, resolve_dtype  # noqa: E402

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
    batch = TorchRunner(model).batch(PROMPTS, cache_length=9 + 3)
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


def test_rows_that_stay_are_undisturbed(tiny_config):
    model = Llama.init(tiny_config("gqa"), seed=2)
    batch = TorchRunner(model).batch(PROMPTS, cache_length=9 + 2)
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
    monkeypatch.setattr(runner_module, "PREFILL_TOKENS", slice_tokens)
    logits = TorchRunner(model).batch(prompts, cache_length=10).prefill()
    for row, prompt in enumerate(prompts):
        close(logits[row], alone(model, prompt), f"text {row}")


def test_the_number_of_threads_is_given_back(tiny_config):
    before = torch.get_num_threads()
    runner = TorchRunner(Llama.init(tiny_config(), seed=0), num_threads=before + 1)
    with runner.computing():
        assert torch.get_num_threads() == before + 1
    with pytest.raises(UserError), runner.computing():
        raise UserError("x")
    assert torch.get_num_threads() == before and torch.is_grad_enabled()


def test_a_model_can_be_trained_on_after_it_generated(tiny_config):
    """Tables that the model makes while generating must serve training too."""
    model = Llama.init(tiny_config(), seed=0)
    TorchRunner(model).batch([[1, 2, 3]], cache_length=40).prefill()
    model(torch.tensor([[1, 2, 3]])).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_cache_memory_is_what_a_token_costs(tiny_config):
    for dtype in (torch.float32, torch.bfloat16):
        model = Llama.init(tiny_config("gqa"), seed=0, dtype=dtype)
        runner = TorchRunner(model)
        batch = runner.batch(PROMPTS, cache_length=12)
        held = sum(layer.keys.nbytes + layer.values.nbytes for layer in batch.cache.layers)
        assert held == 3 * 12 * runner.kv_bytes_per_token


def test_auto_dtype_is_exact_on_the_cpu_and_half_on_a_gpu():
    assert resolve_dtype("auto", torch.device("cpu")) == torch.float32
    assert resolve_dtype("auto", torch.device("mps")) == torch.float16
    assert resolve_dtype("bfloat16", torch.device("cpu")) == torch.bfloat16
