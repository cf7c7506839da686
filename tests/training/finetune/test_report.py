"""report.md: its figures are those of the run and of the two examinations, its commands exist, its text is text."""

import re
import shlex
from dataclasses import replace
from importlib import import_module

import pytest

pytest.importorskip("torch")

from nano_llama.cli import COMMANDS
from nano_llama.cli.dispatch import make_app
from nano_llama.training.callback import Callbacks
from nano_llama.training.finetune.examination import Answer, KeepBefore, Measured
from nano_llama.training.finetune.report import forgetting, indented, markdown_table, next_commands, report_text
from nano_llama.training.finetune.run import fit_with_report
from nano_llama.training.metrics import read_metrics
from nano_llama.vol2_torch.trainer import Trainer


@pytest.fixture(scope="module")
def loop_and_result(recipe, tmp_path_factory):
    keep = KeepBefore()
    recipe = recipe.replace(adapter="lora", max_steps=4, evaluations=2)
    loop = Trainer(recipe, tmp_path_factory.mktemp("run") / "run", progress=Callbacks(keep))
    return loop, fit_with_report(loop, keep)


def rows(text, title):
    """The cells of the first table below a heading."""
    table = text.split(f"## {title}")[1].split("\n## ")[0]
    lines = [line for line in table.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_figures(loop_and_result):
    loop, done = loop_and_result
    text = done.report.read_text()
    loss, right, held_out = rows(text, "What has changed")[2:]
    assert loss[1:] == [f"{one.validation.loss:.4f}" for one in (done.before, done.after)]
    assert float(loss[2]) == pytest.approx(done.result.evaluation.loss, abs=1e-4)
    assert right[1:] == ["0 of 4 (0%)"] * 2
    assert held_out[1:] == [f"{one.held_out.bits_per_byte:.4f}" for one in (done.before, done.after)]
    change = done.after.held_out.bits_per_byte / done.before.held_out.bits_per_byte - 1
    assert f"changed by {change:+.1%}" in text
    metrics = read_metrics(loop.folder.metrics)
    evaluated = [row for row in metrics if "val_loss" in row]
    assert [row[0] for row in rows(text, "Loss")[2:]] == [str(row["step"]) for row in evaluated] == ["2", "4"]
    assert [float(row[2]) for row in rows(text, "Loss")[2:]] == pytest.approx(
        [row["val_loss"] for row in evaluated], abs=1e-4
    )
    assert f"{loop.expected.parameters:,} parameters" in text and "LoRA, rank 8" in text
    assert f"learned from {len(loop.dataset.train.sequences)} examples" in text
    for answer in done.after.answers:
        assert indented(answer.prompt) in text and indented(answer.expected) in text
    facts = dict(rows(text, "How it was trained")[2:])
    assert "lr = 0.01" in facts["settings that differ from the defaults"] and "seed" not in str(facts)
    assert f"{loop.dataset.train.num_learned:,} are learned" in facts["tokens of an epoch"]


def test_right_answers_are_counted_and_said(loop_and_result):
    loop, done = loop_and_result
    answers = [
        Answer("one", "1", "1", True, True), Answer("two", "2", "# 3 | `x`\n- y", False, True),
        Answer("three", "3", "3", True, False), Answer("four", "4", "5", False, False),
    ]  # fmt: skip
    text = report_text(loop, done.result, done.before, replace(done.after, answers=answers))
    assert rows(text, "What has changed")[3][2] == "2 of 4 (50%)"
    assert text.count("(exactly right)") == 1 and "three" not in text, "what is not shown is counted alone"
    assert "\n    # 3 | `x`\n    - y\n" in text, "no line of an answer is Markdown"


def test_the_lowest_loss_before_the_end_is_pointed_at(loop_and_result):
    loop, done = loop_and_result
    assert "was lowest at step" not in done.report.read_text()
    saved = loop.folder.metrics.read_text()
    try:
        loop.folder.metrics.write_text(saved.removesuffix("}\n") + ', "model_step": 2}\n')
        assert "was lowest at step 2" in report_text(loop, done.result, done.before, done.after)
    finally:
        loop.folder.metrics.write_text(saved)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (-0.1, "become better"), (0.0, "forgotten nothing"), (0.03, "forgotten a little"),
        (0.1, "forgotten noticeably"), (1.0, "forgotten much"),
    ],
)  # fmt: skip
def test_forgetting_in_words(loop_and_result, change, words):
    before = replace(loop_and_result[1].before, held_out=Measured(1.0, 2.0, 10))
    after = replace(before, held_out=Measured(1.0, 2.0 * (1 + change), 10))
    assert words in forgetting(before, after)
    assert forgetting(None, after) == forgetting(before, replace(after, held_out=None)) == ""


@pytest.mark.parametrize("adapter", ["lora", "none"])
@pytest.mark.parametrize("can_chat", [True, False])
def test_every_command_it_names_is_understood(recipe, tmp_path, adapter, can_chat):
    commands = next_commands(recipe.replace(adapter=adapter), tmp_path / "a run", can_chat)
    for command in commands:
        program, name, *arguments = shlex.split(command, comments=True)
        assert program == "nano-llama"
        app = make_app(name, import_module(COMMANDS[name].module).run)
        app.parse_args(arguments, exit_on_error=False, print_error=False)
    text = "\n".join(commands)
    assert ("nano-llama merge" in text) == (adapter == "lora") and ("nano-llama chat" in text) == can_chat
    assert text.count("--adapter") == (adapter == "lora") * (3 + can_chat), "chat, generate, serve and merge"


@pytest.mark.parametrize(
    ("length", "flag"),
    [
        ({"epochs": 10.0}, "--epochs 20"),
        ({"max_steps": 200}, "--max-steps 400"),
        ({"max_minutes": 5.0}, "--max-minutes 10"),
    ],
)
def test_the_command_that_trains_further_asks_for_more_than_the_run_had(recipe, tmp_path, length, flag):
    commands = next_commands(recipe.replace(**length), tmp_path, can_chat=False)
    assert f" --resume {flag}  #" in commands[-1]


def test_a_table_reads_well_on_a_terminal_too():
    text = markdown_table(("what", "n"), [("a|b", "1"), ("longer", "22")], "lr")
    assert text.splitlines() == [
        "| what   |   n |", "| ------ | ---:|", r"| a\|b   |   1 |", "| longer |  22 |"
    ]  # fmt: skip


def test_long_text_is_cut_in_its_middle():
    text = indented("a" * 2000 + "b" * 2000)
    assert "    [... 2,800 characters ...]" in text.splitlines() and text.count("b") == 600
    assert re.fullmatch(r" {4}\(.*\)", indented(" \n "))
