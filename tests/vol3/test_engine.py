"""The engine's loop over a scripted runner: mixed ends, and independence of what else is in the batch."""

import sys
import threading

import numpy as np
import pytest

from helpers.stub_engine import ByteTokenizer, ScriptedRunner
from nano_llama.core.errors import NanoLlamaError, UserError
from nano_llama.core.sampling import SamplingParams
from nano_llama.vol3_engine.engine import Engine
from nano_llama.vol3_engine.requests import Requests
from nano_llama.vol3_engine.settings import EngineSettings


@pytest.fixture
def setup():
    def setup(script=None, cache_tokens=1024, **settings):
        runner = ScriptedRunner(script, kv_bytes_per_token=3)
        engine = Engine(runner, EngineSettings(kv_cache_memory=3 * cache_tokens + 2, **settings))
        return engine, Requests(ByteTokenizer(), runner.config, engine.scheduler.cache_tokens), runner

    return setup


def run(engine, requests, prompts, params):
    made = [requests.from_prompt(i, prompt, p) for i, (prompt, p) in enumerate(zip(prompts, params, strict=True))]
    for _ in engine.run([s for request in made for s in request.sequences]):
        pass
    assert engine.scheduler.pool.ref_counts == {}, "a block was not freed"
    return [requests.output(request) for request in made]


def test_sequences_of_different_lengths_leave_the_batch_as_they_end(setup):
    script = {"a": "short", "bb": "a good deal longer", "ccc": ""}
    engine, requests, runner = setup(script)
    outputs = run(engine, requests, list(script), [SamplingParams(max_tokens=30)] * 3)
    assert [out.text for out in outputs] == list(script.values())
    assert [out.outputs[0].finish_reason for out in outputs] == ["stop"] * 3
    assert runner.steps[0] == (1 + 2 + 3, 3)  # no row is padding
    assert runner.steps[1:6] == [(2, 2)] * 5 and runner.steps[6:] == [(1, 1)] * 13


def test_chunked_prefill_beside_a_decoding_sequence(setup):
    engine, requests, runner = setup({"a": "x" * 20, "b" * 90: "y"}, max_num_seqs=2, max_num_batched_tokens=33)
    run(engine, requests, ["a", "b" * 90], [SamplingParams(max_tokens=30)] * 2)
    assert runner.steps[:3] == [(33, 1), (33, 1), (27, 2)]


def test_the_kv_cache_is_no_larger_than_can_be_used(setup):
    _, _, runner = setup(cache_tokens=10**6, max_num_seqs=2)
    assert len(runner.cells) == 2 * 128 // 16  # two sequences of the whole context
    _, _, runner = setup(cache_tokens=50)
    assert len(runner.cells) == 3
    with pytest.raises(UserError, match="16 tokens take 48 bytes"):
        setup(cache_tokens=15)


PROMPTS = ["alpha", "be", "gamma gamma", "delta", "be", "gamma gamma of twenty-four letters"]
PARAMS = [
    SamplingParams(max_tokens=12, seed=1),
    SamplingParams(max_tokens=5, seed=2, top_k=3, n=2),
    SamplingParams(max_tokens=20, temperature=0.0),
    SamplingParams(max_tokens=9, seed=1, repetition_penalty=1.5, frequency_penalty=1.0),
    SamplingParams(max_tokens=7, seed=2, min_p=0.05, logprobs=2),
    SamplingParams(max_tokens=40, seed=5, top_p=0.9),
]


@pytest.mark.parametrize(
    "settings",
    [
        {"max_num_seqs": 1},
        {"max_num_seqs": 3},
        {},
        {"max_num_batched_tokens": 4, "max_num_seqs": 4},
        {"cache_tokens": 80},  # preemption
        {"cache_tokens": 80, "prefix_caching": False, "max_num_batched_tokens": 5, "max_num_seqs": 5},
    ],
    ids=str,
)
def test_batch_invariance(setup, settings):
    engine, requests, _ = setup(**settings)
    together = run(engine, requests, PROMPTS, PARAMS)
    for out, prompt, p in zip(together, PROMPTS, PARAMS, strict=True):
        engine, requests, _ = setup()
        (alone,) = run(engine, requests, [prompt], [p])
        assert out.outputs == alone.outputs


def test_samples_of_one_prompt_share_its_blocks(setup):
    engine, requests, runner = setup()
    run(engine, requests, ["p" * 100], [SamplingParams(max_tokens=2, n=4, seed=0)])
    assert runner.steps[0] == (100 + 3 * 4, 4)  # 96 of the others' 100 tokens were found


def test_an_event_per_token_and_their_texts_join(setup):
    engine, requests, _ = setup({"a": "naïve 🦙", "b": "xy"})
    made = [requests.from_prompt(i, prompt, SamplingParams(max_tokens=30)) for i, prompt in enumerate("ab")]
    texts, tokens = ["", ""], [[], []]
    for event in engine.run([s for request in made for s in request.sequences]):
        texts[event.sequence.request] += event.text
        tokens[event.sequence.request].append(event.token)
        assert event.last == (event.token == 256)
    assert texts == ["naïve 🦙", "xy"]
    assert tokens == [made[0].sequences[0].output_ids, made[1].sequences[0].output_ids]


