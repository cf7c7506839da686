"""prompt_logprobs: every runner's are Volume 1's, whatever else the engine does meanwhile; each row is seen once."""

import asyncio

import numpy as np
import pytest

from helpers.stub_engine import ByteTokenizer, ScriptedRunner
from nano_llama.core.errors import NanoLlamaError
from nano_llama.core.init import init_params
from nano_llama.core.sampling import SamplingParams, token_logprobs
from nano_llama.formats.mapping import Arrays
from nano_llama.vol1_numpy import Llama
from nano_llama.vol3_engine.async_engine import AsyncEngine
from nano_llama.vol3_engine.llm import LLM
from nano_llama.vol3_engine.scheduler import MAX_PROMPT_LOGITS
from nano_llama.vol3_engine.trace import RecentEvents

GREEDY = SamplingParams(temperature=0.0, max_tokens=3, ignore_eos=True, prompt_logprobs=2)
TEXT = "The quick brown fox jumps over the lazy dog, and then it sleeps all day in the sun. " * 3  # 252 bytes


def scripted(**settings):
    return LLM.from_runner(ScriptedRunner(max_position_embeddings=512), ByteTokenizer(), **settings)


def plainly(runner, ids, count=2):
    """Row by row, as ids: what RequestOutput.prompt_logprobs holds."""
    rows = [token_logprobs(runner.logits(tuple(ids[:i])), ids[i], count) for i in range(1, len(ids))]
    return [None, *({entry.token: (entry.logprob, entry.rank) for entry in row} for row in rows)]


def numbers(prompt_logprobs):
    return [row and {token: (entry.logprob, entry.rank) for token, entry in row.items()} for row in prompt_logprobs]


# -- shape ------------------------------------------------------------------------------------------------------------


def test_the_first_token_has_none_and_each_other_its_own_and_the_likeliest():
    llm = scripted()
    (out,) = llm.generate("hello", GREEDY)
    assert out.prompt_logprobs[0] is None and len(out.prompt_logprobs) == 5
    assert numbers(out.prompt_logprobs) == plainly(llm.engine.runner, out.prompt_token_ids)
    for token, row in zip(out.prompt_token_ids[1:], out.prompt_logprobs[1:], strict=True):
        assert next(iter(row)) == token and row[token].decoded_token == chr(token)
        assert sorted(entry.rank for entry in row.values())[:2] == [1, 2]
    assert llm.generate("hello")[0].prompt_logprobs is None
    assert llm.generate("h", GREEDY)[0].prompt_logprobs == [None]
    (out,) = llm.generate("hello", GREEDY.replace(prompt_logprobs=0))
    assert [len(row) for row in out.prompt_logprobs[1:]] == [1] * 4


def test_they_are_complete_with_the_first_piece_of_a_stream():
    llm = scripted()
    request = llm.request(TEXT, GREEDY.replace(n=3))
    expected = plainly(llm.engine.runner, request.prompt_ids)
    for _ in llm.engine.run(request.sequences):
        assert numbers(llm.prompt_logprobs_of(request)) == expected
    pieces = list(llm.stream(TEXT, GREEDY))
    assert numbers(pieces[-1].output.prompt_logprobs) == expected


