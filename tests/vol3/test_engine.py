"""The engine's loop over a scripted runner: batches, mixed ends, and independence of what else is in the batch."""

import pytest

from nano_llama.core.sampling import SamplingParams
from nano_llama.vol3_engine.engine import Engine
from nano_llama.vol3_engine.requests import Requests


@pytest.fixture
def setup(stubs):
    def setup(script=None, max_num_seqs=4, cache_tokens=1000):
        runner = stubs.ScriptedRunner(script, kv_bytes_per_token=3)
        engine = Engine(runner, max_num_seqs, kv_cache_bytes=3 * cache_tokens + 2)
        return engine, Requests(stubs.ByteTokenizer(), runner.config, engine.scheduler), runner

    return setup


def run(engine, requests, prompts, params):
    made = [requests.from_prompt(i, prompt, p) for i, (prompt, p) in enumerate(zip(prompts, params, strict=True))]
    for _ in engine.run([s for request in made for s in request.sequences]):
        pass
    return [requests.output(request) for request in made]


def test_texts_of_different_lengths_end_when_they_end(setup):
    script = {"a": "short", "bb": "a good deal longer", "ccc": ""}
    engine, requests, runner = setup(script)
    outputs = run(engine, requests, list(script), [SamplingParams(max_tokens=30)] * 3)
    assert [out.text for out in outputs] == list(script.values())
    assert [out.outputs[0].finish_reason for out in outputs] == ["stop"] * 3
    assert runner.batches == [(3, 3 + 30 - 1)]


def test_the_cache_budget_forms_the_batches(setup):
    engine, requests, runner = setup(cache_tokens=40)
    run(engine, requests, ["ab"] * 5, [SamplingParams(max_tokens=19, seed=0)] * 5)
    assert runner.batches == [(2, 20), (2, 20), (1, 20)]


@pytest.mark.parametrize("max_num_seqs", [1, 2, 3, 32])
def test_a_request_is_the_same_alone_and_among_others(setup, max_num_seqs):
    prompts = ["alpha", "be", "gamma gamma", "delta", "be"]
    params = [
        SamplingParams(max_tokens=12, seed=1),
        SamplingParams(max_tokens=5, seed=2, top_k=3, n=2),
        SamplingParams(max_tokens=20, temperature=0.0),
        SamplingParams(max_tokens=9, seed=1, repetition_penalty=1.5, frequency_penalty=1.0),
        SamplingParams(max_tokens=7, seed=2, min_p=0.05, logprobs=2),
    ]
    engine, requests, _ = setup(max_num_seqs=max_num_seqs)
    together = run(engine, requests, prompts, params)
    for out, prompt, p in zip(together, prompts, params, strict=True):
        engine, requests, _ = setup()
        (alone,) = run(engine, requests, [prompt], [p])
        assert out.outputs == alone.outputs


def test_events_come_after_every_token_and_join_to_the_text(setup):
    engine, requests, _ = setup({"a": "naïve 🦙", "b": "xy"})
    made = [requests.from_prompt(i, prompt, SamplingParams(max_tokens=30)) for i, prompt in enumerate("ab")]
    sequences = [s for request in made for s in request.sequences]
    texts, tokens = ["", ""], [0, 0]
    for sequence, piece in engine.run(sequences):
        texts[sequence.request] += piece
        tokens[sequence.request] += 1
        assert len(sequence.output_ids) == tokens[sequence.request]
    assert texts == ["naïve 🦙", "xy"]
    assert tokens == [len("naïve 🦙".encode()) + 1, 3]


def test_two_runs_may_be_open_at_once(setup):
    engine, requests, _ = setup({"a": "first text", "b": "second text"})
    texts = ["", ""]
    runs = [engine.run(requests.from_prompt(i, p, SamplingParams(max_tokens=30)).sequences) for i, p in enumerate("ab")]
    for pair in zip(*runs, strict=False):
        for i, (_, piece) in enumerate(pair):
            texts[i] += piece
    assert texts == ["first text", "second text"]
