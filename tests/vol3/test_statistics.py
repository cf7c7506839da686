"""EngineStats: what a Meter counts is what the outputs and the trace say."""

import asyncio
import json

import pytest

from helpers.stub_engine import ByteTokenizer, ScriptedRunner
from nano_llama.core.sampling import SamplingParams
from nano_llama.vol3_engine.async_engine import AsyncEngine
from nano_llama.vol3_engine.llm import LLM
from nano_llama.vol3_engine.statistics import LONG, RECENT, Meter
from nano_llama.vol3_engine.trace import RecentEvents


def test_counts_agree_with_the_outputs_and_the_trace(tmp_path):
    llm = LLM.from_runner(
        ScriptedRunner(), ByteTokenizer(), kv_cache_memory=6 * 16, max_num_seqs=3, max_num_batched_tokens=24,
        trace=tmp_path / "trace.jsonl",
    )  # fmt: skip
    meter = Meter()
    llm.engine.subscribe(meter)
    outputs = llm.generate(["a" * 20, "a" * 20 + "b", "c" * 40], SamplingParams(max_tokens=30, ignore_eos=True, seed=3))
    llm.close()
    steps = [json.loads(line) for line in (tmp_path / "trace.jsonl").read_text().splitlines()]
    steps = [line for line in steps if line["event"] == "step"]
    assert meter.steps == len(steps)
    assert meter.generation_tokens == sum(len(out.token_ids) for out in outputs)
    assert meter.prefix_queries == 20 + 21 + 40
    assert meter.prefix_hits == sum(sum(line["prefix_hits"].values()) for line in steps) > 0
    assert meter.preemptions == sum(len(line["preempted"]) for line in steps) > 0
    assert meter.prompt_tokens == 20 + 21 + 40, "each once, whether cached, computed, or computed again"


def test_rates_are_those_of_the_last_seconds():
    now = [0.0]
    meter = Meter(lambda: now[0])
    assert meter.tokens_per_second == meter.ends_per_second == 0.0 and meter.seconds_since_step is None
    llm = LLM.from_runner(ScriptedRunner(), ByteTokenizer())
    llm.engine.subscribe(meter)
    sequences = [llm.request("ab", SamplingParams(max_tokens=11, ignore_eos=True)).sequences[0] for _ in range(2)]
    for sequence in sequences:
        llm.engine.add(sequence, on_event=lambda event: None)
    for _ in range(11):
        llm.engine.step()
        now[0] += 0.5
    assert meter.seconds_since_step == 0.5
    assert meter.tokens_per_second == pytest.approx(2 / 0.5)
    assert meter.ends_per_second == pytest.approx(2 / 0.5)
    now[0] += RECENT
    assert meter.tokens_per_second == 0.0 and meter.ends_per_second > 0
    now[0] += LONG
    assert meter.ends_per_second == 0.0


def test_a_snapshot_of_a_running_engine_needs_no_lock():
    """Taken while a step holds the engine's lock: with a lock it would wait forever."""
    llm = LLM.from_runner(ScriptedRunner(), ByteTokenizer(), max_num_seqs=1)
    seen, execute = [], llm.engine.runner.execute

    async def ask():
        async with AsyncEngine(llm) as engine:

            def look(batch):
                seen.append(asyncio.run_coroutine_threadsafe(snapshot(engine), loop).result(5))
                return execute(batch)

            loop = asyncio.get_running_loop()
            llm.engine.runner.execute = look
            params = SamplingParams(max_tokens=3, seed=1, ignore_eos=True)
            requests = [await engine.prepare(text * 20, params) for text in "ab"]
            async for _ in engine.submit(requests):
                pass
            return engine.stats()

    async def snapshot(engine):
        return engine.stats()

    after = asyncio.run(asyncio.wait_for(ask(), 20))
    assert [(stats.running, stats.waiting) for stats in seen] == [(1, 1)] * 3 + [(1, 0)] * 3
    assert seen[0].busy and seen[0].waiting_tokens == 20 and seen[0].blocks_held == 2
    assert (after.running, after.waiting, after.busy, after.steps, after.generation_tokens) == (0, 0, False, 6, 6)
    assert after.blocks_held == 0 and after.blocks_kept == 2
    assert after.blocks_total == after.blocks_kept + after.blocks_empty


def test_recent_events_keep_the_last_ones_and_their_numbers():
    llm = LLM.from_runner(ScriptedRunner(), ByteTokenizer())
    events = RecentEvents(capacity=4)
    llm.engine.subscribe(events)
    assert [event["event"] for _, event in events.since(0)] == ["began"]
    llm.generate("a", SamplingParams(max_tokens=9, ignore_eos=True))
    numbers = [number for number, _ in events.since(0)]
    assert numbers == list(range(numbers[0], numbers[0] + 4)) and numbers[0] > 0
    ended = [event for _, event in events.since(0) if event["event"] == "ended"]
    assert [(event["tokens"], event["reason"]) for event in ended] == [(9, "length")]
    assert events.since(numbers[-1] + 1) == []
    llm.engine.unsubscribe(events)
    llm.generate("a")
    assert [number for number, _ in events.since(0)] == numbers
