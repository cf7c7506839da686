"""The trace: from it a page can replay which sequence was computed when, in which blocks, and how it ended."""

import json
from itertools import pairwise
from pathlib import Path

import pytest

from helpers.stub_engine import ByteTokenizer, ScriptedRunner
from nano_llama.core.errors import EnvironmentFault
from nano_llama.core.sampling import SamplingParams
from nano_llama.vol3_engine.llm import LLM


def test_every_token_and_block_can_be_replayed(tmp_path):
    runner = ScriptedRunner(kv_bytes_per_token=1)
    llm = LLM.from_runner(
        runner, ByteTokenizer(), kv_cache_memory=6 * 16, max_num_seqs=3, max_num_batched_tokens=24,
        trace=tmp_path / "trace.jsonl",
    )  # fmt: skip
    prompts = ["a" * 20, "a" * 20 + "b", "c" * 40]
    outputs = llm.generate(prompts, SamplingParams(max_tokens=30, ignore_eos=True, seed=3))
    llm.close()
    lines = [json.loads(line) for line in (tmp_path / "trace.jsonl").read_text().splitlines()]
    assert lines[0]["event"] == "began" and lines[0]["num_blocks"] == 6
    by_event = {name: [line for line in lines if line["event"] == name] for name in ("arrived", "step", "ended")}
    assert [line["prompt_tokens"] for line in by_event["arrived"]] == [20, 21, 40]
    assert [line["step"] for line in by_event["step"]] == list(range(len(runner.steps)))
    sampled = [0, 0, 0]
    for line, (rows, sampling) in zip(by_event["step"], runner.steps, strict=True):
        assert sum(row["count"] for row in line["rows"]) == rows
        assert sum(row["chooses"] for row in line["rows"]) == sampling
        assert sum(line["blocks"].values()) == 6
        for row in line["rows"]:
            sampled[row["sequence"]] += row["chooses"]
            assert len(row["blocks"]) * 16 >= row["position"] + row["count"]
    assert sampled == [len(out.token_ids) for out in outputs] == [30, 30, 30]
    assert sum(line["prefix_hits"].get("1", 0) for line in by_event["step"]) >= 16
    assert any(line["preempted"] for line in by_event["step"]), "memory was short"
    assert {line["reason"] for line in by_event["ended"]} == {"length"}
    assert all(a["t"] <= b["t"] for a, b in pairwise(lines[1:]))


def test_a_path_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(EnvironmentFault, match="no-such-folder"):
        LLM.from_runner(ScriptedRunner(), None, trace=tmp_path / "no-such-folder" / "trace.jsonl")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_ends_the_trace_and_not_the_engine():
    with pytest.warns(UserWarning, match="/dev/full ends here: No space left"):
        llm = LLM.from_runner(ScriptedRunner({"a": "fine"}), ByteTokenizer(), trace="/dev/full")
        assert llm.generate("a")[0].text == "fine"
        llm.close()
