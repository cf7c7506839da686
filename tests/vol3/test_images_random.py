"""Questions about pictures come and go at random while memory is short: the shipped model answers each as if alone.

Scheduling without a model, over 10,000 steps: tests/vol3/test_engine_random.py.
"""

import random

import numpy as np
import pytest

from nano_llama import LLM, SamplingParams
from nano_llama.data.vqa import ShapesVQA
from nano_llama.vol3_engine.blocks import BLOCK_SIZE

torch = pytest.importorskip("torch")

from nano_llama.core.vision import to_pixel_values  # noqa: E402
from nano_llama.vol2_torch.vision import VisionLanguageModel  # noqa: E402

MODEL = "nano_eyes"
PICTURES = [shown.image for shown in ShapesVQA(("shape", "count")).pictures("test", count=5)]
KEPT = 2  # pictures whose rows are kept: the others are encoded again
PROMPTS = [  # the same ids with one picture or another, which lie across the ends of blocks
    "<image>What colour is the shape?",
    "<image>What colour is it?",
    "<image>How many shapes are there?",
    "Look at this: <image>What shape is it?",
    "One: <image>Two: <image>What shape is it?",
    "What colour is the shape?",
]
COUNT = 16
SETTINGS = {"device": "cpu", "num_threads": 1}
TIGHT = {"max_num_batched_tokens": 21, "max_num_seqs": 5}  # a picture is 16 tokens: most are split


def drawn(rng):
    prompt = rng.choice(PROMPTS)
    return prompt, tuple(rng.randrange(len(PICTURES)) for _ in range(prompt.count("<image>")))


def given(prompt, shown):
    return {"prompt": prompt, "images": [PICTURES[number] for number in shown]}


def run_at_random(rng, arrivals, dtype):
    """arrivals: (prompt, pictures, sampling parameters) of each. -> [(its number, output)] of those that nobody aborts;
    what was the case meanwhile."""
    with LLM(MODEL, dtype=dtype, **SETTINGS) as probe:
        memory = 6 * BLOCK_SIZE * probe.engine.runner.kv_bytes_per_token
        picture = probe.images.rows(PICTURES[0]).rows.nbytes
    with LLM(MODEL, dtype=dtype, kv_cache_memory=memory, **SETTINGS, **TIGHT) as llm:
        llm.images.cache_bytes = KEPT * picture
        seen = {"encoded": 0, "preempted": 0, "split": 0, "shared": 0}
        encode, schedule = llm.images._encode, llm.engine.scheduler.schedule

        def encode_spied(pixel_values):
            seen["encoded"] += 1
            return encode(pixel_values)

        def schedule_spied():
            step = schedule()
            seen["preempted"] += len(step.preempted)
            seen["split"] += sum(len(rows) < llm.images.config.image_seq_len for _, rows in step.batch.embeddings)
            seen["shared"] += len(step.prefix_hits)
            return step

        llm.images._encode, llm.engine.scheduler.schedule = encode_spied, schedule_spied
        alive = []
        for number, (prompt, shown, params) in enumerate(arrivals):
            request = llm.request(given(prompt, shown), params, number)
            alive.append(request)
            for sequence in request.sequences:
                llm.engine.add(sequence, lambda event: None)
            if rng.random() < 0.1:
                victim = alive.pop(rng.randrange(len(alive)))
                for sequence in victim.sequences:
                    if not sequence.finished:
                        llm.engine.abort(sequence)
            for _ in range(rng.choice([0, 1, 2, 6])):
                if llm.engine.has_work:
                    llm.engine.step()
        while llm.engine.has_work:
            llm.engine.step()
        assert llm.engine.scheduler.pool.ref_counts == {}, "a block is leaked"
        return [(request.number, llm.output_of(request)) for request in alive], seen


def likeliest(model, prompt_ids, output_ids, shown):
    """What Volume 2, given all before it at once, holds likeliest in the place of each output token."""
    ids = torch.tensor([[*prompt_ids, *output_ids[:-1]]])  # (1,T)
    pixels = torch.from_numpy(to_pixel_values(np.stack([PICTURES[number] for number in shown]))) if shown else None
    with torch.no_grad():
        logits = model(ids, pixels)[0, len(prompt_ids) - 1 :]  # (T,V)
    logits[:, model.config.image_token_id] = -torch.inf
    return logits.argmax(-1).tolist()


def check_that_it_was_random(seen):
    assert seen["preempted"] > 5 and seen["split"] > 30 and seen["shared"] > 5, seen
    assert seen["encoded"] > 3 * len(PICTURES), seen


def test_every_answer_is_volume_2s_naive_one():
    rng = random.Random(1)
    arrivals = [
        (*drawn(rng), SamplingParams(temperature=0.0, max_tokens=rng.randint(1, COUNT), ignore_eos=True))
        for _ in range(60)
    ]
    outputs, seen = run_at_random(rng, arrivals, "float32")
    check_that_it_was_random(seen)
    model, answers = VisionLanguageModel.from_pretrained(MODEL).eval(), set()
    for number, out in outputs:
        prompt, shown, _ = arrivals[number]
        assert out.token_ids == likeliest(model, out.prompt_token_ids, out.token_ids, shown), (prompt, shown)
        answers |= {tuple(out.token_ids[:1])} if prompt == PROMPTS[0] else set()
    assert len(answers) > 2, "pictures matter"


def test_every_sampled_answer_is_its_own_alone_to_the_last_bit():
    """As the engine serves the model: in its own blocks of 8 and 4 bits."""
    rng = random.Random(2)
    arrivals = [
        (*drawn(rng), SamplingParams(temperature=1.0, seed=rng.randrange(3), n=rng.choice([1, 1, 2]), max_tokens=COUNT,
                                     ignore_eos=True, logprobs=1))
        for _ in range(60)
    ]  # fmt: skip
    outputs, seen = run_at_random(rng, arrivals, "auto")
    check_that_it_was_random(seen)
    with LLM(MODEL, **SETTINGS, prefix_caching=False, max_num_seqs=1) as alone:
        for number, out in outputs:
            prompt, shown, params = arrivals[number]
            (meant,) = alone.generate(given(prompt, shown), params)
            for one, other in zip(out.outputs, meant.outputs, strict=True):
                assert (one.token_ids, one.logprobs) == (other.token_ids, other.logprobs), (prompt, shown)
