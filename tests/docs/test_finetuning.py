"""docs/finetuning.md is right: its examples are read, and its commands run, in its order, on a small model."""

import json
import re
import shlex
from pathlib import Path

import pytest

pytest.importorskip("torch")

from helpers.finetuning import save_chat_model
from nano_llama.cli import main
from nano_llama.data.sft.forms import Completion, Conversation, Text, read_example

PAGE = (Path(__file__).parents[2] / "docs" / "finetuning.md").read_text()
COMMANDS = [
    line
    for block in re.findall(r"```bash\n(.*?)```", PAGE, re.S)
    for line in block.splitlines()
    if line.startswith("nano-llama ")
]


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.S)


def test_every_form_is_read_and_says_the_same():
    records = [json.loads(line) for block in blocks("json") for line in block.splitlines()]
    examples = [read_example(record, "page") for record in records]
    assert not any(unread for _, unread in examples)
    kinds = [type(example) for example, _ in examples]
    assert kinds == [Conversation, Conversation, Conversation, Completion, Text]
    assert examples[0][0] == examples[1][0] == examples[2][0]


def test_every_flag_shown_exists(capsys):
    assert main(["finetune", "--help-all"]) == 0
    help = capsys.readouterr().out
    rest = re.sub(r"^nano-llama (?!finetune).*$", "", PAGE, flags=re.M)
    flags = set(re.findall(r"(?<=[\s`(])--[a-z-]+", rest)) - {"--help-all", "--check-data", "--lora"}
    assert len(flags) > 10
    for flag in flags:
        assert flag in help, flag


def test_its_commands_run_one_after_the_other(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    save_chat_model(tmp_path / "smollm2-135m", max_position_embeddings=512)
    example = blocks("json")[0].strip()
    (tmp_path / "chats.jsonl").write_text("\n".join(example.replace("harbour", f"harbour {n}") for n in range(8)))
    assert len(COMMANDS) == 6
    for command in COMMANDS:
        assert main([*shlex.split(command)[1:], "--quiet"]) == 0, (command, capsys.readouterr().err)
        if "--check-data" in command:
            assert "⟦Aye! South of here.<|im_end|>⟧" in capsys.readouterr().out and not (tmp_path / "runs").exists()
    assert (tmp_path / "runs/pirate/report.md").is_file() and (tmp_path / "pirate-lora.gguf").is_file()
