"""A repetition penalty above 1 makes every token that was seen less likely, and touches no other."""

import numpy as np

from nano_llama.core.sampling import SamplingParams
from nano_llama.core.sampling.sampler import penalized

PROMPT, OUTPUT = [0, 1], [1, 2]  # tokens 0, 1 and 2 were seen
LOGITS = ([2.0, -1.0, 0.5, 3.0], [-1.0, -2.0, -3.0, -0.5, -4.0], [0.0, 1.0, -8.0, -7.0], [5.0, 4.0, 3.0, 2.0])


def test_what_was_seen_becomes_less_likely():
    for logits in map(np.array, LOGITS):
        seen = logits[:3][logits[:3] != 0]
        got = penalized(logits, SamplingParams(repetition_penalty=1.5), PROMPT, OUTPUT)
        worse = got[:3][logits[:3] != 0] >= seen
        assert not worse.any(), f"with a penalty of 1.5 a logit of {seen[worse][0]:g} becomes {got[:3][worse][0]:.3g}"
        assert np.array_equal(got[3:], logits[3:]), "tokens that were not seen change"


def test_the_rule_of_the_paper():
    for penalty in (1.2, 2.0, 0.8):
        for logits in map(np.array, LOGITS):
            got = penalized(logits, SamplingParams(repetition_penalty=penalty), PROMPT, OUTPUT)
            for x, y in zip(logits[:3], got, strict=False):
                expected = x / penalty if x > 0 else x * penalty
                assert np.isclose(y, expected), f"with a penalty of {penalty} a logit of {x:g} becomes {y:.3g}"
