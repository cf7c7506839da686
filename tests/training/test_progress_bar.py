"""What the eye sees of a run: in a pipe lines, on a terminal a bar."""

import io
from pathlib import Path

from rich.console import Console

from nano_llama.training.callback import RunFacts
from nano_llama.training.evaluation import Evaluation
from nano_llama.training.preflight import preflight
from nano_llama.training.progress_bar import ProgressBar
from nano_llama.training.record import Speed, StepRecord
from nano_llama.training.samples import Sample
from nano_llama.training.settings import TrainSettings


def record(**figures) -> StepRecord:
    speed = Speed(tokens_per_second=999.0, mfu=0.41, data_stall=0.002)
    return StepRecord(
        tokens=1, train_loss=2.5, train_bits_per_byte=1.25, lr=1e-3, grad_norm=0.75, session=speed, recent=speed,
        checkpoint_pause_s=0.0, peak_memory=3 * 2**30, elapsed_s=1.0, **figures,
    )  # fmt: skip


def show(config, terminal: bool, deterministic: bool = True, **settings) -> str:
    text = io.StringIO()
    bar = ProgressBar(Console(file=text, force_terminal=terminal, width=120))
    bar.preparing("tokenizing", 5_000_000, 10_000_000)
    bar.started(
        RunFacts(
            settings=TrainSettings(**settings), config=config, out=Path("run"),
            device="cpu", deterministic=deterministic, train_tokens=12_345, val_tokens=678, resumed_at=40,
            preflight=preflight(config, TrainSettings(max_steps=50), peak_flops=60e9),
        )
    )  # fmt: skip
    for step in (41, 42, 43):
        bar.stepped(record(step=step, progress=step / 50, seconds_left=75.0))
    bar.evaluating(300, 678)
    bar.evaluated(43, Evaluation(loss=1.75, tokens=678, bytes=678, seconds=1.0, accuracy={"colour": 0.987}))
    bar.sampled(43, [Sample("to be\nor", " not"), Sample("the second", "")])
    bar.notice("by the way")
    bar.ended()
    return text.getvalue()


def test_a_pipe_gets_lines(tiny_config):
    text = show(tiny_config(), terminal=False)
    assert "resuming from step 40" in text and "12,345 training tokens" in text
    assert "memory: about" in text and "50 steps" not in text and "at up to 60 GFLOP/s" in text
    figures = "loss 2.5000 · 1.250 bits per byte · lr 0.001 · gradient 0.75 · 999 tokens/s · MFU 41% · 3.0 GiB"
    assert text.count(f"{figures} · 1:15 left") == 1, "not a line a step"
    assert "to be⏎or▸ not" in text and "the second" not in text, "a sample is shown briefly"
    assert "validation loss 1.7500, 2.5247 bits per byte" in text and "by the way" in text
    assert "right: colour 99%" in text
    assert "\x1b" not in text


def test_a_run_whose_bits_differ_is_said_to_be_so(tiny_config):
    assert "--deterministic on" in show(tiny_config(), terminal=False, deterministic=False)
    assert "--deterministic" not in show(tiny_config(), terminal=False)


def test_pictures_have_no_number_for_they_do_not_end(tiny_config):
    text = show(tiny_config(), terminal=False, data="shapes-vqa", init_from="nano_gpt")
    assert "endless pictures, 678 validation tokens" in text and "training tokens" not in text


def test_a_terminal_gets_a_bar_that_is_gone_in_the_end(tiny_config):
    text = show(tiny_config(), terminal=True)
    assert "\x1b[?25l" in text and text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l"), "the cursor comes back"
    assert "━" in text and "gradient 0.75" in text


def test_the_time_that_is_left_goes_on_between_steps(monkeypatch):
    """While a step, an evaluation or saving takes its time, the bar counts down; at the end it says what goes on."""
    now = [100.0]
    monkeypatch.setattr("nano_llama.training.progress_bar.time.monotonic", lambda: now[0])
    bar = ProgressBar(Console(file=io.StringIO(), force_terminal=True, width=120))

    def seen() -> str:
        screen = Console(file=io.StringIO(), width=120)
        screen.print(bar.bars.get_renderable())
        return screen.file.getvalue()

    bar.stepped(record(step=1, progress=0.5, seconds_left=11.0))
    assert "step 1 · 0:11 left" in " ".join(seen().split())
    now[0] += 4.0
    assert "step 1 · 0:07 left" in " ".join(seen().split())
    bar.stepped(record(step=2, progress=1.0, seconds_left=5.0))
    assert "step 2 · saving" in seen() and "left" not in seen()
    bar.ended()
