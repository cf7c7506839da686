"""Reading traces (trace_files.py): what was written comes back, anything else is refused by its line."""

import json

import pytest

from helpers.stub_engine import ByteTokenizer, ScriptedRunner
from nano_llama.core.errors import FormatError, UserError
from nano_llama.core.sampling import SamplingParams
from nano_llama.vol3_engine.llm import LLM
from nano_llama.vol3_engine.trace_files import read_trace


@pytest.fixture
def trace(tmp_path):
    path = tmp_path / "trace.jsonl"
    llm = LLM.from_runner(ScriptedRunner(), ByteTokenizer(), trace=path)
    llm.generate(["a" * 20, "b"], SamplingParams(max_tokens=5, ignore_eos=True))
    llm.close()
    return path


def test_what_was_written_is_read(trace):
    events = read_trace(trace)
    assert events == [json.loads(line) for line in trace.read_text().splitlines()]
    assert {event["event"] for event in events} == {"began", "arrived", "step", "ended"}


def test_a_run_that_was_cut_off_is_read_to_there(trace):
    whole = read_trace(trace)
    trace.write_bytes(trace.read_bytes()[:-20])
    assert read_trace(trace) == whole[:-1]


@pytest.mark.parametrize(
    "line",
    [b"", b"{", b"[]", b'{"event": "other"}', b'{"event": "step", "t": 1}', b"\xff\xfe", b"[" * 100_000,
     b'{"event": "ended", "t": NaN, "sequence": 0, "tokens": 1, "reason": "stop"}',
     b'{"event": "ended", "t": 1, "sequence": true, "tokens": 1, "reason": "stop"}'],
)  # fmt: skip
def test_a_line_that_is_no_event_is_named(trace, line):
    lines = trace.read_bytes().splitlines()
    trace.write_bytes(b"\n".join([*lines[:2], line, *lines[2:]]))
    with pytest.raises(FormatError, match="line 3"):
        read_trace(trace)


def test_what_is_no_trace_at_all(tmp_path, trace):
    with pytest.raises(UserError, match="No such file"):
        read_trace(tmp_path / "none.jsonl")
    trace.write_bytes(b"\n".join(trace.read_bytes().splitlines()[1:]))
    with pytest.raises(FormatError, match="began"):
        read_trace(trace)
    trace.write_bytes(b"")
    with pytest.raises(FormatError, match="began"):
        read_trace(trace)
