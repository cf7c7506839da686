"""Fidelity's measures by hand, and the engine's forced logits beside Volume 1's, which reads whole texts at once."""

import numpy as np
import pytest

from nano_llama.core.divergence import log_softmax
from nano_llama.verify.divergence import continuation_bits_per_byte, kl_divergence, next_token_logits


def test_measures_by_hand():
    reference = np.log([[[0.5, 0.5], [0.9, 0.1]]])  # (1,2,2)
    found = np.log([[[0.25, 0.75], [0.9, 0.1]]]) + 7  # a constant changes nothing
    np.testing.assert_allclose(
        kl_divergence(reference, found), [[0.5 * np.log(2) + 0.5 * np.log(2 / 3), 0]], atol=1e-12
    )
    assert continuation_bits_per_byte(found, np.array([[0, 1]]), 3) == pytest.approx((2 + np.log2(10)) / 3)


def test_log_softmax_of_large_logits():
    np.testing.assert_allclose(np.exp(log_softmax(np.array([[1e4, 1e4, 0.0]]))), [[0.5, 0.5, 0.0]])


def test_forced_logits_are_those_of_whole_texts():
    from nano_llama.formats import resolve_model
    from nano_llama.vol1_numpy import Llama
    from nano_llama.vol3_engine.llm import LLM

    prompts, continuations = [[5], list(range(40, 77)), [9, 8, 7]], [[1, 2, 3, 4], [11, 12, 13, 14], [300, 2, 300, 2]]
    llm = LLM("nano_gpt", device="cpu", dtype="float32", kv_cache_memory="16MiB")
    found = next_token_logits(llm, prompts, continuations)
    model = Llama.from_pretrained(resolve_model("nano_gpt"), dtype=np.float64)
    for prompt, continuation, logits in zip(prompts, continuations, found, strict=True):
        expected = model.forward(np.array([prompt + continuation[:-1]]))[0][len(prompt) - 1 :]
        np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)
