"""docs/pictures.md is right: its commands exist with the flags it shows, and its tasks are those that there are."""

import re
import shlex
from pathlib import Path

import pytest

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