def test_many_tasks_at_once():
    alone, together = scripted(), scripted(kv_cache_memory=64 * 16, max_num_batched_tokens=100)
    wishes = [(TEXT[i : i + 180], GREEDY.replace(n=1 + i % 3, prompt_logprobs=[None, 0, 3][i // 3])) for i in range(9)]

    async def ask():
        async with AsyncEngine(together) as engine:
            return await asyncio.gather(*(engine.generate(*wish) for wish in wishes))

    for found, wish in zip(asyncio.run(ask()), wishes, strict=True):
        (expected,) = alone.generate(*wish)
        assert (found.outputs, found.prompt_logprobs) == (expected.outputs, expected.prompt_logprobs)


# -- memory -----------------------------------------------------------------------------------------------------------


def test_no_step_computes_more_rows_than_fit_and_the_samples_of_a_prompt_share_them():
    llm = scripted()
    runner = llm.engine.runner
    outputs = llm.generate([TEXT, TEXT[7:]], GREEDY.replace(n=4))
    for out in outputs:
        assert numbers(out.prompt_logprobs) == plainly(runner, out.prompt_token_ids)
    logits = [count for _, count in runner.steps]
    assert max(logits) <= MAX_PROMPT_LOGITS + 8
    assert sum(logits) == 251 + 244 + 8 * 3, "each row of a prompt once, and one for each new token"
    assert sum(rows for rows, _ in runner.steps) < 252 + 245 + 8 * 16 + 8 * 3, "the samples share the prompt's blocks"


def test_the_trace_tells_them_from_sampling():
    llm, events = scripted(), RecentEvents()
    llm.engine.subscribe(events)
    llm.generate(TEXT, GREEDY)
    steps = [event for _, event in events.since(0) if event["event"] == "step"]
    assert [[row["chooses"] for row in step["rows"]] for step in steps] == [[False]] * 3 + [[True]] * 3


def test_others_go_on_beside_it():
    llm = scripted()
    llm.generate([TEXT, "short", TEXT[7:]], [GREEDY, GREEDY.replace(prompt_logprobs=None), GREEDY])
    assert llm.engine.runner.steps[:2] == [(64 + 5, 64 + 1), (64 + 1, 64 + 1)]


def test_a_cached_prefix_is_computed_again_only_where_it_is_wanted():
    llm = scripted()
    runner = llm.engine.runner
    plain = GREEDY.replace(prompt_logprobs=None)
    for params, cached in ((plain, 0), (plain, 240), (GREEDY, 0), (GREEDY, 0), (plain, 240)):
        runner.steps.clear()
        (out,) = llm.generate(TEXT, params)
        assert out.num_cached_tokens == cached
        assert sum(rows for rows, _ in runner.steps) == len(TEXT) + 2 - cached
        if params is GREEDY:
            assert numbers(out.prompt_logprobs) == plainly(runner, out.prompt_token_ids)


def test_cached_tokens_are_those_of_other_requests():
    """A sequence that is preempted finds its own blocks again, and samples find those of the first: neither counts."""
    llm = scripted(kv_cache_memory=9 * 16)
    outputs = llm.generate([TEXT[:60], TEXT[60:120]], SamplingParams(max_tokens=60, seed=0, ignore_eos=True))
    assert [out.num_cached_tokens for out in outputs] == [0, 0]
    assert llm.generate(TEXT[:60], GREEDY.replace(n=3))[0].num_cached_tokens == 0


# -- disturbances -----------------------------------------------------------------------------------------------------


def test_a_preempted_sequence_goes_on_where_it_was(monkeypatch):
    """The first's third block takes the second's memory amid its prompt."""
    monkeypatch.setattr("nano_llama.vol3_engine.scheduler.MAX_PROMPT_LOGITS", 4)
    llm = scripted(kv_cache_memory=6 * 16, max_num_batched_tokens=8, max_num_seqs=4)
    preempted, schedule = [], llm.engine.scheduler.schedule

    def spied():
        before = [(s, len(s.prompt_logprobs.entries)) for s in llm.engine.scheduler.running if s.prompt_logprobs]
        step = schedule()
        preempted.extend(known for s, known in before if s.number in step.preempted)
        return step

    llm.engine.scheduler.schedule = spied
    params = [SamplingParams(max_tokens=60, seed=0, ignore_eos=True), GREEDY]
    outputs = llm.generate([TEXT[:8], TEXT[:70]], params)
    assert preempted and 0 < preempted[0] < 69
    assert numbers(outputs[1].prompt_logprobs) == plainly(llm.engine.runner, outputs[1].prompt_token_ids)
    assert sum(count for _, count in llm.engine.runner.steps) == 60 + 69 + 3


def test_a_failed_step_loses_and_repeats_no_row():
    llm = scripted()
    execute, calls = llm.engine.runner.execute, []

    def sometimes(batch):
        calls.append(batch)
        if len(calls) in (2, 3, 5):
            raise KeyboardInterrupt
        return execute(batch)

    llm.engine.runner.execute = sometimes
    request = llm.request(TEXT, GREEDY.replace(n=2))
    for sequence in request.sequences:
        llm.engine.add(sequence, on_event=lambda event: None)
    while llm.engine.has_work:
        try:
            llm.engine.step()
        except KeyboardInterrupt:
            continue
    assert numbers(llm.prompt_logprobs_of(request)) == plainly(llm.engine.runner, request.prompt_ids)


def test_another_sample_takes_over_from_one_that_is_aborted():
    llm = scripted()
    request = llm.request(TEXT, GREEDY.replace(n=3))
    for sequence in request.sequences:
        llm.engine.add(sequence, on_event=lambda event: None)
    llm.engine.step()
    llm.engine.abort(request.sequences[0])
    while llm.engine.has_work:
        llm.engine.step()
    assert numbers(llm.prompt_logprobs_of(request)) == plainly(llm.engine.runner, request.prompt_ids)
    assert [len(sequence.output_ids) for sequence in request.sequences] == [0, 3, 3]


@pytest.mark.parametrize("place", [0, 70, 251])
def test_broken_logits_of_a_prompts_row_end_that_request_only(place):
    llm = scripted()
    honest = llm.engine.runner.logits
    broken = tuple(TEXT.encode()[: place + 1])
    llm.engine.runner.logits = lambda text: np.full(260, np.nan, np.float32) if text == broken else honest(text)
    bad, good = llm.request(TEXT, GREEDY.replace(n=2)), llm.request(TEXT[1:], GREEDY)
    events = []
    for sequence in (*bad.sequences, *good.sequences):
        llm.engine.add(sequence, events.append)
    while llm.engine.has_work:
        llm.engine.step()
    errors = [(event.sequence.index, type(event.error)) for event in events if event.error]
    assert errors == [(0, NanoLlamaError), (1, NanoLlamaError)]
    assert numbers(llm.prompt_logprobs_of(good)) == plainly(llm.engine.runner, good.prompt_ids)
    assert len(good.sequences[0].output_ids) == 3 and llm.engine.scheduler.pool.ref_counts == {}


# -- the runners ------------------------------------------------------------------------------------------------------

PROMPTS = [[int(7 * i * i % 101) for i in range(150)], [1, 2, 3], [5], [int(7 * i * i % 101) for i in range(90)]]
SCHEMES = ["float32", "bfloat16", "int8", "int4,head=int8"]


def cpu_llm(config, params, scheme="float32", **settings):
    from nano_llama.vol3_engine.cpu.runner import CpuRunner

    chosen = {"dtype": scheme} if scheme in ("float32", "bfloat16") else {"quantization": scheme}
    return LLM.from_runner(CpuRunner(config, Arrays(params), num_threads=2, **chosen), None, **settings)


def torch_llm(config, params):
    pytest.importorskip("torch")
    from nano_llama.vol2_torch import Llama as TorchLlama

    return LLM.from_model(TorchLlama(config).load_params(params), None, num_threads=1)


def numpy_llm(config, params):
    return LLM.from_model(Llama(config, params), None, num_threads=1)


@pytest.mark.parametrize("make", [cpu_llm, torch_llm, numpy_llm])
def test_every_runners_are_volume_1s(tiny_config, make):
    config = tiny_config(max_position_embeddings=256)
    params = init_params(config, seed=1)
    with make(config, params) as llm:
        outputs = llm.generate(PROMPTS, GREEDY.replace(prompt_logprobs=3))
    for prompt, out in zip(PROMPTS, outputs, strict=True):
        logits = Llama(config, params).forward(np.array([prompt]))[0]  # (T,V)
        for i in range(1, len(prompt)):
            expected = token_logprobs(logits[i - 1], prompt[i], 3)
            found = out.prompt_logprobs[i]
            assert list(found) == [entry.token for entry in expected]
            for entry in expected:
                assert found[entry.token].logprob == pytest.approx(entry.logprob, abs=2e-5)
                assert found[entry.token].rank == entry.rank


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_cpu_runners_are_bit_for_bit_those_of_sampling_after_each_prefix(tiny_config, scheme):
    """In pieces, beside others, after a preemption or in one go: the logits of a row are those that its token gets."""
    config = tiny_config(max_position_embeddings=256, hidden_size=96, intermediate_size=160)
    params = init_params(config, seed=1)
    with cpu_llm(config, params, scheme) as llm:
        together = llm.generate(PROMPTS, GREEDY.replace(n=2))
        after = [
            llm.generate([prompt[:i] for i in range(1, len(prompt))], GREEDY.replace(prompt_logprobs=None, logprobs=2))
            for prompt in PROMPTS
        ]
    small = {"kv_cache_memory": 2**18, "max_num_batched_tokens": 40, "prefix_caching": False}
    with cpu_llm(config, params, scheme, **small) as llm:
        assert [out.prompt_logprobs for out in llm.generate(PROMPTS, GREEDY)] == [o.prompt_logprobs for o in together]
    for prompt, out, prefixes in zip(PROMPTS, together, after, strict=True):
        for i, prefix in enumerate(prefixes, start=1):
            likeliest = {token: prefix.outputs[0].logprobs[0][token] for token in prefix.outputs[0].logprobs[0]}
            row = dict(out.prompt_logprobs[i])
            if prompt[i] not in likeliest:
                del row[prompt[i]]
            assert row == likeliest
