"""AsyncEngine: tasks share batches and get what they would get alone; one that leaves disturbs no other."""

import asyncio
import threading

import pytest

from helpers.stub_engine import ByteTokenizer, ScriptedRunner
from nano_llama.core.errors import ContextLengthError, EngineOverloaded, NanoLlamaError, UserError
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


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_error_in_handling_an_error_ends_all_requests(make):
    """The thread cannot go on then; nobody may wait for it in vain."""
    llm = make()

    def broken(*arguments):
        raise RuntimeError("both are broken")

    async def ask():
        async with AsyncEngine(llm) as engine:
            llm.engine.step = llm.engine.abort_all = broken
            with pytest.raises(NanoLlamaError, match="both are broken"):
                await asyncio.wait_for(engine.generate("a"), 10)
            assert isinstance(engine.failure, RuntimeError)
            with pytest.raises(NanoLlamaError, match="has failed"):
                await asyncio.wait_for(engine.generate("a"), 10)
            assert not engine.stats().busy

    run(ask())


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


# -- submissions: all or none, bounded, freed ------------------------------------------------------------------------

ENDLESS = SamplingParams(max_tokens=100, ignore_eos=True, seed=1)


async def settled(engine):
    """Until the engine's thread has nothing to do and nothing to tell."""
    while engine.llm.engine.has_work or not engine._commands.empty():
        await asyncio.sleep(0.001)


def test_what_is_submitted_together_comes_back_as_each_alone(make):
    params = SamplingParams(max_tokens=9, seed=5, n=2, logprobs=1)
    prompts = ["alpha", [1, 2, 3]]
    alone = make().generate(prompts, params)

    async def ask():
        async with AsyncEngine(make()) as engine:
            requests = [await engine.prepare(prompt, params, number=k) for k, prompt in enumerate(prompts)]
            stream = engine.submit(requests)
            found = [pair async for pieces in stream for pair in pieces]
            await settled(engine)
            assert not engine._streams and not engine._running
            return found

    found = run(ask())
    outputs = {id(request): piece.output for request, piece in found if piece.output is not None}
    assert [output.outputs for output in outputs.values()] == [out.outputs for out in alone]
    for request, output in zip(dict.fromkeys(id(r) for r, _ in found), alone, strict=True):
        for sample in output.outputs:
            own = [piece for r, piece in found if id(r) == request and piece.index == sample.index]
            assert "".join(map(str, own)) == sample.text
            assert [entry for piece in own for entry in piece.logprobs] == sample.logprobs


def test_the_queue_is_bounded_and_what_is_refused_costs_nothing(make):
    llm, go_on = make(max_num_seqs=2), threading.Event()
    execute = llm.engine.runner.execute
    llm.engine.runner.execute = lambda batch: go_on.wait(10) and execute(batch)

    async def ask():
        async with AsyncEngine(llm, max_waiting=3) as engine:
            streams = [engine.submit([await engine.prepare("a", ENDLESS)]) for _ in range(5)]
            with pytest.raises(EngineOverloaded, match="the 3 that may wait") as refused:
                engine.require_room()
            assert refused.value.retry_after >= 1
            many = await engine.prepare("a", ENDLESS.replace(n=2))
            streams.pop().abort()
            with pytest.raises(EngineOverloaded):
                engine.submit([many])
            engine.submit([await engine.prepare("a", SamplingParams(max_tokens=1))])
            for stream in streams:
                stream.abort()
            go_on.set()
            await settled(engine)
            assert llm.engine.scheduler.pool.ref_counts == {} and engine.stats().waiting == 0
            return (await engine.generate("b", SamplingParams(max_tokens=5, seed=1))).text

    assert run(ask()) == make().generate("b", SamplingParams(max_tokens=5, seed=1))[0].text


def test_prompts_that_are_being_encoded_count_as_waiting(make):
    llm, go_on = make(max_num_seqs=1), threading.Event()
    encode = llm.tokenizer.encode
    llm.tokenizer.encode = lambda text: go_on.wait(10) and encode(text)

    async def ask():
        async with AsyncEngine(llm, max_waiting=2) as engine:
            params = SamplingParams(max_tokens=1)
            tasks = [asyncio.create_task(engine.prepare("a", params)) for _ in range(2)]
            await asyncio.sleep(0)
            engine.require_room()
            tasks.append(asyncio.create_task(engine.prepare("a", params.replace(n=2))))
            await asyncio.sleep(0)
            with pytest.raises(EngineOverloaded, match="and 4 wait"):
                engine.require_room()
            tasks[0].cancel()
            go_on.set()
            await asyncio.gather(*tasks, return_exceptions=True)
            engine.require_room()
            assert engine._preparation.samples == 0

    run(ask())


