"""How the next token is chosen: the settings, the random numbers, and the plain NumPy reference of every engine.

    params.py     SamplingParams, in vLLM's vocabulary
    structured_outputs.py   the forms of the parameter of that name
    philox.py     uniform(seed, position): randomness without state
    sampler.py    logits -> token, one request at a time
    cuts.py       why this token: what each step of the sampler leaves

Not here: batches, text, stop strings (vol3_engine/). Tests: tests/core/test_sampling_params.py,
tests/core/test_sampling_philox.py, tests/core/test_sampling.py.
"""

from nano_llama.core.sampling.params import SamplingParams
from nano_llama.core.sampling.philox import MAX_SEED, uniform
from nano_llama.core.sampling.sampler import (
    TokenLogprob,
    candidates,
    greedy,
    penalized,
    sample,
    token_logprobs,
)

__all__ = [
    "MAX_SEED",
    "SamplingParams",
    "TokenLogprob",
    "candidates",
    "greedy",
    "penalized",
    "sample",
    "token_logprobs",
    "uniform",
]
