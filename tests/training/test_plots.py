"""The pictures are whole, and show what they are given."""

import math
import struct

import pytest

from helpers.slides import watch_figures
from nano_llama.core.config import LlamaConfig
from nano_llama.training.comparison import Comparison
from nano_llama.training.plots import made_how, plot_comparison, plot_run, plot_runs, thinned
from nano_llama.training.settings import TrainSettings

pytestmark = pytest.mark.usefixtures("drawn")


def rows(steps, **more):
    return [
        {
            "step": step,
            "tokens": 64 * step,
            "train_loss": 4.0 / step,
            "lr": 0.1 / step,
            "grad_norm": 4.0 / step,  # so wide a range is drawn in logarithms
            "tokens_per_second": 640.0,
            "elapsed_s": 0.1 * step,
            **more,
        }
        for step in range(1, steps + 1)
    ]


def size(path):
    content = path.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n" and content[-8:-4] == b"IEND"
    return struct.unpack(">II", content[16:24])


def test_pngs_of_the_promised_sizes(tmp_path):
    plot_run([*rows(49), {"step": 50, "train_loss": 0.1, "val_loss": 0.2}], tmp_path / "loss.png", "a title")
    plot_runs([("a", rows(30)), ("b", rows(20, val_loss=1.0))], tmp_path / "runs.png")
    assert (size(tmp_path / "loss.png"), size(tmp_path / "runs.png")) == ((1500, 1050), (1800, 900))
    assert len(list(tmp_path.iterdir())) == 2, "no temporary file is left"


def test_every_figure_is_drawn(tmp_path):
    whole, pictures = rows(30, val_loss=2.0), set()
    for left_out in (None, "val_loss", "lr", "grad_norm", "tokens_per_second", "train_loss"):
        plot_run([{key: row[key] for key in row if key != left_out} for row in whole], tmp_path / "loss.png")
        pictures.add((tmp_path / "loss.png").read_bytes())
    assert len(pictures) == 6


@pytest.mark.parametrize("few", [[], rows(1), [{"step": 3}], rows(25, grad_norm=0.0)])
def test_little_to_draw_is_drawn_too(tmp_path, few):
    plot_run(few, tmp_path / "a.png")
    plot_runs([("one", few)], tmp_path / "b.png")
    assert size(tmp_path / "a.png") and size(tmp_path / "b.png")


def test_thinning_keeps_the_mean_and_the_end():
    curve = [(float(x), math.sin(x)) for x in range(10_000)]
    few = thinned(curve, 100)
    assert len(few) == 100 and few[-1][0] == curve[-1][0]
    assert sum(y for _, y in few) / 100 == pytest.approx(sum(y for _, y in curve) / 10_000)
    assert thinned(curve[:7], 100) == curve[:7]


@pytest.mark.parametrize("steps", [2, 40, 30_000])
def test_each_is_fit_for_a_slide(tmp_path, monkeypatch, tiny_config, steps):
    """Labels, ticks, whole steps, a caption, a legend that covers nothing; light and dark."""
    config: LlamaConfig = tiny_config()
    caption = "; ".join(made_how(config, TrainSettings(data="a", max_steps=1, seed=7, accumulate=4, lr=0.25)))
    assert "encoder" not in caption
    for part in ("2 layers of width 48", "4 batches per step", "at 0.25", "seed 7"):
        assert part in caption
    faults = watch_figures(monkeypatch)
    every = max(1, steps // 40)
    one = [row | {"val_loss": 4.1 / row["step"]} for row in rows(steps) if row["step"] % every == 0]
    plot_run(one, tmp_path / "loss.png", "a title", caption, dark=True)
    names = [f"a/run/{number}" for number in range(12)]
    plot_runs([(name, one) for name in names], tmp_path / "runs.svg", caption)
    for count in (2, 6):
        losses = {f"lr={place / 10}": [2.0 + place / 5, 2.1 + place / 3] for place in range(1, count + 1)}
        comparison = Comparison(losses, "nats per token")
        plot_comparison(comparison, {name: [one, one] for name in losses}, tmp_path / "c.png", caption)
    assert faults == []
