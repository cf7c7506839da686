"""AsyncEngine: tasks share batches and get what they would get alone; one that leaves disturbs no other."""

import asyncio
import threading

import pytest

from helpers.stub_engine import ByteTokenizer, ScriptedRunner
from nano_llama.core.errors import NanoLlamaError, UserError
from nano_llama.core.sampling import SamplingParams
from nano_llama.vol3_engine.async_engine import AsyncEngine
from nano_llama.vol3_engine.llm import LLM


@pytest.fixture
def make():
    def make(script=None, **settings):
        return LLM.from_runner(ScriptedRunner(script), ByteTokenizer(), **settings)

    return make


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 20))


def test_tasks_share_batches_and_get_their_own_outputs(make):
    prompts = ["alpha", "be", "gamma " * 6, "delta"]
    params = [SamplingParams(max_tokens=20 + i, seed=i, n=1 + i % 2) for i in range(4)]
    alone = [make().generate([prompt], p)[0] for prompt, p in zip(prompts, params, strict=True)]
    llm = make()

    async def together():
        async with AsyncEngine(llm) as engine:
            return await asyncio.gather(*(engine.generate(p, q) for p, q in zip(prompts, params, strict=True)))

    found = run(together())
    assert [out.outputs for out in found] == [out.outputs for out in alone]
    assert max(sampling for _, sampling in llm.engine.runner.steps) > 1, "they did not run together"
    names = [thread.name for thread in threading.enumerate()]
    assert llm.engine.runner.closed and "nano-llama-engine" not in names, "its thread was left behind"


def test_pieces_of_a_stream_join_to_the_text(make):
    async def read():
        async with AsyncEngine(make({"a": "naïve 🦙"})) as engine:
            return [piece async for piece in engine.stream("a", SamplingParams(max_tokens=30))]

    pieces = run(read())
    assert "".join(map(str, pieces)) == "naïve 🦙"
    assert [piece.output is not None for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    assert pieces[-1].output.text == "naïve 🦙"


def test_a_closed_stream_and_a_cancelled_task_free_their_memory(make):
    llm = make()
    endless = SamplingParams(max_tokens=100, ignore_eos=True)

    async def come_and_go():
        async with AsyncEngine(llm) as engine:
            stream = engine.stream("first", endless)
            await anext(stream)
            task = asyncio.create_task(engine.generate("second", endless))
            await asyncio.sleep(0.01)
            task.cancel()
            await stream.aclose()
            await asyncio.gather(task, return_exceptions=True)
            text = (await engine.generate("third", SamplingParams(max_tokens=5, seed=1))).text
            while llm.engine.has_work:
                await asyncio.sleep(0.001)
            assert llm.engine.scheduler.pool.ref_counts == {}
            return text

    assert run(come_and_go()) == make().generate("third", SamplingParams(max_tokens=5, seed=1))[0].text


def test_bad_requests_are_refused_and_the_engine_stays_up(make):
    async def ask():
        async with AsyncEngine(make({"a": "fine"})) as engine:
            for prompt, params in (("", None), ([999], None), ("x" * 500, None), (None, None)):
                with pytest.raises(UserError):
                    await engine.generate(prompt, params)
            for call in (engine.generate("a", {"n": 1}), anext(engine.stream("a", {"n": 1}))):
                with pytest.raises(UserError, match="SamplingParams"):
                    await call
            return (await engine.generate("a")).text

    assert run(ask()) == "fine"


def test_a_failed_step_fails_its_requests_and_no_later_ones(make):
    llm = make({"a": "fine"})
    execute = llm.engine.runner.execute

    def fail(batch):
        llm.engine.runner.execute = execute
        raise RuntimeError("out of memory")

    async def ask():
        async with AsyncEngine(llm) as engine:
            llm.engine.runner.execute = fail
            with pytest.raises(NanoLlamaError, match="out of memory"):
                await engine.generate("a")
            return (await engine.generate("a")).text

    assert run(ask()) == "fine"


def test_encoding_does_not_block_the_event_loop(make):
    """The second text is encoded only when the first has been answered in full: a loop that waited would never end."""
    llm, answered = make({"a": "fine"}), threading.Event()
    encode = llm.tokenizer.encode

    def slowly(text):
        assert text == "a" or answered.wait(10), "the event loop stood still"
        return encode(text)

    llm.tokenizer.encode = slowly

    async def ask():
        async with AsyncEngine(llm) as engine:
            task = asyncio.create_task(engine.generate("bb", SamplingParams(max_tokens=3)))
            await asyncio.sleep(0)
            text = (await engine.generate("a")).text
            answered.set()
            await task
            return text

    assert run(ask()) == "fine"


def test_a_failed_command_fails_its_request_and_the_thread_lives(make):
    llm = make({"a": "fine"})
    add = llm.engine.add

    def fail(sequence, on_event):
        llm.engine.add = add
        raise RuntimeError("no room in the queue")

    async def ask():
        async with AsyncEngine(llm) as engine:
            llm.engine.add = fail
            with pytest.raises(NanoLlamaError, match="no room in the queue"):
                await engine.generate("a")
            return (await engine.generate("a")).text

    assert run(ask()) == "fine"


def test_closing_ends_running_requests_and_refuses_new_ones(make):
    async def close():
        engine = AsyncEngine(make())
        task = asyncio.create_task(engine.generate("a", SamplingParams(max_tokens=100, ignore_eos=True)))
        await asyncio.sleep(0)
        await engine.close()
        await engine.close()
        with pytest.raises(UserError, match="closed"):
            await task
        with pytest.raises(UserError, match="closed"):
            await engine.generate("a")

    run(close())