@pytest.mark.parametrize("when", ["submitted", "in its first step", "decoding", "over"])
def test_an_abort_frees_all_samples_at_any_moment(make, when):
    llm, begun, go_on = make(), threading.Event(), threading.Event()
    execute = llm.engine.runner.execute

    def slowly(batch):
        begun.set()
        assert go_on.wait(10)
        return execute(batch)

    async def ask():
        async with AsyncEngine(llm) as engine:
            if when == "in its first step":
                llm.engine.runner.execute = slowly
            params = ENDLESS.replace(n=3, max_tokens=3) if when == "over" else ENDLESS.replace(n=3)
            stream = engine.submit([await engine.prepare("a" * 20, params), await engine.prepare("b", params)])
            if when == "in its first step":
                await asyncio.to_thread(begun.wait, 10)
            if when == "decoding":
                await anext(stream)
            if when == "over":
                assert [pieces async for pieces in stream]
            stream.abort()
            stream.abort()
            go_on.set()
            await settled(engine)
            assert llm.engine.scheduler.pool.ref_counts == {} and not engine._streams and not engine._running
            if when != "over":
                with pytest.raises(UserError, match="aborted"):
                    while True:
                        await anext(stream)

    run(ask())


def test_leaving_a_stream_frees_it(make):
    llm = make()

    async def ask():
        async with AsyncEngine(llm) as engine:
            async with engine.submit([await engine.prepare("a", ENDLESS)]) as stream:
                await anext(stream)
            await settled(engine)
            assert llm.engine.scheduler.pool.ref_counts == {}

    run(ask())


def test_a_step_that_fails_fails_those_it_had_and_not_who_came_meanwhile(make):
    llm, begun, go_on = make({"b": "fine"}), threading.Event(), threading.Event()
    execute = llm.engine.runner.execute

    def fail(batch):
        llm.engine.runner.execute = execute
        begun.set()
        assert go_on.wait(10)
        raise RuntimeError("out of memory")

    async def ask():
        async with AsyncEngine(llm) as engine:
            llm.engine.runner.execute = fail
            first = engine.submit([await engine.prepare("a")])
            await asyncio.to_thread(begun.wait, 10)
            second = asyncio.create_task(engine.generate("b"))
            while len(engine._streams) < 2:
                await asyncio.sleep(0.001)
            go_on.set()
            with pytest.raises(NanoLlamaError, match="out of memory"):
                await anext(first)
            return (await second).text

    assert run(ask()) == "fine"


def test_prompt_and_new_tokens_beyond_the_context_are_refused_with_the_numbers(make):
    async def ask():
        async with AsyncEngine(make()) as engine:
            for length, max_tokens in ((120, 9), (128, None), (128, 1)):
                with pytest.raises(ContextLengthError) as refused:
                    await engine.prepare([1] * length, SamplingParams(max_tokens=max_tokens))
                error = refused.value
                assert (error.prompt_tokens, error.max_tokens, error.context) == (length, max_tokens, 128)
            request = await engine.prepare([1] * 120, SamplingParams(max_tokens=8))
            assert request.sequences[0].max_length == 128
            assert (await engine.prepare([1] * 120, SamplingParams(max_tokens=None))).sequences[0].max_length == 128

    run(ask())


def test_blocks_are_shared_within_a_salt_only(make):
    llm, prompt = make(), "x" * 50

    async def ask():
        async with AsyncEngine(llm) as engine:
            hits = []
            for salt in (None, "a", "b", "a", None):
                before = engine.stats().prefix_hits
                stream = engine.submit([await engine.prepare(prompt, SamplingParams(max_tokens=2), cache_salt=salt)])
                async for _ in stream:
                    pass
                hits.append(engine.stats().prefix_hits - before)
            return hits

    assert run(ask()) == [0, 0, 0, 48, 48]


def test_template_arguments_reach_the_template_and_are_refused_with_a_text(make):
    llm = make()
    given = {}
    llm.tokenizer.encode_chat = lambda messages, **template: given.update(template) or [1, 2]

    async def ask():
        async with AsyncEngine(llm) as engine:
            messages = [{"role": "user", "content": "a"}]
            await engine.prepare(messages, continue_final_message=True, tools=[])
            with pytest.raises(UserError, match="tools is for the messages"):
                await engine.prepare("a", tools=[])

    run(ask())
    assert given == {"continue_final_message": True, "tools": []}
