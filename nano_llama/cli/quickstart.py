"""`nano-llama quickstart`: the main job in about 90 seconds on two cores, offline: text -> tokens -> a LLaMA -> text.

First the model that ships writes a greeting; last, the volumes are shown to be the same model. The training is
`nano-llama train --preset stdlib-quick`.
Tests: tests/cli/test_quickstart.py.
"""

import math
import shlex
import time
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from nano_llama.cli.common import Count, Output, Positive, Screen, printable
from nano_llama.cli.engines import has_torch
from nano_llama.cli.train import check_engine, live_display, make_trainer, summary
from nano_llama.core import files
from nano_llama.core.errors import UserError
from nano_llama.core.sampling import SamplingParams
from nano_llama.core.units import count_text, time_text
from nano_llama.core.vision.config import language_config
from nano_llama.formats.shipped import DEFAULT_MODEL, shipped_model
from nano_llama.training.clock import process_start
from nano_llama.training.loop import TrainingLoop
from nano_llama.training.run_folder import RunFolder
from nano_llama.training.settings_layers import make_settings
from nano_llama.vol3_engine.llm import LLM

PRESET = "stdlib-quick"
MINUTES = 1.3  # from the command's start to the end of training; samples and comparison take a few seconds more
PROMPT = "def read_file(path):\n"
SAMPLE = SamplingParams(temperature=0.7, top_p=0.9, max_tokens=80, seed=1)
GREETING = "Once upon a time"
# What the volumes are compared on.
SENTENCE = "It was the last evening of the year, and the captain had not yet come home."


def run(
    *,
    out: Annotated[Path | None, Parameter(show_default=False)] = None,
    engine: Annotated[Literal["torch", "numpy"] | None, Parameter(show_default=False)] = None,
    max_minutes: Annotated[Positive | None, Parameter(show_default=False)] = None,
    max_steps: Annotated[Count | None, Parameter(show_default=False)] = None,
    output: Output | None = None,
) -> int:
    """Meet the model that ships, train a small LLaMA on your Python's standard library, and read what it writes.

    Nothing is downloaded. The text is read in place from your disk.

    Parameters
    ----------
    out
        The run's folder. By default runs/quickstart, or the next free runs/quickstart-2, -3 ...
    engine
        torch: Volume 2. numpy: Volume 1, by hand. By default torch where it is installed.
    max_minutes
        Wall time from the start to the end of training. By default MINUTES.
    max_steps
        Train this many steps instead.
    """
    screen = Screen(output)
    if max_minutes is not None and max_steps is not None:
        raise UserError("--max-minutes and --max-steps are both given.", hint="Leave one of them out.")
    began = process_start()
    if engine is None:
        engine = "torch" if has_torch() else "numpy"
    folder = out if out is not None else next_free(Path("runs") / "quickstart")
    check_engine(engine)
    files.check_folder(folder.parent)
    RunFolder(folder).check_new()
    greeting = greet(screen)
    if max_minutes is None and max_steps is None:
        max_minutes = MINUTES
    flags = {"engine": engine, "max_minutes": max_minutes, "max_steps": max_steps}
    settings = make_settings(preset=PRESET, flags=flags)
    say_heading(screen, "1. Text into tokens")
    screen.say(
        "The Python standard library's source is cut into frequent pieces, tokens, by byte-pair encoding:\n"
        f"{settings.tokenizer} learns {settings.tokenizer.partition(':')[2]} of them. Cached for the next run."
        if settings.tokenizer
        else ""
    )
    trainer = make_trainer(settings, folder, progress=live_display(screen), start=began)
    say_tokens(screen, trainer)

    say_heading(screen, "2. A fresh model")
    volume = "Volume 2, PyTorch" if engine == "torch" else "Volume 1, NumPy, every gradient by hand"
    config = language_config(trainer.config)
    screen.say(
        f"A LLaMA of {count_text(config.num_parameters)} parameters ({config.num_hidden_layers} layers, width "
        f"{config.hidden_size}) in {volume}. Untrained, it writes:"
    )
    before = sample(trainer)
    show_sample(screen, before)

    say_heading(screen, "3. Training")
    guess = math.log(config.vocab_size)
    screen.say(
        "At every token it predicts the next; the loss is its surprise in nats. Pure guessing costs "
        f"ln {config.vocab_size:,} = {guess:.2f}."
    )
    result = trainer.fit()

    say_heading(screen, "4. What it learned")
    after = sample(trainer)
    show_sample(screen, after)
    comparison = compare_volumes(screen)
    took = time.monotonic() - began
    data = {**result.to_json(), "before": before, "after": after, "prompt": PROMPT, "engine": engine}
    data |= {"greeting": greeting, "volumes": comparison}
    screen.result({**data, "loss_of_guessing": guess, "plot": folder / "loss.png", "seconds": took}, summary(result))
    say_next_steps(screen, folder, engine, took)
    return 0


