"""Timing: when a sequence arrived, started, brought its first token and ended, in this order."""

import time

from helpers.stub_engine import ByteTokenizer, ScriptedRunner
from nano_llama.core.sampling import SamplingParams
from nano_llama.vol3_engine.llm import LLM
from nano_llama.vol3_engine.timing import Timing


def test_the_engine_writes_down_every_moment_in_order():
    llm = LLM.from_runner(ScriptedRunner(), ByteTokenizer(), max_num_seqs=1)
    params = SamplingParams(max_tokens=3, ignore_eos=True, seed=1)
    requests = [llm.request("first", params), llm.request("second", params)]
    before = time.perf_counter()
    for _ in llm.engine.run([sequence for request in requests for sequence in request.sequences]):
        pass
    for timing in (request.timing for request in requests):
        moments = [timing.arrived, timing.scheduled, timing.first_token, timing.finished]
        assert moments == sorted(moments) and before <= moments[0] and moments[-1] <= time.perf_counter()
    assert requests[1].timing.scheduled >= requests[0].timing.finished, "only one runs at once"


def test_an_aborted_sequence_has_an_end_but_no_first_token():
    llm = LLM.from_runner(ScriptedRunner(), ByteTokenizer())
    sequence = llm.request("a", SamplingParams()).sequences[0]
    llm.engine.add(sequence, on_event=lambda event: None)
    llm.engine.abort(sequence)
    assert sequence.timing.first_token is None and sequence.timing.finished is not None


def test_samples_together_start_with_the_first_and_end_with_the_last():
    merged = Timing.merged([Timing(1, 3, 4, 9), Timing(1, 2, 5, 8)])
    assert merged == Timing(1, 2, 4, 9)
    assert Timing.merged([Timing(1, 2, 3, 4), Timing(1)]) == Timing(1, 2, 3, None), "one of them has not ended"
