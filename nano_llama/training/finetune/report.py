"""report.md: what was trained on what, how it went, what has changed, and what to do next, for one who reads it later.

Plain Markdown that reads well on a terminal too. Text of models and data is indented, so that no line of it is taken
for Markdown. Tests: tests/training/finetune/test_report.py.
"""

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from nano_llama.core import files
from nano_llama.core.units import count_text, plural, shortened_text, size_text, time_text
from nano_llama.data.sft.dataset import ExampleDataset
from nano_llama.training.finetune.examination import Examination, Measured
from nano_llama.training.finetune.settings import FinetuneSettings
from nano_llama.training.loop import TrainingLoop
from nano_llama.training.metrics import Row, read_metrics
from nano_llama.training.outcome import TrainingResult

FILE = "report.md"
LINES = 12  # of the table of losses, at most
CHARACTERS = 1200  # of a prompt or an answer that is shown
NOT_SHOWN = {"data", "init_from", "max_steps", "epochs"}  # said elsewhere, or follow

# Relative change of bits per byte on held-out text, up to which it is called so.
FORGETTING = (
    (-0.01, "The model has become better at it, too."),
    (0.01, "It has forgotten nothing that shows here."),
    (0.05, "It has forgotten a little."),
    (0.2, "It has forgotten noticeably: a lower --lr or fewer --epochs would keep more."),
    (float("inf"), "It has forgotten much: take a lower --lr or fewer --epochs, or add general examples to the data."),
)


def write_report(loop: TrainingLoop, result: TrainingResult, before: Examination | None, after: Examination) -> None:
    """Write report.md into the run's folder, whole or not at all."""
    files.write_text(loop.folder.path / FILE, report_text(loop, result, before, after))


def report_text(loop: TrainingLoop, result: TrainingResult, before: Examination | None, after: Examination) -> str:
    settings, dataset = loop.settings, loop.dataset
    assert isinstance(settings, FinetuneSettings) and isinstance(dataset, ExampleDataset), "a run on examples"
    rows = read_metrics(loop.folder.metrics)
    commands = "\n".join(next_commands(settings, loop.folder.path, bool(loop.tokenizer.chat_templates)))
    sections = [
        f"# Fine-tuning of {Path(str(settings.init_from)).name}",
        summary(loop, settings, dataset, result),
        "## What has changed",
        *changes(settings, before, after),
        "## Loss",
        *losses(rows),
        "## Answers to validation prompts",
        *answers(before, after),
        "## How it was trained",
        markdown_table(("", ""), facts(settings, dataset, result)),
        "## Next",
        f"```bash\n{commands}\n```",
    ]
    return "\n\n".join(sections) + "\n"


def summary(loop: TrainingLoop, settings: FinetuneSettings, dataset: ExampleDataset, result: TrainingResult) -> str:
    trained, all_ = loop.expected.parameters, loop.config.num_parameters
    what = f"All {count_text(all_)} parameters"
    if settings.lora is not None:
        what = f"An adapter ({settings.lora}) of {trained:,} parameters, {trained / all_:.1%} of the model's,"
    return (
        f"{what} learned from {len(dataset.examples.train):,} examples of `{Path(settings.data).name}` in"
        f" {plural(result.steps, 'step')} ({loop.batches.steps(1.0, settings.accumulate)} an epoch) and"
        f" {time_text(result.elapsed_s)}; {len(dataset.examples.val):,} more were kept for validation."
    )


def changes(settings: FinetuneSettings, before: Examination | None, after: Examination) -> Iterator[str]:
    if before is None:
        yield "What the model could do before was not measured: the run was resumed without its before.json."
    yield markdown_table(("", "before", "after"), changes_table(settings, before, after), "lrr")
    notes = [forgetting(before, after)]
    heads = {name: measured.tokens for name, measured in _measured(after)}
    notes.append("Measured on " + ", ".join(f"{tokens:,} tokens of {name}" for name, tokens in heads.items()) + ".")
    yield " ".join(filter(None, notes))


def changes_table(settings: FinetuneSettings, before: Examination | None, after: Examination) -> list[tuple[str, ...]]:
    """Rows of three columns: what is measured, before, after."""
    both = (before, after)
    asked = min(len(one.answers) for one in both if one is not None)  # one may have been cut short: then these of both
    return [
        ("validation loss, nats per token", *(_figure(one.validation if one else None, "loss") for one in both)),
        ("answers exactly right", *(_right(one, asked) for one in both)),
        (
            f"bits per byte of {_name(settings.held_out)}",
            *(_figure(one.held_out if one else None, "bits_per_byte") for one in both),
        ),
    ]


def forgetting(before: Examination | None, after: Examination) -> str:
    """What the change on held-out text means, in words."""
    if before is None or before.held_out is None or after.held_out is None:
        return ""
    change = after.held_out.bits_per_byte / before.held_out.bits_per_byte - 1.0
    words = next(words for limit, words in FORGETTING if change <= limit)
    shown = round(change, 3) + 0.0  # never -0.0
    return f"On text that the examples have nothing to do with, bits per byte changed by {shown:+.1%}. {words}"


