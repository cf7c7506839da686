"""Fidelity's measures by hand, and the engine's forced logits beside Volume 1's, which reads whole texts at once."""

import numpy as np
import pytest

from nano_llama.core.divergence import log_softmax
from nano_llama.verify.divergence import Divergence, logits_in_parts, next_token_logits, prompt_logits


def test_measures_by_hand():
    reference = np.log([[[0.6, 0.4], [0.9, 0.1]]])  # (1,2,2)
    found = np.log([[[0.25, 0.75], [0.9, 0.1]]]) + 7  # a constant changes nothing
    measured = Divergence.of_texts(reference, found, np.array([[0, 1]]))
    np.testing.assert_allclose(measured.kl, [0.6 * np.log(0.6 / 0.25) + 0.4 * np.log(0.4 / 0.75), 0], atol=1e-12)
    np.testing.assert_allclose(measured.nats, [np.log(4), np.log(10)])
    assert measured.bits_per_byte(3) == pytest.approx((2 + np.log2(10)) / 3)
    half = measured.kl[0] / 2  # of x and 0: x / sqrt(2) / sqrt(2)
    assert measured.mean_kl == (pytest.approx(half), pytest.approx(half))
    assert list(measured.same) == [False, True] and measured.same_choice == 0.5
    assert np.isnan(Divergence.measure(log_softmax(reference[0, :1]), found[0, :1], np.array([0])).mean_kl.error)


def test_parts_are_the_logits_of_the_whole():
    from nano_llama.vol3_engine.llm import LLM

    ids = list(range(50, 87))
    with LLM("nano_gpt", device="cpu", kv_cache_memory="16MiB") as llm:
        whole = prompt_logits(llm, ids).copy()  # (T,V)
        parts = [part.copy() for part in logits_in_parts(llm.engine.runner, ids, 16)]
    assert [len(part) for part in parts] == [16, 16, 5]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


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
