"""`nano-llama`: the table of its commands, and `main`, which finds the module of the one that was asked for.

Nothing heavy is imported before the command is known: `nano-llama --help` needs this file alone. Each command is a
file of this folder; dispatch.py parses its arguments, exits.py reports errors, common.py prints.
Tests: tests/cli/test_main.py.
"""

import logging
import shutil
import sys
from collections.abc import Sequence
from textwrap import fill
from typing import NamedTuple


class Command(NamedTuple):
    """A row of the table: the module with `run`, one line of help, and the heading it is listed under."""

    module: str
    help: str
    group: str


COMMANDS = {
    "quickstart": Command(
        "nano_llama.cli.quickstart", "Train a small LLaMA in about 90 seconds, offline.", "Start here"
    ),
    "doctor": Command("nano_llama.cli.doctor", "What this machine can do, and what to install.", "Start here"),
    "completion": Command("nano_llama.cli.completion", "Let Tab complete commands and flags.", "Start here"),
    "learn": Command("nano_llama.cli.learn", "Exercises: write the parts of a LLaMA yourself.", "Start here"),
    "museum": Command("nano_llama.cli.museum", "Real faults, planted into this code: find them.", "Start here"),
    "train": Command("nano_llama.cli.train", "Train a LLaMA on your text.", "Train"),
    "finetune": Command(
        "nano_llama.cli.finetune", "Fine-tune a model on examples: an adapter, or all weights.", "Train"
    ),
    "eval": Command("nano_llama.cli.eval", "Validation loss, perplexity and bits per byte of a model.", "Train"),
    "runs": Command("nano_llama.cli.runs", "Compare training runs: a table and a picture.", "Train"),
    "compare": Command("nano_llama.cli.compare", "Settings on several seeds: a difference, or noise?", "Train"),
    "generate": Command("nano_llama.cli.generate", "Continue a prompt.", "Use"),
    "chat": Command("nano_llama.cli.chat", "Chat with a model in the terminal.", "Use"),
    "serve": Command("nano_llama.cli.serve", "An OpenAI-compatible HTTP server.", "Use"),
    "merge": Command("nano_llama.cli.merge", "Merge an adapter into the model that it was trained on.", "Use"),
    "export": Command("nano_llama.cli.export", "Save a model for Hugging Face, llama.cpp or PyTorch.", "Use"),
    "quantize": Command("nano_llama.cli.quantize", "Save a model with its weight matrices in 4 or 8 bits.", "Use"),
    "bench": Command("nano_llama.cli.bench", "How fast a model runs here, and what memory allows.", "Understand"),
    "info": Command("nano_llama.cli.info", "What is in a checkpoint, tokenizer, dataset or run.", "Understand"),
    "verify": Command("nano_llama.cli.verify", "Compare a checkpoint with transformers, layer by layer.", "Understand"),
    "study": Command("nano_llama.cli.study", "A small experiment with its picture and its finding.", "Understand"),
}

INTRO = """\
nano-llama: one LLaMA, written three times (NumPy by hand, PyTorch, an engine you can read).

Usage: nano-llama COMMAND [OPTIONS]
"""

OUTRO = """\
Every command has --help, --json (one object on stdout) and --quiet.
New here?  nano-llama quickstart      How does it work?  nano-llama learn
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with these arguments (default: the process's own) and return its exit code.

    0: done. 1: the machine lacks something, or a check failed. 2: the arguments cannot be honoured. 130: Ctrl-C.
    """
    from nano_llama.cli.exits import guarded, ignore_late_interrupts

    args = list(sys.argv[1:] if argv is None else argv)
    code = guarded(lambda: _dispatch(args), as_json="--json" in args, debug="--debug" in args)
    if argv is None:
        ignore_late_interrupts()
    return code


def _dispatch(args: list[str]) -> int:
    if args[:1] == ["help"]:  # `nano-llama help train` is what some will type
        args = [*args[1:2], "--help"]
    if not args or args[0] in ("--help", "-h"):
        print(root_help(shutil.get_terminal_size().columns if sys.stdout.isatty() else 0), end="")
        return 0
    if args[0] == "--version":
        from nano_llama import __version__

        print(f"nano-llama {__version__}")
        return 0
    if args[0] not in COMMANDS:
        raise _unknown_command(args[0])
    from nano_llama.cli.dispatch import run_command
    from nano_llama.core.env import silence_libraries_of_ranks, sleep_at_barriers

    sleep_at_barriers()
    silence_libraries_of_ranks()
    log = logging.getLogger("nano_llama")
    before = log.level
    if "--quiet" in args:
        log.setLevel(logging.ERROR)
    try:
        return run_command(args[0], COMMANDS, args[1:])
    finally:
        log.setLevel(before)  # of a program that goes on, as one does that calls main


def root_help(columns: int = 0) -> str:
    """The text of `nano-llama --help`: the commands under their headings, in the table's order.

    columns: of the screen, at which words are wrapped; 0: they are not.
    """
    width = max(map(len, COMMANDS))
    blocks = [INTRO]
    for group in dict.fromkeys(command.group for command in COMMANDS.values()):
        lines = [f"  {name:<{width}}  {row.help}\n" for name, row in COMMANDS.items() if row.group == group]
        blocks.append(f"{group}\n{''.join(lines)}")
    text = "\n".join([*blocks, OUTRO])
    if not columns:
        return text
    indent = " " * (width + 4)  # below the explanations
    wrapped = (fill(line, max(columns, 2 * len(indent)), subsequent_indent=indent) for line in text.splitlines())
    return "".join(f"{line}\n" for line in wrapped)


def _unknown_command(word: str) -> Exception:
    from difflib import get_close_matches

    from nano_llama.core.errors import UserError

    if word.startswith("-"):
        hint = "The command comes first: nano-llama COMMAND --option"
        if command := next((name for name in COMMANDS if name in word), None):  # other programs' --completion
            hint = f"Did you mean  nano-llama {command} ?"
        return UserError(f"{word!r} is not a command.", hint=hint)
    close = get_close_matches(word, COMMANDS, n=1, cutoff=0.5)
    meant = f"Did you mean  nano-llama {close[0]} ?  " if close else ""
    return UserError(f"Unknown command {word!r}.", hint=f"{meant}Commands: {', '.join(COMMANDS)}.")