def test_two_iterators_may_be_open_at_once(setup):
    engine, requests, _ = setup({"a": "first text", "b": "second text"})
    texts = ["", ""]
    runs = [engine.run(requests.from_prompt(i, p, SamplingParams(max_tokens=30)).sequences) for i, p in enumerate("ab")]
    for pair in zip(*runs, strict=False):
        for i, event in enumerate(pair):
            texts[i] += event.text
    assert texts == ["first text", "second text"]


def test_closing_the_iterator_frees_its_memory(setup):
    engine, requests, _ = setup()
    sequences = requests.from_prompt(0, "long", SamplingParams(max_tokens=100, ignore_eos=True, n=2)).sequences
    events = engine.run(sequences)
    next(events)
    assert engine.scheduler.pool.ref_counts
    events.close()
    assert not engine.scheduler.pool.ref_counts and not engine.has_work
    assert {s.finish_reason for s in sequences} == {"abort"}


def test_broken_logits_end_their_own_sequence_only(setup):
    engine, requests, runner = setup({"good": "fine"})
    honest = runner.logits
    runner.logits = lambda text: np.full(260, np.nan, np.float32) if text[0] == ord("b") else honest(text)
    made = [requests.from_prompt(i, p, SamplingParams(max_tokens=9)) for i, p in enumerate(["good", "bad"])]
    received = [[], []]
    for request, events in zip(made, received, strict=True):
        engine.add(request.sequences[0], events.append)
    while engine.has_work:
        engine.step()
    assert "".join(event.text for event in received[0]) == "fine"
    assert [type(event.error) for event in received[1]] == [NanoLlamaError]
    with pytest.raises(NanoLlamaError, match="largest logit"):
        run(engine, requests, ["bad"], [SamplingParams()])


def test_sequences_survive_a_failed_step(setup):
    engine, requests, runner = setup({"a": "the whole text", "b": "another"})
    execute, calls = runner.execute, []

    def sometimes(batch):
        calls.append(batch)
        if len(calls) in (3, 5):
            runner.cells[:] = 7  # half-written
            raise KeyboardInterrupt
        return execute(batch)

    runner.execute = sometimes
    made = [requests.from_prompt(i, p, SamplingParams(max_tokens=30)) for i, p in enumerate("ab")]
    for request in made:
        engine.add(request.sequences[0], on_event=lambda event: None)
    while engine.has_work:
        try:
            engine.step()
        except KeyboardInterrupt:
            continue
    assert [requests.output(request).text for request in made] == ["the whole text", "another"]


def test_an_interrupt_while_sampling_loses_and_repeats_no_token(setup):
    """The step was computed and some sequences have their tokens: the others must neither lose nor skip one."""
    engine, requests, _ = setup()
    texts = ["first text", "second", "the third of them"]
    params = SamplingParams(max_tokens=25, seed=3, ignore_eos=True)
    expected = [out.token_ids for out in run(engine, requests, texts, [params] * 3)]
    engine, requests, _ = setup()
    made = [requests.from_prompt(i, text, params) for i, text in enumerate(texts)]
    sequences = [request.sequences[0] for request in made]
    received = [[] for _ in texts]
    for sequence, events in zip(sequences, received, strict=True):
        engine.add(sequence, events.append)
    sample, append, calls = engine.sampler.sample, sequences[1].append, []

    def interrupted(function, at):
        def call(*args):
            calls.append(at)
            if calls.count(at) == at:
                raise KeyboardInterrupt
            return function(*args)

        return call

    engine.sampler.sample = interrupted(sample, 4)
    sequences[1].append = interrupted(append, 9)
    interruptions = 0
    while engine.has_work:
        try:
            engine.step()
        except KeyboardInterrupt:
            interruptions += 1
    assert interruptions == 2
    assert [sequence.output_ids for sequence in sequences] == expected
    assert [[event.token for event in events] for events in received] == expected
    assert engine.scheduler.pool.ref_counts == {}


def test_threads_may_share_an_engine(setup):
    engine, requests, _ = setup()
    params = SamplingParams(max_tokens=20, seed=1, ignore_eos=True)
    texts = [f"text {i} " * 4 for i in range(6)]
    expected = [out.token_ids for out in run(engine, requests, texts, [params] * 6)]
    found = [None] * 6

    def ask(i):
        sequences = requests.from_prompt(i, texts[i], params.replace(n=3)).sequences
        for _ in engine.run(sequences):
            pass
        found[i] = sequences[0].output_ids

    often, threads = sys.getswitchinterval(), [threading.Thread(target=ask, args=(i,), daemon=True) for i in range(6)]
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    finally:
        sys.setswitchinterval(often)
    assert found == expected
    assert engine.scheduler.pool.ref_counts == {} and not engine.has_work
