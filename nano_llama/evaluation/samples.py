"""Samples for a model card: fixed prompts, fixed settings, and seeds 0, 1, 2 ... in order, so that none is chosen.

Tests: tests/evaluation/test_samples.py.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nano_llama.core.sampling import SamplingParams
from nano_llama.tokenizer import Tokenizer

PROMPTS = (
    "Once upon a time",
    "It was a dark and stormy night, and",
    "CHAPTER I\n\n",
    '"My dear Watson," said',
    "The captain looked at the sea and",
    "She had never loved him,",
    "In the beginning of the spring of 1812,",
    "The old house stood",
    "There is no greater happiness than",
    "He opened the letter, and read:",
)
NEW_TOKENS = 200
REPETITION_PENALTY = 1.3  # of the last sample
TEMPERATURE, TOP_P = 0.8, 0.95


@dataclass(frozen=True)
class Sample:
    """A prompt and a model's continuation. `seed` is None for greedy decoding."""

    prompt: str
    seed: int | None
    repetition_penalty: float
    text: str
    token_ids: list[int]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def draw_samples(model: str | Path, new_tokens: int = NEW_TOKENS) -> list[Sample]:
    """One sample per prompt, with its number as the seed; then the first prompt's greedy continuation, without and
    with a repetition penalty (Keskar et al. 2019, arXiv 1909.05858, 4.1).

    Computed by Volume 1 in float32, one text at a time, so that the same weights give the same samples everywhere.
    """
    from nano_llama.vol1_numpy import Llama
    from nano_llama.vol1_numpy.generate import generate

    llama, tokenizer = Llama.from_pretrained(model), Tokenizer.from_pretrained(model)
    drawn = SamplingParams(temperature=TEMPERATURE, top_p=TOP_P)
    greedy = SamplingParams(temperature=0.0)
    orders = [(prompt, drawn.replace(seed=seed)) for seed, prompt in enumerate(PROMPTS)]
    orders += [(PROMPTS[0], greedy), (PROMPTS[0], greedy.replace(repetition_penalty=REPETITION_PENALTY))]
    samples = []
    for prompt, params in orders:
        ids = list(generate(llama, tokenizer.encode(prompt), params.replace(max_tokens=new_tokens)))
        samples.append(Sample(prompt, params.seed, params.repetition_penalty, tokenizer.decode(ids), ids))
    return samples
