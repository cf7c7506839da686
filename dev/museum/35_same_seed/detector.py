"""What a request samples depends on its own logits, seed and tokens: not on its neighbours, nor on who came before."""

import numpy as np

from nano_llama.core.sampling import SamplingParams, sample
from nano_llama.vol3_engine.sampler import Sampler
from nano_llama.vol3_engine.sequence import Sequence
from nano_llama.vol3_engine.text import TextStream

V = 50
KINDS = ({}, {"top_p": 0.9}, {"top_k": 8}, {"temperature": 1.7, "min_p": 0.02})


class NoText:
    """A decoder of tokens into nothing."""

    def push(self, token):
        return ""

    def finish(self):
        return ""


def sequence(number, prompt, output, **kind):
    made = Sequence(
        request=number, index=0, prompt_ids=prompt, params=SamplingParams(ignore_eos=True, **kind), seed=77,
        text=TextStream(NoText()), max_length=100, number=number,
    )  # fmt: skip
    made.output_ids.extend(output)
    return made


def cases():
    rng = np.random.default_rng(0)
    for kind in KINDS:
        for length in (1, 5, 17):
            prompt, output = rng.integers(0, V, length).tolist(), rng.integers(0, V, length % 4).tolist()
            yield rng.standard_normal((12, V)), prompt, output, kind


def test_the_same_request_again_gives_the_same_token():
    for rows, prompt, output, kind in cases():
        for logits in rows:
            tokens = {Sampler(V).sample(logits[None], [sequence(n, prompt, output, **kind)])[0] for n in (0, 1, 5, 40)}
            assert len(tokens) == 1, f"one request, sent four times with one seed, samples {sorted(tokens)}"


def test_neighbours_change_nothing():
    for rows, prompt, output, kind in cases():
        alone = [Sampler(V).sample(row[None], [sequence(3, prompt, output, **kind)])[0] for row in rows]
        together = Sampler(V).sample(rows, [sequence(3, prompt, output, **kind) for _ in rows])
        assert together == alone, "in a batch it samples other tokens than alone"


def test_it_is_the_reference_s_token():
    for rows, prompt, output, kind in cases():
        for logits in rows:
            one = sequence(2, prompt, output, **kind)
            expected = sample(logits, one.params, prompt, output, seed=77)
            got = Sampler(V).sample(logits[None], [one])[0]
            assert got == expected, f"after {len(prompt)} + {len(output)} tokens it samples {got}, Volume 1 {expected}"