assert run.__doc__ is not None
run.__doc__ = run.__doc__.replace("MINUTES", f"{MINUTES:g}")


def next_free(path: Path) -> Path:
    """`path`, or the first of path-2, path-3, ... that does not exist."""
    number = 1
    while (candidate := path if number == 1 else path.with_name(f"{path.name}-{number}")).exists():
        number += 1
    return candidate


def say_heading(screen: Screen, text: str) -> None:
    screen.say(f"\n{text}", style="bold cyan")


def greet(screen: Screen) -> str:
    """The model that ships continues a sentence, run by Volume 1, which loads in a second."""
    model = shipped_model(DEFAULT_MODEL)
    assert model is not None, "the package holds its model"
    llm = LLM(model, runner="numpy", max_num_seqs=1)
    count = count_text(llm.config.num_parameters)
    say_heading(screen, f"Hello from {DEFAULT_MODEL}, a LLaMA of {count} parameters that came with this package")
    screen.say("It was trained on old books, on one GPU, in four minutes, by this very code. It writes:")
    screen.say()
    text = GREETING
    screen.say_piece(f"    {GREETING}", style="green")
    for piece in llm.stream(GREETING, SAMPLE):
        text += piece.text
        screen.say_piece(printable(piece.text).replace("\n", "\n    "), style="green")
    screen.say_piece("\n")
    return text


def compare_volumes(screen: Screen) -> dict[str, Any]:
    """The volumes' logits for the model that ships, on one sentence."""
    from nano_llama.cli.verify import volumes_table, volumes_verdict
    from nano_llama.verify.volumes import verify_volumes

    say_heading(screen, f"5. One model, three volumes: {DEFAULT_MODEL} in each of them")
    report = verify_volumes(DEFAULT_MODEL, others=False, text=SENTENCE)
    if not screen.quiet:
        screen.err.print(volumes_table(report))
    screen.say(volumes_verdict(report))
    return report.to_dict()


def say_tokens(screen: Screen, trainer: TrainingLoop) -> None:
    """How the text was tokenized, shown on one line of code."""
    line = "for name in sorted(os.listdir(path)):"
    tokenizer = trainer.tokenizer
    pieces = [tokenizer.decode([token]) for token in tokenizer.encode(line)]
    split = trainer.dataset.train
    screen.say(
        f"{split.num_bytes / 1e6:,.1f} MB of text are {split.num_tokens / 1e6:,.1f} million tokens. For example:\n"
        f"  {line}  ->  {' | '.join(pieces)}"
    )


def sample(trainer: TrainingLoop) -> str:
    """What the trainer's model writes after PROMPT at this moment, run by Volume 1, which takes weights as arrays."""
    from nano_llama.vol1_numpy import Llama

    model = Llama(language_config(trainer.config), dict(trainer.backend.weights()))
    llm = LLM.from_model(model, trainer.tokenizer, max_num_seqs=1)
    text = ""
    for piece in llm.stream(PROMPT, SAMPLE):
        text += piece.text
    return text


def show_sample(screen: Screen, text: str) -> None:
    """The prompt and the model's continuation."""
    screen.say()
    for line in printable(PROMPT + text).splitlines():
        screen.say(f"    {line}", style="green")


def say_next_steps(screen: Screen, folder: Path, engine: str, seconds: float) -> None:
    """What to try after this, with the same engine."""
    by = "" if engine == "torch" else f" --engine {engine}"
    here, more = shlex.quote(str(folder)), shlex.quote(f"{folder}-more")
    commands = {
        "the shipped model": 'nano-llama generate --prompt "She opened the letter, and"',
        "your model": f'nano-llama generate --model {here} --prompt "import "{by}',
        "train longer": f"nano-llama train --preset {PRESET} --init-from {here} --out {more} --max-minutes 10{by}",
        "your own text": f"nano-llama train --data YOUR_TEXT --out runs/mine --max-minutes 10{by}",
        "for llama.cpp": f"nano-llama export --model {here} --format gguf --out quick.gguf",
        "experiments": "nano-llama study",
    }
    say_heading(screen, f"Done in {time_text(seconds)}. Next")
    screen.say(f"  {'the loss curve':<18}{folder / 'loss.png'}", whole_lines=True)
    for what, command in commands.items():
        screen.say(f"  {what:<18}{command}", whole_lines=True)
    screen.say(
        "\nHow does it work? Chapter 1 of the book, What a language model is, begins with that question, and\n"
        "  nano-llama learn  gives you its exercises.",
        whole_lines=True,
    )
