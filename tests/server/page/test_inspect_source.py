"""/inspect/source (nano_llama/server/inspection/source.py): the lines that it shows are those that a replay runs."""

import sys
from pathlib import Path

import numpy as np
import pytest

import nano_llama
from helpers.api import bpe, config
from nano_llama.core.init import init_params
from nano_llama.server.inspection.source import STAGES
from nano_llama.vol1_numpy.ops.attention import attention_weights
from nano_llama.vol1_numpy.replay import Replay

ROOT = Path(nano_llama.__file__).parent.parent


@pytest.fixture(scope="module")
def stages(client):
    return {stage["name"]: stage for stage in client.get("/inspect/source").json()["stages"]}


def test_the_lines_are_the_files(stages):
    assert list(stages) == list(STAGES)
    for stage in stages.values():
        lines = (ROOT / stage["file"]).read_text().splitlines()[stage["line"] - 1 :]
        code = stage["code"].splitlines()
        assert [line.strip() for line in code] == [line.strip() for line in lines[: len(code)]], stage["name"]
        assert code[0].startswith("def ") and code[1].startswith("    "), "not indented as in a class"
        compile(stage["code"], stage["file"], "exec")


def test_a_replay_runs_these_very_functions():
    shape = config(bpe())
    replay, ran = Replay(init_params(shape, seed=3), shape), set()

    def note(frame, event, argument):
        ran.add(frame.f_code)

    sys.setprofile(note)
    try:
        for layer in replay.layers(np.array([1, 2, 3])):
            logits = replay.logits(layer.stream[-1])
        replay.contributions(layer.stream, layer.stream[-1], int(logits.argmax()))
    finally:
        sys.setprofile(None)
    assert attention_weights.__code__ in ran
    assert not [name for name, function in STAGES.items() if function.__code__ not in ran]