def losses(rows: Sequence[Row]) -> Iterator[str]:
    evaluated = [row for row in rows if "val_loss" in row] or list(rows)
    spread = sorted({round(i * (len(evaluated) - 1) / (LINES - 1)) for i in range(LINES)})
    yield "![training and validation loss by step](loss.png)"
    yield markdown_table(
        ("step", "training loss", "validation loss"),
        [
            (f"{row['step']:,}", *(f"{row[name]:.4f}" if name in row else "" for name in ("train_loss", "val_loss")))
            for row in (evaluated[i] for i in spread)
        ],
        "rrr",
    )
    if rows and (best := rows[-1].get("model_step")) is not None:
        yield (
            f"The validation loss was lowest at step {best:,}, and rose afterwards: from there on the model learned the"
            f" examples themselves. What is saved here, and was examined, is the model of step {best:,}; fewer --epochs"
            " would do."
        )


def answers(before: Examination | None, after: Examination) -> Iterator[str]:
    old = before.answers if before is not None else []
    shown = [number for number, answer in enumerate(after.answers) if answer.shown]
    if not shown:
        yield "None: there was no validation prompt, or no time."
    for count, number in enumerate(shown, start=1):
        answer = after.answers[number]
        parts = {
            "Prompt": answer.prompt,
            "Before": old[number].text if number < len(old) else "",
            "After" + (" (exactly right)" if answer.right else ""): answer.text,
            "Expected": "" if answer.right else answer.expected,
        }
        yield f"### {count}"
        for name, text in parts.items():
            if text or (name == "Before" and number < len(old)):
                yield f"{name}:\n\n{indented(text)}"


def facts(settings: FinetuneSettings, dataset: ExampleDataset, result: TrainingResult) -> list[tuple[str, str]]:
    """Rows of a table: files, sizes, speed, and the settings that differ from their defaults."""
    own = {name: value for name, value in settings.changed.items() if name not in NOT_SHOWN}
    split, last = dataset.train, result.last
    rows = {
        "model": f"`{settings.init_from}`",
        "data": f"`{settings.data}`",
        "tokens of an epoch": f"{split.num_tokens:,}, of which {split.num_learned:,} are learned",
        "speed": f"{result.tokens_per_second:,.0f} tokens/s",
        "peak memory": size_text(last.peak_memory) if last.peak_memory else None,
        "settings that differ from the defaults": ", ".join(f"{name} = {value}" for name, value in own.items()),
        "all settings": "train.json",
    }
    return [(name, text) for name, text in rows.items() if text]


def next_commands(settings: FinetuneSettings, folder: Path, can_chat: bool) -> list[str]:
    """What to type next, each with what it does."""
    run, model = shlex.quote(str(folder)), shlex.quote(str(settings.init_from))
    merged, gguf = (shlex.quote(f"{folder}{end}") for end in ("-merged", ".gguf"))
    adapted = settings.lora is not None
    use = f"--model {model} --adapter {run}" if adapted else f"--model {run}"
    served = f"--model {model} --adapter {shlex.quote(f'{folder.resolve().name}={folder}')}" if adapted else use
    lines = [(f"nano-llama chat {use}", "talk with it")] if can_chat else []
    lines += [
        (f'nano-llama generate {use} --prompt "..."' + " --chat" * can_chat, "one answer"),
        (f"nano-llama serve {served}", "an OpenAI-compatible server"),
    ]
    if adapted:
        lines.append((f"nano-llama merge --model {model} --adapter {run} --out {merged}", "one ordinary model of both"))
    lines += [
        (f"nano-llama export --model {run} --format gguf --out {gguf}", f"{'the adapter ' * adapted}for llama.cpp"),
        (f"nano-llama finetune --out {run} --resume {_longer(settings)}", "train it further"),
    ]
    return [f"{command}  # {what}" for command, what in lines]


def _longer(settings: FinetuneSettings) -> str:
    """Twice its length, by what the run is measured."""
    if settings.max_minutes is not None:
        return f"--max-minutes {2 * settings.max_minutes:g}"
    if settings.max_steps is not None:  # also of a run so many epochs long, once its data has been counted
        return f"--max-steps {2 * settings.max_steps}"
    assert settings.epochs is not None, "one of the three is always set"
    return f"--epochs {2 * settings.epochs:g}"


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[Any]], align: str = "") -> str:
    """align: l or r for each column."""
    cells = [[str(cell).replace("|", "\\|").replace("\n", " ") for cell in row] for row in (head, *rows)]
    widths = [max(3, *(len(row[i]) for row in cells)) for i in range(len(head))]
    right = [place == "r" for place in align.ljust(len(head), "l")]
    lines = [
        "| " + " | ".join(c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True)) + " |"
        for row in cells
    ]
    rule = "|" + "|".join(" " + "-" * w + (":" if r else " ") for w, r in zip(widths, right, strict=True)) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def indented(text: str) -> str:
    """As a block of code, without white space around it; cut in the middle where it is long."""
    text = shortened_text(text.strip(), CHARACTERS, "\n")
    return "\n".join(f"    {line}".rstrip() for line in text.splitlines()) or "    (nothing, or white space alone)"


def _figure(measured: Measured | None, name: str) -> str:
    return "-" if measured is None else f"{getattr(measured, name):.4f}"


def _right(found: Examination | None, asked: int) -> str:
    """Of the first so many questions."""
    if found is None or not asked:
        return "-"
    right = sum(answer.right for answer in found.answers[:asked])
    return f"{right} of {asked} ({right / asked:.0%})"


def _measured(found: Examination) -> Iterator[tuple[str, Measured]]:
    for name, measured in (("validation answers", found.validation), ("held-out text", found.held_out)):
        if measured is not None:
            yield name, measured


def _name(source: str) -> str:
    return {"stdlib": "Python's standard library"}.get(source, Path(source).name)
