"""The engine's sampler chooses what core/sampling chooses, whatever is asked for and whoever else is in the batch."""

import numpy as np
import pytest

from nano_llama.core.errors import NanoLlamaError
from nano_llama.core.sampling import SamplingParams, sample
from nano_llama.vol3_engine.sampler import Sampler
from nano_llama.vol3_engine.sequence import Sequence
from nano_llama.vol3_engine.text import TextStream

ASKED = [
    {"temperature": 0.0},
    {"temperature": 0.0, "repetition_penalty": 1.3},
    {"temperature": 1.0},
    {"temperature": 0.05},
    {"temperature": 3.0, "top_k": 40},
    {"temperature": 0.8, "top_k": 1},
    {"temperature": 1.2, "top_p": 0.9},
    {"temperature": 1.0, "top_p": 1e-12},
    {"temperature": 0.7, "min_p": 0.05},
    {"temperature": 1.5, "min_p": 1.0},
    {"temperature": 1.0, "top_k": 50, "top_p": 0.8, "min_p": 0.01},
    {"temperature": 1.0, "presence_penalty": 0.5, "frequency_penalty": 0.3, "logit_bias": {3: 5.0}, "top_p": 0.95},
    {"temperature": 1.0, "top_k": 10**6},
]


class NoText:
    def push(self, token):
        return ""

    def finish(self):
        return ""


def choose(logits, sequences):
    return Sampler(logits.shape[1]).choose(logits, sequences)


def sequence(params, seed, output=()):
    made = Sequence(
        request=0, index=0, prompt_ids=[1, 2, 3], params=params, seed=seed, text=TextStream(NoText()), max_length=99
    )
    made.output_ids.extend(output)
    return made


@pytest.mark.parametrize("asked", ASKED, ids=str)
def test_every_token_is_the_plain_twins(asked):
    rng = np.random.default_rng(0)
    params = SamplingParams(**asked)
    for seed in range(60):
        logits = (rng.normal(size=500) * rng.choice([0.1, 1, 5])).astype(np.float32)
        if seed % 3 == 0:
            logits = np.round(logits)  # many equals
        output = rng.integers(0, 500, seed % 7).tolist()
        wanted = sample(logits, params, [1, 2, 3], output, seed=seed)
        assert choose(logits[None], [sequence(params, seed, output)]) == [wanted]


def test_a_rows_token_does_not_depend_on_the_other_rows():
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(len(ASKED), 300)).astype(np.float32)
    sequences = [sequence(SamplingParams(**asked), seed) for seed, asked in enumerate(ASKED)]
    together = choose(logits, sequences)
    assert together == [choose(logits[i : i + 1], [one])[0] for i, one in enumerate(sequences)]
    assert together[::-1] == choose(logits[::-1], sequences[::-1])


@pytest.mark.parametrize(
    "asked", [{"temperature": 0.0}, {"temperature": 1.0}, {"temperature": 1.0, "top_k": 5}], ids=str
)
def test_not_a_number_is_an_error_and_no_token(asked):
    logits = np.zeros((2, 50), np.float32)
    logits[1, 7] = np.nan
    with pytest.raises(NanoLlamaError, match="largest logit"):
        choose(logits, [sequence(SamplingParams(**asked), 0)] * 2)
