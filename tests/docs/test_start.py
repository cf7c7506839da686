"""docs/start/ is right: every page's commands and Python run in its order, with fewer steps; each fits one screen."""

import re
import shlex
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest

from nano_llama.cli import main

START = Path(__file__).parents[2] / "docs" / "start"
PAGES = sorted(START.glob("*.md"))
SHORTER = {"--max-minutes": ("--max-steps", "3"), "--max-steps": ("--max-steps", "3"), "--seeds": ("--seeds", "2")}
SLOW = ("study", "bench")  # seconds each: their own tests run them


def shortened(command: str) -> list[str]:
    """The words of a command, with three steps in place of minutes or hundreds."""
    words = shlex.split(command, comments=True)[1:]
    for at, word in enumerate(words[:-1]):
        if word in SHORTER:
            words[at : at + 2] = SHORTER[word]
    if words[0] in ("train", "compare"):
        words += ["--model", "tiny", "--context", "16", "--evaluations", "1", "--samples", "0"]
    return words


def test_there_is_one_for_each_role():
    assert [page.stem for page in PAGES] == ["engineer", "learner", "researcher", "teacher"]


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=pytest.mark.slow) if page.stem == "engineer" else page for page in PAGES],
    ids=lambda page: page.stem,
)
def test_it_runs_in_its_order(page, tmp_path, monkeypatch, capsys, drawn):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.txt").write_text("The quick brown fox jumps over the lazy dog; the dog sleeps on. " * 40)
    text = page.read_text()
    assert len(text.splitlines()) <= 60
    logged = stand_in_for_wandb(monkeypatch)
    for language, block in re.findall(r"```(bash|python)\n(.*?)```", text, re.S):
        if language == "python":
            (tmp_path / "my_file.py").write_text(block)
            exec(compile(block, f"{page.name}", "exec"), {"__name__": "page"})
            continue
        for command in block.splitlines():
            words = shortened(command)
            if words[0] in SLOW:
                words = [words[0], "--help"]
            assert main(words) == 0, (command, capsys.readouterr().err)
    if "wandb" in text:
        assert [step for step, _ in logged] == [row["step"] for _, row in logged] and len(logged) > 0


def stand_in_for_wandb(monkeypatch) -> list[tuple[int, dict]]:
    """What the page calls of that package, which is not installed here: `init` and `Run.log`. -> what is logged."""
    logged: list[tuple[int, dict]] = []
    run = SimpleNamespace(log=lambda row, step: logged.append((step, row)))
    wandb = SimpleNamespace(init=lambda project, config: nullcontext(run))
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    return logged


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_flag_and_command_shown_exists(page, capsys):
    for verb, rest in re.findall(r"nano-llama ([a-z]+)([^`\n]*)", page.read_text()):
        assert main([verb, "--help-all" if verb in ("train", "compare") else "--help"]) == 0
        known = capsys.readouterr().out
        for flag in re.findall(r"--[a-z-]+", rest):
            assert flag in known, (verb, flag)
