"""Samples: the same twice, each by its number as the seed, and the greedy one the likeliest tokens."""

import numpy as np

from nano_llama.core.init import init_params
from nano_llama.core.presets import model_preset
from nano_llama.evaluation.samples import PROMPTS, draw_samples
from nano_llama.formats import save_hf
from nano_llama.tokenizer import Tokenizer
from nano_llama.vol1_numpy import Llama


def test_samples(tmp_path):
    tokenizer = Tokenizer.train_bpe([" ".join(PROMPTS)], 300)
    config = model_preset("tiny", vocab_size=tokenizer.vocab_size, initializer_range=0.5)
    save_hf(tmp_path / "m", config, init_params(config, seed=1), tokenizer)
    samples = draw_samples(tmp_path / "m", new_tokens=5)
    assert samples == draw_samples(tmp_path / "m", new_tokens=5)
    assert [sample.seed for sample in samples] == [*range(len(PROMPTS)), None, None]
    assert [sample.prompt for sample in samples] == [*PROMPTS, PROMPTS[0], PROMPTS[0]]
    greedy, penalized = samples[-2:]
    prompt, model = tokenizer.encode(greedy.prompt), Llama.from_pretrained(tmp_path / "m")
    for sample in (greedy, penalized):
        ids = prompt + sample.token_ids
        for n, logits in enumerate(model.forward(np.array([ids]))[0][len(prompt) - 1 : -1], start=len(prompt)):
            seen = np.isin(np.arange(len(logits)), ids[:n])
            worse = np.where(logits > 0, logits / sample.repetition_penalty, logits * sample.repetition_penalty)
            assert ids[n] == np.where(seen, worse, logits).argmax()
    assert (greedy.repetition_penalty, penalized.repetition_penalty) == (1.0, 1.3)
