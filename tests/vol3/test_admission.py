"""Admission: never more waiting than its bounds, however requests come and go."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.stub_engine import ByteTokenizer, ScriptedRunner
from nano_llama.core.errors import EngineOverloaded, UserError
from nano_llama.core.sampling import SamplingParams
from nano_llama.vol3_engine.admission import LONGEST_RETRY, UNKNOWN_RETRY, Admission, Queue, retry_after
from nano_llama.vol3_engine.llm import LLM

MODEL = LLM.from_runner(ScriptedRunner(), ByteTokenizer())


def request(tokens=1, n=1):
    return MODEL.request([65] * tokens, SamplingParams(n=n, max_tokens=1))


@pytest.mark.parametrize(
    ("queue", "n", "admitted"),
    [
        (Queue(), 4 + 2, True),  # all places are free, and as many may wait
        (Queue(running=2), 4, True),
        (Queue(running=2, waiting=1), 4, False),
        (Queue(running=2, waiting=4), 1, False),
        (Queue(running=1, waiting=4), 1, True),  # a place is free: one of them starts with the next step
    ],
)
def test_all_samples_are_admitted_or_none(queue, n, admitted):
    admission = Admission(max_running=2, max_waiting=4, max_waiting_tokens=1000)
    if admitted:
        admission.check(queue, 1.0, [request(n=n)])
        admission.check(queue, 1.0, [request() for _ in range(n)])
    else:
        for asked in ([request(n=n)], [request() for _ in range(n)]):
            with pytest.raises(EngineOverloaded) as caught:
                admission.check(queue, 1.0, asked)
            running, waiting, more, may_run, may_wait = map(int, re.findall(r"\d+", caught.value.message))
            assert (running, waiting, more) == (queue.running, queue.waiting, n) and (may_run, may_wait) == (2, 4)
            assert running + waiting + more > may_run + may_wait, "the numbers of the message add up"


def test_nothing_may_wait_is_a_bound_too():
    admission = Admission(max_running=1, max_waiting=0, max_waiting_tokens=1)
    admission.check(Queue(), 0.0, [request()])
    with pytest.raises(EngineOverloaded):
        admission.check(Queue(running=1), 0.0)


def test_prompt_tokens_are_bounded_but_one_request_alone_may_always_wait():
    admission = Admission(max_running=1, max_waiting=9, max_waiting_tokens=50)
    admission.check(Queue(running=1), 0.0, [request(tokens=100)])
    admission.check(Queue(running=1, waiting=1, waiting_tokens=30), 0.0, [request(tokens=20)])
    with pytest.raises(EngineOverloaded, match=r"30 prompt tokens wait; with 21 more .* the 50 that may"):
        admission.check(Queue(running=1, waiting=1, waiting_tokens=30), 0.0, [request(tokens=21)])


def test_more_than_can_ever_be_there_is_the_callers_mistake():
    admission = Admission(max_running=2, max_waiting=1, max_waiting_tokens=50)
    with pytest.raises(UserError, match="4 samples at once"):
        admission.check(Queue(), 0.0, [request(n=4)])


@given(
    waiting=st.integers(0, 20),
    running=st.integers(0, 5),
    n=st.integers(1, 12),
    max_waiting=st.integers(0, 12),
)
def test_what_is_admitted_never_exceeds_the_bound(waiting, running, n, max_waiting):
    admission = Admission(max_running=5, max_waiting=max_waiting, max_waiting_tokens=1000)
    try:
        admission.check(Queue(waiting, running, waiting), 1.0, [request(n=n)])
    except (EngineOverloaded, UserError):
        assert waiting + n + running > max_waiting + 5, "there was room"
    else:
        assert waiting + n - (5 - running) <= max_waiting


def test_retry_after_is_the_time_that_the_queue_takes():
    assert retry_after(30, 2.0) == 15.0
    assert retry_after(1, 100.0) == 1.0, "a client should not come back at once"
    assert retry_after(1000, 0.1) == LONGEST_RETRY
    assert retry_after(10, 0.0) == UNKNOWN_RETRY


@pytest.mark.parametrize("bounds", [(-1, 5), (1.5, 5), (True, 5), (1, 0), (1, None)])
def test_bounds_are_checked(bounds):
    with pytest.raises(UserError, match="max_waiting"):
        Admission(1, *bounds)


def test_a_queue_is_counted_from_the_states_of_sequences():
    llm = LLM.from_runner(ScriptedRunner(), ByteTokenizer(), max_num_seqs=3)
    params = SamplingParams(max_tokens=9, ignore_eos=True, seed=1)
    requests = [llm.request("a" * 5, params.replace(n=2)), llm.request("b" * 7, params.replace(n=2))]
    requests.append(llm.request("c" * 9, params))
    assert Queue.of(requests) == Queue(waiting=5, running=0, waiting_tokens=21)
    for sequence in (sequence for one in requests for sequence in one.sequences):
        llm.engine.add(sequence, on_event=lambda event: None)
    llm.engine.step()
    assert Queue.of(requests) == Queue(waiting=2, running=3, waiting_tokens=9)
    while llm.engine.has_work:
        llm.engine.step()
    assert Queue.of(requests) == Queue()
