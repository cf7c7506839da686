"""docs/pictures.md is right: its commands exist with the flags it shows, its tasks are those that there are, and its
Python runs.
"""

import re
import shlex
from pathlib import Path

import pytest

from helpers.api import listening
from nano_llama import LLM
from nano_llama.cli import COMMANDS, main
from nano_llama.data.vqa import TASKS

PAGE = (Path(__file__).parents[2] / "docs" / "pictures.md").read_text()
CALLS = [shlex.split(line, comments=True)[1:] for line in PAGE.splitlines() if line.startswith("nano-llama ")]


@pytest.mark.parametrize("verb", sorted({call[0] for call in CALLS}))
def test_every_flag_shown_exists(verb, capsys):
    assert verb in COMMANDS and main([verb, "--help-all" if verb == "train" else "--help"]) == 0
    known = capsys.readouterr().out
    flags = {word for call in CALLS if call[0] == verb for word in call if word.startswith("--")}
    if verb == "train":
        flags |= set(re.findall(r"`(--[a-z-]+)", PAGE.split("## How good")[0]))
    assert not [flag for flag in flags if flag not in known]


def test_its_tasks_are_all():
    assert tuple(re.findall(r"^\| `(\w+)` \|", PAGE, re.M)) == TASKS


@pytest.mark.slow  # kernels may have to be compiled
def test_its_python_runs(tmp_path, monkeypatch, capsys):
    """In order: a picture is saved, and asked about in Python and over HTTP."""
    for needed in ("PIL.Image", "starlette", "openai"):
        pytest.importorskip(needed)
    monkeypatch.chdir(tmp_path)
    in_python, over_http = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    exec(in_python, {})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 and lines[0].startswith("What colour is the shape? ")
    answers = [re.fullmatch(r".*\? (\w+) \(right: (\w+)\)", line).groups() for line in lines]
    assert sum(said == right for said, right in answers) >= 3, lines
    with listening(LLM("nano_eyes", runner="numpy", num_threads=1)) as address:
        exec(over_http.replace("http://127.0.0.1:8000", address).replace('model="nano_eyes"', 'model="tiny"'), {})
    assert capsys.readouterr().out.strip() == answers[0][0]
